//! Where the time of a slow round went.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;

use crate::pods;

/// A round that takes longer is told of.
const SLOW: Duration = Duration::from_secs(10);

/// The steps of one round; told when it ends, however that is.
pub(super) struct Steps {
    pod: Arc<Pod>,
    began: Instant,
    last: Instant,
    done: Vec<(&'static str, Duration)>,
}

impl Steps {
    pub(super) fn begin(pod: &Arc<Pod>) -> Self {
        let now = Instant::now();
        Self { pod: Arc::clone(pod), began: now, last: now, done: Vec::new() }
    }

    /// The last step is over.
    pub(super) fn done(&mut self, step: &'static str) {
        let now = Instant::now();
        self.done.push((step, now - self.last));
        self.last = now;
    }

    /// What there is to tell of a round of some length.
    fn tell(&self, total: Duration) -> Option<String> {
        if total < SLOW {
            return None;
        }
        let mut text = String::new();
        let rest = ("the last step", self.last.duration_since(self.began));
        let rest = (rest.0, total.saturating_sub(rest.1));
        for (step, took) in self.done.iter().chain([&rest]) {
            // Writing to a string cannot fail.
            let _written = write!(text, "{step} {:.1}s, ", took.as_secs_f64()).is_ok();
        }
        text.truncate(text.len() - 2);
        Some(text)
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        if let Some(steps) = self.tell(self.began.elapsed()) {
            tracing::info!(pod = pods::describe(&self.pod), steps, "slow synchronization of a pod");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slow_rounds_are_told_of() {
        let mut steps = Steps::begin(&Arc::default());
        steps.done = vec![("status", Duration::from_millis(1500)), ("volumes", Duration::from_secs(9))];
        steps.last = steps.began + Duration::from_millis(10_500);
        assert_eq!(steps.tell(Duration::from_secs(9)), None);
        let told = steps.tell(Duration::from_secs(12)).unwrap();
        assert_eq!(told, "status 1.5s, volumes 9.0s, the last step 1.5s");
    }
}
