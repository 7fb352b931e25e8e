//! How long the phases of a node's coming up take.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use super::machine;
use crate::metrics::METRICS;

/// A node that was registered for the first time and is not ready yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ComingUp {
    /// The machine began.
    pub booted: Timestamp,
    /// The kubelet began.
    pub started: Timestamp,
    /// Registration was tried for the first time.
    pub attempted: Timestamp,
    /// It succeeded.
    pub registered: Timestamp,
}

impl ComingUp {
    /// A Node that was new to the cluster.
    pub(super) fn registered(started: Timestamp, attempted: Timestamp) -> Self {
        Self { booted: machine::boot_time(), started, attempted, registered: Timestamp::now() }
    }

    /// Tells of it once the node is ready; answers whether it is.
    pub(super) fn tell(&self, node: &Node, now: Timestamp) -> bool {
        if !is_ready(node) {
            return false;
        }
        let series = &METRICS.node.startup;
        let gauges = [
            &series.pre_kubelet,
            &series.pre_registration,
            &series.registration,
            &series.post_registration,
            &series.total,
        ];
        for (gauge, seconds) in gauges.into_iter().zip(self.phases(now)) {
            gauge.set(seconds);
        }
        true
    }

    fn phases(&self, ready: Timestamp) -> [f64; 5] {
        let Self { booted, started, attempted, registered } = *self;
        let spans =
            [(booted, started), (started, attempted), (attempted, registered), (registered, ready), (booted, ready)];
        spans.map(|(from, to)| to.duration_since(from).as_secs_f64().max(0.0))
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_follow_each_other() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let up = ComingUp { booted: at(10), started: at(15), attempted: at(17), registered: at(20) };
        assert_eq!(up.phases(at(30)), [5.0, 2.0, 3.0, 10.0, 20.0]);
        assert!(!up.tell(&Node::default(), at(30)));
    }
}
