//! Time as an argument: the real clock, and one that tests move by hand.

use std::{
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Wall time, monotonic time and timers.
pub trait Clock: Debug + Send + Sync {
    /// Wall-clock time.
    fn now(&self) -> SystemTime;
    /// Time since an arbitrary start; never goes backwards.
    fn elapsed(&self) -> Duration;
    /// Ends after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// The machine's clock.
#[derive(Debug)]
pub struct RealClock(Instant);

impl RealClock {
    /// The clock, shared.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self(Instant::now()))
    }
}

impl Clock for RealClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(duration).boxed()
    }
}

#[derive(Debug)]
struct FakeState {
    start: SystemTime,
    elapsed: Duration,
    sleepers: Vec<(Duration, oneshot::Sender<()>)>,
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct FakeClock(Mutex<FakeState>);

impl FakeClock {
    /// A clock that shows `start`.
    pub fn new(start: SystemTime) -> Arc<Self> {
        Arc::new(Self(Mutex::new(FakeState { start, elapsed: Duration::ZERO, sleepers: Vec::new() })))
    }

    /// Moves the clock and wakes those whose time has come.
    pub fn advance(&self, by: Duration) {
        let mut state = self.0.lock();
        state.elapsed += by;
        let now = state.elapsed;
        let (due, rest) = std::mem::take(&mut state.sleepers).into_iter().partition(|(at, _)| *at <= now);
        state.sleepers = rest;
        let due: Vec<_> = due;
        drop(state);
        for (_, wake) in due {
            // A sleeper that was dropped meanwhile wants no wake-up.
            let _gone = wake.send(()).is_err();
        }
    }

    /// How many futures sleep.
    pub fn sleepers(&self) -> usize {
        let mut state = self.0.lock();
        state.sleepers.retain(|(_, wake)| !wake.is_closed());
        state.sleepers.len()
    }
}

impl Clock for FakeClock {
    fn now(&self) -> SystemTime {
        let state = self.0.lock();
        state.start + state.elapsed
    }

    fn elapsed(&self) -> Duration {
        self.0.lock().elapsed
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        if duration.is_zero() {
            return tokio::task::yield_now().boxed();
        }
        let (wake, woken) = oneshot::channel();
        let mut state = self.0.lock();
        let at = state.elapsed + duration;
        state.sleepers.push((at, wake));
        drop(state);
        woken.map(|_| ()).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fake_clock_wakes_in_time_only() {
        let clock = FakeClock::new(SystemTime::UNIX_EPOCH);
        let mut early = clock.sleep(Duration::from_secs(1));
        let late = clock.sleep(Duration::from_secs(5));
        assert_eq!(clock.sleepers(), 2);
        clock.advance(Duration::from_secs(1));
        assert!((&mut early).now_or_never().is_some());
        assert_eq!(clock.sleepers(), 1);
        drop(late);
        assert_eq!(clock.sleepers(), 0);
        assert_eq!(clock.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    }
}
