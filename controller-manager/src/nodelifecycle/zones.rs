//! Zones: how many of their nodes are down decides how fast silent nodes are tainted.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use super::options::NodeOptions;

/// State of a zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ZoneState {
    #[default]
    Normal,
    /// Many nodes are down.
    Partial,
    /// All are.
    Full,
}

/// State of a zone with so many ready and unready nodes.
pub(super) fn state(ready: usize, unready: usize, threshold: f64) -> ZoneState {
    #[expect(clippy::cast_precision_loss, reason = "clusters are far smaller")]
    let part = unready as f64 / (ready + unready).max(1) as f64;
    match (ready, unready) {
        (0, 1..) => ZoneState::Full,
        (_, 3..) if part >= threshold => ZoneState::Partial,
        _ => ZoneState::Normal,
    }
}

/// A zone: its state, and the nodes that wait to be tainted.
#[derive(Default)]
pub(super) struct Zone {
    pub(super) state: ZoneState,
    waiting: VecDeque<String>,
    tokens: f64,
    filled: Duration,
}

impl Zone {
    /// Nodes per second.
    fn rate(&self, size: usize, options: &NodeOptions) -> f64 {
        match self.state {
            ZoneState::Normal | ZoneState::Full => options.node_eviction_rate,
            ZoneState::Partial if size > options.large_cluster_size_threshold => options.secondary_node_eviction_rate,
            ZoneState::Partial => 0.0,
        }
    }

    /// Lets a node wait.
    pub(super) fn add(&mut self, node: &str) {
        if !self.waiting.iter().any(|name| name == node) {
            self.waiting.push_back(node.to_owned());
        }
    }

    /// A node no longer waits.
    pub(super) fn remove(&mut self, node: &str) {
        self.waiting.retain(|name| name != node);
    }

    /// Nodes whose turn it is.
    pub(super) fn due(&mut self, size: usize, now: Duration, options: &NodeOptions) -> Vec<String> {
        let rate = self.rate(size, options);
        self.tokens = (self.tokens + now.saturating_sub(self.filled).as_secs_f64() * rate).min(1.0);
        self.filled = now;
        let mut due = Vec::new();
        while self.tokens >= 1.0
            && let Some(node) = self.waiting.pop_front()
        {
            self.tokens -= 1.0;
            due.push(node);
        }
        due
    }
}

/// All zones by region and name.
#[derive(Default)]
pub(super) struct Zones {
    zones: BTreeMap<String, Zone>,
    /// Whether tainting has stopped, because every zone is down: then it is this side that is cut off.
    pub(super) stopped: bool,
}

/// What a look at all zones means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// As before.
    None,
    /// All zones are down now.
    Stop,
    /// Some zone is back.
    Resume,
}

impl Zones {
    /// The zone, which begins with one token.
    pub(super) fn get(&mut self, name: &str, now: Duration) -> &mut Zone {
        let new = || Zone { tokens: 1.0, filled: now, ..Zone::default() };
        self.zones.entry(name.to_owned()).or_insert_with(new)
    }

    /// Takes over the numbers of ready and unready nodes by zone.
    pub(super) fn update(
        &mut self,
        counts: &BTreeMap<String, (usize, usize)>,
        now: Duration,
        options: &NodeOptions,
    ) -> Turn {
        self.zones.retain(|name, _| counts.contains_key(name));
        for (name, (ready, unready)) in counts {
            self.get(name, now).state = state(*ready, *unready, options.unhealthy_zone_threshold);
        }
        let down = !counts.is_empty() && self.zones.values().all(|zone| zone.state == ZoneState::Full);
        let turn = match (self.stopped, down) {
            (false, true) => Turn::Stop,
            (true, false) => Turn::Resume,
            _ => Turn::None,
        };
        self.stopped = down;
        if turn == Turn::Stop {
            self.zones.values_mut().for_each(|zone| zone.waiting.clear());
        }
        turn
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        nodes: NodeOptions,
    }

    fn options() -> NodeOptions {
        Flags::parse_from(["test"]).nodes
    }

    #[test]
    fn states() {
        for (ready, unready, wanted) in [
            (3, 0, ZoneState::Normal),
            (1, 2, ZoneState::Normal),
            (2, 3, ZoneState::Partial),
            (3, 3, ZoneState::Normal),
            (0, 1, ZoneState::Full),
            (0, 0, ZoneState::Normal),
        ] {
            assert_eq!(state(ready, unready, 0.55), wanted, "{ready} {unready}");
        }
    }

    #[test]
    fn nodes_are_tainted_one_by_one() {
        let options = options();
        let mut zones = Zones::default();
        let zone = zones.get("z", Duration::ZERO);
        zone.add("a");
        zone.add("b");
        zone.add("b");
        let mut due = |at| zone.due(10, Duration::from_secs(at), &options);
        assert_eq!(due(0), ["a"]);
        assert!(due(5).is_empty());
        assert_eq!(due(10), ["b"]);
        assert!(due(100).is_empty());
    }

    #[test]
    fn small_disturbed_zones_wait() {
        let options = options();
        let mut zone = Zone { state: ZoneState::Partial, ..Zone::default() };
        zone.add("a");
        assert!(zone.due(10, Duration::from_secs(1000), &options).is_empty());
        assert_eq!(zone.due(51, Duration::from_secs(1200), &options), ["a"]);
    }

    #[test]
    fn everything_down_means_that_this_side_is() {
        let options = options();
        let mut zones = Zones::default();
        let counts = |a, b| BTreeMap::from([("a".to_owned(), a), ("b".to_owned(), b)]);
        assert_eq!(zones.update(&counts((1, 0), (0, 1)), Duration::ZERO, &options), Turn::None);
        assert_eq!(zones.update(&counts((0, 1), (0, 1)), Duration::ZERO, &options), Turn::Stop);
        assert_eq!(zones.update(&counts((0, 1), (0, 1)), Duration::ZERO, &options), Turn::None);
        assert_eq!(zones.update(&counts((1, 0), (0, 1)), Duration::ZERO, &options), Turn::Resume);
    }
}
