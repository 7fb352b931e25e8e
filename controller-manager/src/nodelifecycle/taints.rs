//! Taints and labels that follow from a Node's conditions.

use ::controller::{Change, Informer, ObjectKey, Outcome, Reconcile, ReconcileError};
use client::ApiErrorExt;
use k8s_openapi::{
    api::core::v1::{Node, Taint},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{Api, Client};

use super::{NO_EXECUTE, NO_SCHEDULE, NOT_READY, UNREACHABLE, condition, taints_of};
use crate::{context::Context, views::NodeView};

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions with the value that gives a taint.
const CONDITIONS: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];
/// Labels that older clients know by other names.
const OLD_LABELS: [(&str, &str); 2] =
    [("kubernetes.io/os", "beta.kubernetes.io/os"), ("kubernetes.io/arch", "beta.kubernetes.io/arch")];

/// Runs the part of the controller that follows single nodes.
pub(super) fn start(context: &Context, client: &Client, nodes: &Informer<NodeView>) {
    let queue = context.queue("node_lifecycle_controller");
    let keys = queue.clone();
    nodes.on_change(move |change| {
        if !matches!(change, Change::Deleted { .. }) {
            keys.add(change.object().key.clone());
        }
    });
    let follower = Follower { client: client.clone(), nodes: nodes.clone() };
    context.drive("node-lifecycle-controller", queue, 8, follower, &[nodes]);
}

struct Follower {
    client: Client,
    nodes: Informer<NodeView>,
}

impl Reconcile for Follower {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(node) = self.nodes.get(key) else { return Ok(Outcome::Done) };
        if !follow(&mut Node::clone(&node)) {
            return Ok(Outcome::Done);
        }
        let api: Api<Node> = Api::all(self.client.clone());
        match client::modify(&api, &key.name, follow).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(Outcome::Done),
        }
    }
}

/// Makes taints and labels follow the conditions. Answers whether that changed anything.
fn follow(node: &mut Node) -> bool {
    let unschedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    let mut wanted: Vec<&str> = CONDITIONS
        .iter()
        .filter(|(kind, value, _)| condition(node, kind) == Some(value))
        .map(|(_, _, key)| *key)
        .collect();
    if unschedulable {
        wanted.push(UNSCHEDULABLE);
    }
    let ours = |taint: &Taint| {
        taint.effect == NO_SCHEDULE
            && (taint.key == UNSCHEDULABLE || CONDITIONS.iter().any(|(_, _, key)| *key == taint.key))
    };
    // A node that was never heard of keeps the taint it was made with.
    let unheard = condition(node, "Ready").is_none();
    let mut taints: Vec<Taint> = taints_of(node).to_vec();
    taints.retain(|taint| !ours(taint) || wanted.contains(&taint.key.as_str()) || (unheard && taint.key == NOT_READY));
    for key in wanted {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == NO_SCHEDULE) {
            let (key, effect) = (key.to_owned(), NO_SCHEDULE.to_owned());
            taints.push(Taint { key, effect, ..Taint::default() });
        }
    }
    let mut changed = false;
    if taints != taints_of(node) {
        node.spec.get_or_insert_default().taints = (!taints.is_empty()).then_some(taints);
        changed = true;
    }
    let labels = node.metadata.labels.get_or_insert_default();
    for (name, old) in OLD_LABELS {
        if let Some(value) = labels.get(name).cloned()
            && labels.get(old) != Some(&value)
        {
            labels.insert(old.to_owned(), value);
            changed = true;
        }
    }
    changed
}

/// Puts the `NoExecute` taint `key` on a node (and takes its counterpart off), or takes both off with `None`. Answers
/// whether that changed anything. `since`: when the taint was added.
pub(super) fn execute(node: &mut Node, key: Option<&str>, since: &Time) -> bool {
    let mut taints: Vec<Taint> = taints_of(node).to_vec();
    let ours = |taint: &Taint| taint.effect == NO_EXECUTE && [NOT_READY, UNREACHABLE].contains(&taint.key.as_str());
    taints.retain(|taint| !ours(taint) || Some(taint.key.as_str()) == key);
    if let Some(key) = key
        && !taints.iter().any(|taint| ours(taint) && taint.key == key)
    {
        taints.push(Taint {
            key: key.to_owned(),
            effect: NO_EXECUTE.to_owned(),
            time_added: Some(since.clone()),
            ..Taint::default()
        });
    }
    if taints == taints_of(node) {
        return false;
    }
    node.spec.get_or_insert_default().taints = (!taints.is_empty()).then_some(taints);
    true
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::core::v1::{NodeCondition, NodeSpec, NodeStatus},
        jiff::Timestamp,
    };

    use super::*;

    fn node(conditions: &[(&str, &str)], taints: &[(&str, &str)]) -> Node {
        let conditions = conditions.iter().map(|(kind, status)| NodeCondition {
            type_: (*kind).to_owned(),
            status: (*status).to_owned(),
            ..NodeCondition::default()
        });
        let taints = taints.iter().map(|(key, effect)| Taint {
            key: (*key).to_owned(),
            effect: (*effect).to_owned(),
            ..Taint::default()
        });
        Node {
            status: Some(NodeStatus { conditions: Some(conditions.collect()), ..NodeStatus::default() }),
            spec: Some(NodeSpec { taints: Some(taints.collect()), ..NodeSpec::default() }),
            ..Node::default()
        }
    }

    fn keys(node: &Node) -> Vec<(&str, &str)> {
        taints_of(node).iter().map(|taint| (taint.key.as_str(), taint.effect.as_str())).collect()
    }

    #[test]
    fn taints_follow_conditions() {
        let mut ready = node(&[("Ready", "True")], &[(NOT_READY, NO_SCHEDULE), ("mine", NO_SCHEDULE)]);
        assert!(follow(&mut ready));
        assert_eq!(keys(&ready), [("mine", NO_SCHEDULE)]);
        assert!(!follow(&mut ready));
        let mut lost = node(&[("Ready", "Unknown"), ("DiskPressure", "True")], &[(NOT_READY, NO_SCHEDULE)]);
        lost.spec.as_mut().unwrap().unschedulable = Some(true);
        assert!(follow(&mut lost));
        let disk = "node.kubernetes.io/disk-pressure";
        assert_eq!(keys(&lost), [(UNREACHABLE, NO_SCHEDULE), (disk, NO_SCHEDULE), (UNSCHEDULABLE, NO_SCHEDULE)]);
    }

    #[test]
    fn new_nodes_keep_their_taint() {
        let mut new = node(&[], &[(NOT_READY, NO_SCHEDULE)]);
        assert!(!follow(&mut new));
    }

    #[test]
    fn old_labels_follow() {
        let mut node = node(&[("Ready", "True")], &[]);
        node.metadata.labels = Some([("kubernetes.io/os".to_owned(), "linux".to_owned())].into());
        node.spec = None;
        assert!(follow(&mut node));
        assert_eq!(node.metadata.labels.unwrap()["beta.kubernetes.io/os"], "linux");
    }

    #[test]
    fn no_execute_taints_are_swapped() {
        let now = Time(Timestamp::UNIX_EPOCH);
        let mut node = node(&[], &[(NOT_READY, NO_EXECUTE), ("mine", NO_EXECUTE)]);
        assert!(execute(&mut node, Some(UNREACHABLE), &now));
        assert_eq!(keys(&node), [("mine", NO_EXECUTE), (UNREACHABLE, NO_EXECUTE)]);
        assert!(!execute(&mut node, Some(UNREACHABLE), &now));
        assert!(execute(&mut node, None, &now));
        assert_eq!(keys(&node), [("mine", NO_EXECUTE)]);
    }
}
