//! How long kubelets may keep Secrets and ConfigMaps without asking: an annotation that grows with the cluster.

use std::sync::Arc;

use ::controller::{Change, Informer, ObjectKey, Outcome, Reconcile, ReconcileError};
use client::{ApiErrorExt, CallError, Scope};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use parking_lot::Mutex;
use serde_json::json;

use crate::{StartError, context::Context, table::Started, views::NodeView};

const CONTROLLER: &str = "ttl-controller";
const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// A size of the cluster: nodes at which it begins, nodes up to which it lasts, seconds.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

/// The step for a number of nodes, left only when the number is clearly outside of it.
fn step(mut at: usize, nodes: usize) -> usize {
    while at + 1 < STEPS.len() && nodes > STEPS[at].1 {
        at += 1;
    }
    while at > 0 && nodes < STEPS[at].0 {
        at -= 1;
    }
    at
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let nodes: Informer<NodeView> = context.informers.get();
    let queue = context.queue("ttlcontroller");
    let at = Arc::new(Mutex::new(0));
    let (keys, list, current) = (queue.clone(), nodes.clone(), Arc::clone(&at));
    nodes.on_change(move |change| {
        let all = list.list();
        let moved = {
            let mut current = current.lock();
            let new = step(*current, all.len());
            std::mem::replace(&mut *current, new) != new
        };
        if moved {
            all.iter().for_each(|node| keys.add(node.key.clone()));
        }
        if !matches!(change, Change::Deleted { .. }) {
            keys.add(change.object().key.clone());
        }
    });
    let client = context.client(CONTROLLER).await?;
    let annotator = Annotator { client, nodes: nodes.clone(), at };
    context.drive(CONTROLLER, queue, 10, annotator, &[&nodes]);
    Ok(Started::Running)
}

struct Annotator {
    client: Client,
    nodes: Informer<NodeView>,
    at: Arc<Mutex<usize>>,
}

impl Reconcile for Annotator {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(node) = self.nodes.get(key) else { return Ok(Outcome::Done) };
        let wanted = STEPS[*self.at.lock()].2.to_string();
        if node.metadata.annotations.as_ref().and_then(|all| all.get(ANNOTATION)) == Some(&wanted) {
            return Ok(Outcome::Done);
        }
        let api: Api<Node> = Api::all(self.client.clone());
        let patch = json!({"metadata": {"annotations": {ANNOTATION: wanted}}});
        match client::merge_patch(&api, &key.name, Scope::Object, &patch).await {
            Err(error) if !error.is_not_found() => Err(CallError::into(error)),
            _ => Ok(Outcome::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_hysteresis() {
        assert_eq!(step(0, 100), 0);
        assert_eq!(step(0, 101), 1);
        assert_eq!(step(1, 90), 1);
        assert_eq!(step(1, 89), 0);
        assert_eq!(step(0, 5000), 4);
        assert_eq!(step(4, 1), 0);
        assert_eq!(step(3, 950), 3);
    }
}
