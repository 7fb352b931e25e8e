//! How many volumes are wanted on nodes, and how many are there.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGaugeVec, Registry};
use runtime::metrics::{self, Stability};

const DESIRED: &str = "desired_state_of_world";
const ACTUAL: &str = "actual_state_of_world";

/// Volumes by driver and state.
type Counts = BTreeMap<(String, &'static str), i64>;

/// See the module.
pub(super) struct Metrics {
    /// By reason.
    pub(super) forced: IntCounterVec,
    volumes: IntGaugeVec,
    /// What each node adds.
    known: Mutex<HashMap<String, Counts>>,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Number of times the A/D Controller performed a forced detach";
        let name = "attachdetach_controller_forced_detaches";
        let forced = metrics::counter_vec(registry, Stability::Alpha, name, help, &["reason"])?;
        let (name, labels) = ("attachdetach_controller_total_volumes", ["plugin_name", "state"]);
        let help = "Number of volumes in A/D Controller";
        let volumes = metrics::gauge_vec(registry, Stability::Alpha, name, help, &labels)?;
        Ok(Self { forced, volumes, known: Mutex::default() })
    }

    /// Drivers of the volumes that are wanted on a node, and of those that are there.
    pub(super) fn set<'a>(
        &self,
        node: &str,
        wanted: impl Iterator<Item = &'a str>,
        there: impl Iterator<Item = &'a str>,
    ) {
        let mut now = Counts::new();
        let states = wanted.map(|driver| (driver, DESIRED)).chain(there.map(|driver| (driver, ACTUAL)));
        states.for_each(|(driver, state)| *now.entry((driver.to_owned(), state)).or_default() += 1);
        let mut known = self.known.lock();
        let before = known.remove(node).unwrap_or_default();
        self.add(&before, -1);
        self.add(&now, 1);
        if !now.is_empty() {
            known.insert(node.to_owned(), now);
        }
    }

    fn add(&self, counts: &Counts, sign: i64) {
        for ((driver, state), volumes) in counts {
            let plugin = format!("kubernetes.io/csi:{driver}");
            self.volumes.with_label_values(&[plugin.as_str(), *state]).add(sign * volumes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_add_up() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).unwrap();
        metrics.set("a", ["d", "d", "e"].into_iter(), ["d"].into_iter());
        metrics.set("b", ["d"].into_iter(), ["d"].into_iter());
        metrics.set("a", ["d"].into_iter(), [].into_iter());
        let text = metrics::expose(&registry);
        let name = "attachdetach_controller_total_volumes";
        for (driver, state, volumes) in [("d", DESIRED, 2), ("d", ACTUAL, 1), ("e", DESIRED, 0)] {
            let line = format!("{name}{{plugin_name=\"kubernetes.io/csi:{driver}\",state=\"{state}\"}} {volumes}");
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
