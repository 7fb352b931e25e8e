//! When watchers are woken: at once, unless that would be all that the server does.
//!
//! Waking a watcher costs a task switch, a record of TLS and a system call, however small the change. When many watch
//! a kind that changes quickly, they are woken for several changes at a time.

use std::{task::Waker, time::Duration};

use tokio::time::Instant;

/// Time that must pass for each watcher woken before watchers are woken again.
const PER_WATCHER: Duration = Duration::from_micros(25);
/// Shorter times are not worth a timer.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(10);

/// The watchers that are to be woken.
pub(super) struct Pace {
    waiting: Vec<Waker>,
    /// Nobody is woken before.
    due: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        Self { waiting: Vec::new(), due: Instant::now() }
    }
}

impl Pace {
    /// Takes watchers that have something to do, and wakes them if it is time.
    pub(super) fn add(&mut self, wake: Vec<Waker>, now: Instant) {
        if self.waiting.is_empty() {
            self.waiting = wake;
        } else {
            self.waiting.extend(wake);
        }
        if now >= self.due {
            self.wake(now);
        }
    }

    /// Whether somebody is to be woken at [`Self::due`].
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// When watchers may be woken again.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Wakes all that wait.
    pub(super) fn wake(&mut self, now: Instant) {
        let rest = PER_WATCHER.saturating_mul(u32::try_from(self.waiting.len()).unwrap_or(u32::MAX)).min(LONGEST);
        if rest >= SHORTEST {
            self.due = now + rest;
        }
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use futures::task::{ArcWake, waker};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl ArcWake for Woken {
        fn wake_by_ref(woken: &Arc<Self>) {
            woken.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn few_are_woken_at_once_and_many_together() {
        let woken = Arc::new(Woken::default());
        let wakers = |count| (0..count).map(|_| waker(Arc::clone(&woken))).collect::<Vec<_>>();
        let count = || woken.0.load(Ordering::Relaxed);
        let mut pace = Pace::default();
        let start = Instant::now();
        pace.add(wakers(10), start);
        pace.add(wakers(10), start);
        assert_eq!((count(), pace.waits()), (20, false), "a few watchers need no pace");
        pace.add(wakers(200), start);
        assert_eq!(count(), 220, "the first change is told at once");
        pace.add(wakers(150), start + Duration::from_millis(1));
        pace.add(wakers(50), start + Duration::from_millis(2));
        assert_eq!((count(), pace.waits()), (220, true));
        assert_eq!(pace.due(), start + Duration::from_millis(5));
        pace.wake(pace.due());
        assert_eq!((count(), pace.waits()), (420, false));
        pace.add(wakers(3000), start + Duration::from_secs(1));
        pace.add(wakers(1), start + Duration::from_secs(1));
        assert_eq!(pace.due(), start + Duration::from_secs(1) + LONGEST);
        drop(pace);
        assert_eq!(count(), 3421, "nobody is forgotten");
    }
}
