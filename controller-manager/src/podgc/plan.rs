//! Which Pods go.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use ::controller::Cached;
use k8s_openapi::api::core::v1::Node;

use crate::{
    nodelifecycle::{is_out_of_service, is_ready},
    views::{NodeView, PodView},
};

/// Why a Pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// More finished Pods than are kept.
    Surplus,
    /// Its node does not exist.
    NodeGone,
    /// Deleted before it had a node.
    Unscheduled,
    /// Deleted, and its node is out of service.
    OutOfService,
}

impl Reason {
    /// As the metric names it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Surplus => "terminated",
            Self::NodeGone => "orphaned",
            Self::Unscheduled => "unscheduled",
            Self::OutOfService => "out-of-service",
        }
    }
}

/// A Pod that goes.
pub(super) struct Doomed {
    pub(super) pod: Arc<Cached<PodView>>,
    pub(super) reason: Reason,
}

/// Names of nodes that Pods are bound to and that are not there.
pub(super) fn missing_nodes(pods: &[Arc<Cached<PodView>>], nodes: &[Arc<Cached<NodeView>>]) -> BTreeSet<String> {
    let present: HashSet<&str> = nodes.iter().map(|node| node.key.name.as_str()).collect();
    let named = pods.iter().map(|pod| pod.node.as_str()).filter(|name| !name.is_empty());
    named.filter(|name| !present.contains(name)).map(str::to_owned).collect()
}

/// All that go, each once. A `threshold` of 0 keeps all finished Pods.
pub(super) fn doomed(
    pods: &[Arc<Cached<PodView>>],
    nodes: &[Arc<Cached<NodeView>>],
    gone: &[String],
    threshold: usize,
) -> Vec<Doomed> {
    let by_name: HashMap<&str, &Node> = nodes.iter().map(|node| (node.key.name.as_str(), &node.view.0)).collect();
    let mut all = Vec::new();
    let mut seen = HashSet::new();
    let mut add = |pod: &Arc<Cached<PodView>>, reason| {
        if seen.insert(pod.uid.clone()) {
            all.push(Doomed { pod: Arc::clone(pod), reason });
        }
    };
    if threshold > 0 {
        let mut finished: Vec<_> = pods.iter().filter(|pod| pod.phase.is_terminal()).collect();
        let surplus = finished.len().saturating_sub(threshold);
        finished.sort_by_key(|pod| (pod.reason != "Evicted", pod.created, pod.key.clone()));
        finished.iter().take(surplus).for_each(|pod| add(pod, Reason::Surplus));
    }
    for pod in pods {
        let is_lost = |node: &&Node| !is_ready(node) && is_out_of_service(node);
        if pod.deletion.is_some() && by_name.get(pod.node.as_str()).is_some_and(is_lost) {
            add(pod, Reason::OutOfService);
        } else if gone.contains(&pod.node) {
            add(pod, Reason::NodeGone);
        } else if pod.deletion.is_some() && pod.node.is_empty() {
            add(pod, Reason::Unscheduled);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use ::controller::ObjectKey;
    use k8s_openapi::{
        api::core::v1::{NodeSpec, Taint},
        jiff::Timestamp,
    };

    use super::*;
    use crate::{nodelifecycle::OUT_OF_SERVICE, views::Phase};

    fn pod(name: &str, change: impl FnOnce(&mut PodView)) -> Arc<Cached<PodView>> {
        let mut view = PodView::default();
        change(&mut view);
        let key = ObjectKey::new("ns".to_owned(), name.to_owned());
        Arc::new(Cached { key, uid: name.to_owned(), resource_version: String::new(), view })
    }

    fn node(name: &str, taint: Option<&str>) -> Arc<Cached<NodeView>> {
        let taints = taint.map(|key| vec![Taint { key: key.to_owned(), ..Taint::default() }]);
        let node = Node { spec: Some(NodeSpec { taints, ..NodeSpec::default() }), ..Node::default() };
        let key = ObjectKey::new(String::new(), name.to_owned());
        Arc::new(Cached { key, uid: name.to_owned(), resource_version: String::new(), view: NodeView(node) })
    }

    fn names(doomed: &[Doomed]) -> Vec<(&str, Reason)> {
        doomed.iter().map(|d| (d.pod.key.name.as_str(), d.reason)).collect()
    }

    #[test]
    fn oldest_finished_pods_go_first_and_evicted_ones_before_them() {
        let finished = |name, second, reason: &str| {
            pod(name, |p| {
                p.phase = Phase::Failed;
                p.created = Timestamp::from_second(second).ok();
                p.reason = reason.to_owned();
            })
        };
        let pods = [
            finished("young", 30, ""),
            finished("old", 10, ""),
            finished("evicted", 40, "Evicted"),
            pod("running", |_| {}),
        ];
        let gone = doomed(&pods, &[], &[], 1);
        assert_eq!(names(&gone), [("evicted", Reason::Surplus), ("old", Reason::Surplus)]);
        assert!(doomed(&pods, &[], &[], 0).is_empty());
    }

    #[test]
    fn pods_without_a_kubelet_go() {
        let on = |name, node: &str, deleted: bool| {
            pod(name, |p| {
                p.node = node.to_owned();
                p.deletion = deleted.then_some(Timestamp::UNIX_EPOCH);
            })
        };
        let pods = [
            on("a", "lost", false),
            on("b", "", true),
            on("c", "down", true),
            on("d", "down", false),
            on("e", "up", true),
        ];
        let nodes = [node("down", Some(OUT_OF_SERVICE)), node("up", None)];
        assert_eq!(missing_nodes(&pods, &nodes).into_iter().collect::<Vec<_>>(), ["lost"]);
        let gone = doomed(&pods, &nodes, &["lost".to_owned()], 100);
        assert_eq!(names(&gone), [("a", Reason::NodeGone), ("b", Reason::Unscheduled), ("c", Reason::OutOfService)]);
    }
}
