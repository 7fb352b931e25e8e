//! Cpu rates from pairs of samples.

use std::collections::HashMap;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::GroupStats;
use crate::platform::CgroupUsage;

/// Samples that are closer give no useful rate.
const SHORTEST: f64 = 1.0;
const REMEMBERED: usize = 16_384;

struct Sample {
    at: Timestamp,
    cpu: u64,
    rate: Option<u64>,
}

/// The last sample of each group.
#[derive(Default)]
pub(super) struct Rates(Mutex<HashMap<String, Sample>>);

impl Rates {
    /// Adds the rate to a sample.
    pub(super) fn add(&self, path: &str, usage: CgroupUsage, at: Timestamp) -> GroupStats {
        let mut samples = self.0.lock();
        if samples.len() >= REMEMBERED && !samples.contains_key(path) {
            samples.clear();
        }
        let last = samples.entry(path.to_owned()).or_insert(Sample { at, cpu: usage.cpu_nanos, rate: None });
        let seconds = at.duration_since(last.at).as_secs_f64();
        if seconds >= SHORTEST {
            // A group of the same path that is younger begins anew.
            let rate = usage.cpu_nanos.checked_sub(last.cpu).map(|nanos| (nanos as f64 / seconds) as u64);
            *last = Sample { at, cpu: usage.cpu_nanos, rate };
        }
        GroupStats { at, usage, nano_cores: last.rate }
    }

    /// Forgets groups that are gone.
    pub(super) fn retain(&self, known: impl Fn(&str) -> bool) {
        self.0.lock().retain(|path, _| known(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_samples_give_a_rate() {
        let rates = Rates::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let used = |cpu_nanos| CgroupUsage { cpu_nanos, ..CgroupUsage::default() };
        assert_eq!(rates.add("/a", used(1_000), at(0)).nano_cores, None);
        assert_eq!(rates.add("/a", used(5_000), at(2)).nano_cores, Some(2_000));
        assert_eq!(rates.add("/a", used(5_000), at(2)).nano_cores, Some(2_000), "too close");
        assert_eq!(rates.add("/a", used(10), at(9)).nano_cores, None, "another group");
        rates.retain(|_| false);
        assert_eq!(rates.add("/a", used(20), at(10)).nano_cores, None);
    }
}
