//! How long a Pod rests after it could not be placed.

use std::time::Duration;

/// First and longest back-off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackoffTimes {
    pub(crate) initial: Duration,
    pub(crate) max: Duration,
}

impl BackoffTimes {
    /// When a Pod may be tried again that has rested since `since`: errors count if there are any, else the attempts
    /// in which nothing fitted.
    pub(crate) fn expiry(&self, since: Duration, unschedulable: u32, errors: u32) -> Duration {
        let count = if errors > 0 { errors } else { unschedulable };
        if count == 0 {
            return since;
        }
        let factor = 1_u32.checked_shl(count - 1).filter(|_| count < 31).unwrap_or(u32::MAX);
        let rest = self.initial.saturating_mul(factor).min(self.max);
        // Whole seconds, so that Pods of about the same time come back together, by priority.
        Duration::from_secs((since + rest).as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_limit() {
        let times = BackoffTimes { initial: Duration::from_secs(1), max: Duration::from_secs(10) };
        let at = |unschedulable, errors| times.expiry(Duration::from_millis(500), unschedulable, errors).as_secs();
        assert_eq!([at(1, 0), at(2, 0), at(3, 0), at(4, 0), at(5, 0), at(400, 0)], [1, 2, 4, 8, 10, 10]);
        assert_eq!(at(5, 1), 1);
        assert_eq!(times.expiry(Duration::from_millis(700), 0, 0), Duration::from_millis(700));
    }
}
