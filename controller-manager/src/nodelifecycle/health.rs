//! When nodes were last heard of. What counts is when this process saw a change, never the node's own clock.

use std::{collections::HashMap, time::Duration};

use k8s_openapi::{
    api::core::v1::{Node, NodeCondition},
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
};

/// Conditions that a silent kubelet does not vouch for.
const VOUCHED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

struct Heard {
    heartbeat: Option<Time>,
    lease: Option<MicroTime>,
    at: Duration,
}

/// Signs of life of all nodes.
#[derive(Default)]
pub(super) struct Health(HashMap<String, Heard>);

/// How long nodes may be silent.
#[derive(Clone, Copy)]
pub(super) struct Grace {
    pub(super) running: Duration,
    pub(super) starting: Duration,
}

fn ready(node: &Node) -> Option<&NodeCondition> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().find(|condition| condition.type_ == "Ready")
}

impl Health {
    /// Notes what is seen of a node now (`elapsed` on the process's clock); answers whether it has been silent too long.
    pub(super) fn is_silent(
        &mut self,
        node: &Node,
        lease: Option<&MicroTime>,
        elapsed: Duration,
        grace: Grace,
    ) -> bool {
        let name = node.metadata.name.clone().unwrap_or_default();
        let heartbeat = ready(node).and_then(|condition| condition.last_heartbeat_time.clone());
        let heard = self.0.entry(name).or_insert_with(|| Heard { heartbeat: None, lease: None, at: elapsed });
        let newer_lease = lease.is_some_and(|lease| heard.lease.as_ref().is_none_or(|known| lease.0 > known.0));
        let newer_beat = heartbeat.is_some() && heartbeat != heard.heartbeat;
        if newer_lease || newer_beat {
            heard.at = elapsed;
            heard.lease = lease.cloned().or(heard.lease.take());
            heard.heartbeat = heartbeat;
        }
        let limit = if ready(node).is_some() { grace.running } else { grace.starting };
        elapsed.saturating_sub(heard.at) > limit
    }

    /// Starts all clocks anew.
    pub(super) fn reset(&mut self, elapsed: Duration) {
        self.0.values_mut().for_each(|heard| heard.at = elapsed);
    }

    /// Forgets nodes that are gone.
    pub(super) fn keep(&mut self, exists: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| exists(name));
    }
}

/// Makes the conditions of a silent node unknown. Answers whether that changed anything.
pub(super) fn make_unknown(node: &mut Node, now: &Time) -> bool {
    let status = node.status.get_or_insert_default();
    let conditions = status.conditions.get_or_insert_with(Vec::new);
    let mut changed = false;
    for kind in VOUCHED {
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(now.clone());
                changed = true;
            }
            None => {
                let since = node.metadata.creation_timestamp.clone();
                conditions.push(NodeCondition {
                    type_: kind.to_owned(),
                    status: "Unknown".to_owned(),
                    reason: Some("NodeStatusNeverUpdated".to_owned()),
                    message: Some("Kubelet never posted node status.".to_owned()),
                    last_heartbeat_time: since,
                    last_transition_time: Some(now.clone()),
                });
                changed = true;
            }
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{api::core::v1::NodeStatus, jiff::Timestamp};

    use super::*;

    const GRACE: Grace = Grace { running: Duration::from_secs(50), starting: Duration::from_secs(60) };

    fn node(heartbeat: Option<i64>) -> Node {
        let conditions = heartbeat.map(|seconds| {
            vec![NodeCondition {
                type_: "Ready".to_owned(),
                status: "True".to_owned(),
                last_heartbeat_time: Some(Time(Timestamp::from_second(seconds).unwrap())),
                ..NodeCondition::default()
            }]
        });
        let mut node = Node { status: Some(NodeStatus { conditions, ..NodeStatus::default() }), ..Node::default() };
        node.metadata.name = Some("n".to_owned());
        node
    }

    fn lease(seconds: i64) -> MicroTime {
        MicroTime(Timestamp::from_second(seconds).unwrap())
    }

    #[test]
    fn leases_and_heartbeats_are_signs_of_life() {
        let mut health = Health::default();
        let seconds = Duration::from_secs;
        let mut silent =
            |beat, renewed, at| health.is_silent(&node(Some(beat)), Some(&lease(renewed)), seconds(at), GRACE);
        assert!(!silent(1, 1, 0));
        assert!(!silent(1, 1, 50));
        assert!(silent(1, 1, 51));
        assert!(!silent(1, 2, 52), "the lease was renewed");
        assert!(!silent(9, 2, 100), "the status was written");
        assert!(!silent(9, 1, 150), "an older lease is no news");
        assert!(silent(9, 1, 151));
    }

    #[test]
    fn starting_nodes_have_longer() {
        let mut health = Health::default();
        assert!(!health.is_silent(&node(None), None, Duration::ZERO, GRACE));
        assert!(!health.is_silent(&node(None), None, Duration::from_secs(60), GRACE));
        assert!(health.is_silent(&node(None), None, Duration::from_secs(61), GRACE));
        health.reset(Duration::from_secs(61));
        assert!(!health.is_silent(&node(None), None, Duration::from_secs(62), GRACE));
    }

    #[test]
    fn silence_makes_conditions_unknown() {
        let mut node = node(Some(1));
        let now = Time(Timestamp::UNIX_EPOCH);
        assert!(make_unknown(&mut node, &now));
        assert!(!make_unknown(&mut node, &now));
        let conditions = node.status.unwrap().conditions.unwrap();
        let told: Vec<_> = conditions.iter().map(|c| (c.type_.as_str(), c.reason.as_deref().unwrap())).collect();
        assert_eq!(told[0], ("Ready", "NodeStatusUnknown"));
        assert_eq!(told[3], ("PIDPressure", "NodeStatusNeverUpdated"));
    }
}
