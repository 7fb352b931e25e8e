//! How many seats a level wants over time.

use std::time::Duration;

/// What was wanted in a period.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Stats {
    /// Mean, weighted by time.
    pub(super) average: f64,
    /// Standard deviation, weighted by time.
    pub(super) deviation: f64,
    /// The most.
    pub(super) high: f64,
}

/// Integrates a value that changes at once and stays until it changes again.
#[derive(Debug)]
pub(super) struct Integrator {
    since: Duration,
    value: f64,
    time: f64,
    area: f64,
    squares: f64,
    high: f64,
}

impl Integrator {
    pub(super) fn new(now: Duration) -> Self {
        Self { since: now, value: 0.0, time: 0.0, area: 0.0, squares: 0.0, high: 0.0 }
    }

    fn advance(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.since).as_secs_f64();
        self.since = self.since.max(now);
        self.time += passed;
        self.area += passed * self.value;
        self.squares += passed * self.value * self.value;
    }

    /// The value is another one from now on.
    pub(super) fn set(&mut self, now: Duration, value: f64) {
        self.advance(now);
        self.value = value;
        self.high = self.high.max(value);
    }

    /// What was wanted since the last call.
    pub(super) fn take(&mut self, now: Duration) -> Stats {
        self.advance(now);
        let stats = if self.time > 0.0 {
            let average = self.area / self.time;
            let variance = (self.squares / self.time - average * average).max(0.0);
            Stats { average, deviation: variance.sqrt(), high: self.high }
        } else {
            Stats { average: self.value, deviation: 0.0, high: self.high }
        };
        (self.time, self.area, self.squares, self.high) = (0.0, 0.0, 0.0, self.value);
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weighs_by_time() {
        let at = Duration::from_secs;
        let mut demand = Integrator::new(at(0));
        demand.set(at(0), 10.0);
        demand.set(at(1), 0.0);
        let stats = demand.take(at(4));
        assert_eq!((stats.average, stats.high), (2.5, 10.0));
        assert!((stats.deviation - (100.0_f64 / 4.0 - 6.25).sqrt()).abs() < 1e-9);
        assert_eq!(demand.take(at(5)), Stats::default(), "a period begins anew");
    }
}
