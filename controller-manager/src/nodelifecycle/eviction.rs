//! Taint eviction: Pods that do not tolerate a `NoExecute` taint of their node are deleted, at once or after the time
//! that they tolerate.

use std::{collections::HashMap, sync::Arc, time::Duration};

use ::controller::{Change, EventRecorder, EventType, Informer, ObjectKey, Outcome, Reconcile, ReconcileError};
use client::{ApiErrorExt, CallError};
use k8s_openapi::{
    api::core::v1::{ObjectReference, Pod, Taint, Toleration},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
};
use parking_lot::Mutex;
use runtime::clock::Clock;
use semantics::taints::tolerates;

use super::{NO_EXECUTE, set_condition, taints_of};
use crate::{
    StartError,
    context::{Context, now},
    metrics::EvictionMetrics,
    table::Started,
    views::{BY_NODE, NodeView, PodView},
};

const CONTROLLER: &str = "taint-eviction-controller";
/// How often an eviction is tried before others have their turn, and the time between two tries.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(10);

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let nodes: Informer<NodeView> = context.informers.get();
    let pods: Informer<PodView> = context.informers.get();
    let queue = context.queue("noexec_taint_pod");
    let (of_nodes, of_pods, index) = (queue.clone(), queue.clone(), pods.clone());
    nodes.on_change(move |change| {
        let interesting = match change {
            Change::Updated { old, new } => taints_of(old) != taints_of(new),
            Change::Added { new, .. } => !no_execute(taints_of(new)).is_empty(),
            Change::Deleted { .. } => true,
        };
        if interesting {
            index.by_index(BY_NODE, &change.object().key.name).iter().for_each(|pod| of_nodes.add(pod.key.clone()));
        }
    });
    pods.on_change(move |change| {
        let moved = match change {
            Change::Updated { old, new } => {
                old.node != new.node || old.tolerations != new.tolerations || old.uid != new.uid
            }
            _ => true,
        };
        if moved {
            of_pods.add(change.object().key.clone());
        }
    });
    let client = context.client("node-controller").await?;
    let recorder = context.recorder(&client, CONTROLLER);
    let evictor = Evictor {
        client,
        nodes: nodes.clone(),
        pods: pods.clone(),
        recorder,
        clock: Arc::clone(&context.clock),
        scheduled: Mutex::default(),
        metrics: context.metrics.taint_evictions.clone(),
    };
    context.drive(CONTROLLER, queue, 8, evictor, &[&nodes, &pods]);
    Ok(Started::Running)
}

fn no_execute(taints: &[Taint]) -> Vec<&Taint> {
    taints.iter().filter(|taint| taint.effect == NO_EXECUTE).collect()
}

/// How long a Pod may stay: `None` for ever, zero not at all.
fn tolerated(tolerations: &[Toleration], taints: &[&Taint]) -> Option<Duration> {
    let mut least: Option<Duration> = None;
    for taint in taints {
        let matching: Vec<_> = tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
        if matching.is_empty() {
            return Some(Duration::ZERO);
        }
        for seconds in matching.iter().filter_map(|toleration| toleration.toleration_seconds) {
            let time = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
            least = Some(least.map_or(time, |known| known.min(time)));
        }
    }
    least
}

/// An eviction that was announced: of which Pod, and when it is due.
struct Scheduled {
    uid: String,
    due: Duration,
}

struct Evictor {
    client: Client,
    nodes: Informer<NodeView>,
    pods: Informer<PodView>,
    recorder: EventRecorder,
    clock: Arc<dyn Clock>,
    scheduled: Mutex<HashMap<ObjectKey, Scheduled>>,
    metrics: EvictionMetrics,
}

/// Reference to a Pod that is known by its key.
pub(crate) fn reference(key: &ObjectKey, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

impl Evictor {
    /// The Pod may stay: an announced eviction is called off.
    fn cancel(&self, key: &ObjectKey) {
        if let Some(scheduled) = self.scheduled.lock().remove(key) {
            let text = format!("Cancelling deletion of Pod {}/{}", key.namespace, key.name);
            self.recorder.event(&reference(key, &scheduled.uid), EventType::Normal, "TaintManagerEviction", text);
        }
    }

    /// Time left until an eviction that is allowed to wait for `time`, counted from when it was first announced.
    fn left(&self, key: &ObjectKey, uid: &str, time: Duration) -> Duration {
        let elapsed = self.clock.elapsed();
        let mut all = self.scheduled.lock();
        let known = all.entry(key.clone()).or_insert_with(|| Scheduled { uid: uid.to_owned(), due: elapsed + time });
        if known.uid != uid {
            *known = Scheduled { uid: uid.to_owned(), due: elapsed + time };
        }
        known.due.saturating_sub(elapsed)
    }

    async fn evict(&self, key: &ObjectKey, uid: &str) -> Result<(), CallError> {
        let text = format!("Marking for deletion Pod {}/{}", key.namespace, key.name);
        self.recorder.event(&reference(key, uid), EventType::Normal, "TaintManagerEviction", text);
        let why = Disruption {
            reason: "DeletionByTaintManager",
            message: "Taint manager: deleting due to NoExecute taint",
            now: now(&*self.clock),
        };
        let mut outcome = evict(&self.client, key, uid, &why).await;
        for _ in 1..TRIES {
            if outcome.is_ok() {
                break;
            }
            self.clock.sleep(PAUSE).await;
            outcome = evict(&self.client, key, uid, &why).await;
        }
        outcome
    }
}

/// Why a Pod is evicted.
pub(crate) struct Disruption {
    pub(crate) reason: &'static str,
    pub(crate) message: &'static str,
    pub(crate) now: Time,
}

/// Tells in a Pod's status why it has to go, and deletes it.
pub(crate) async fn evict(client: &Client, key: &ObjectKey, uid: &str, why: &Disruption) -> Result<(), CallError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), &key.namespace);
    let marked = client::modify_status(&api, &key.name, |pod: &mut Pod| {
        if pod.metadata.uid.as_deref() != Some(uid) {
            return false;
        }
        let status = pod.status.get_or_insert_default();
        set_condition(status, "DisruptionTarget", "True", why.reason, why.message, why.now.clone());
        true
    });
    match marked.await {
        Err(error) if error.is_not_found() => return Ok(()),
        other => other.map(drop)?,
    }
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(&key.name, &params).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => {
            Err(CallError::new(format!("delete {key}"), error))
        }
        _ => Ok(()),
    }
}

impl Reconcile for Evictor {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(pod) = self.pods.get(key) else {
            self.scheduled.lock().remove(key);
            return Ok(Outcome::Done);
        };
        if pod.node.is_empty() || pod.deletion.is_some() {
            return Ok(Outcome::Done);
        }
        let node = self.nodes.get(&ObjectKey::new(String::new(), pod.node.clone()));
        let taints = node.as_ref().map(|node| no_execute(taints_of(node))).unwrap_or_default();
        let Some(time) = tolerated(&pod.tolerations, &taints) else {
            self.cancel(key);
            return Ok(Outcome::Done);
        };
        let left = if time.is_zero() { Duration::ZERO } else { self.left(key, &pod.uid, time) };
        if !left.is_zero() {
            return Ok(Outcome::After(left));
        }
        let began = self.clock.elapsed();
        self.evict(key, &pod.uid).await?;
        let scheduled = self.scheduled.lock().remove(key);
        let due = scheduled.map_or(began, |scheduled| scheduled.due);
        self.metrics.deletions.inc();
        self.metrics.durations.observe(self.clock.elapsed().saturating_sub(due).as_secs_f64());
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str) -> Taint {
        Taint { key: key.to_owned(), effect: NO_EXECUTE.to_owned(), ..Taint::default() }
    }

    fn toleration(key: &str, seconds: Option<i64>) -> Toleration {
        Toleration {
            key: (!key.is_empty()).then(|| key.to_owned()),
            operator: Some("Exists".to_owned()),
            toleration_seconds: seconds,
            ..Toleration::default()
        }
    }

    #[test]
    fn the_least_tolerated_time_counts() {
        let (a, b) = (taint("a"), taint("b"));
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(tolerated(&[], &[]), None);
        assert_eq!(tolerated(&[], &[&a]), seconds(0));
        assert_eq!(tolerated(&[toleration("a", Some(300))], &[&a, &b]), seconds(0));
        assert_eq!(tolerated(&[toleration("a", Some(300)), toleration("b", Some(30))], &[&a, &b]), seconds(30));
        assert_eq!(tolerated(&[toleration("", None)], &[&a, &b]), None);
        assert_eq!(tolerated(&[toleration("a", None), toleration("b", Some(-5))], &[&a, &b]), seconds(0));
    }

    #[test]
    fn values_are_compared() {
        let mut with = taint("a");
        with.value = Some("5".to_owned());
        let equal = |value: &str, operator: &str| Toleration {
            key: Some("a".to_owned()),
            operator: Some(operator.to_owned()),
            value: Some(value.to_owned()),
            ..Toleration::default()
        };
        assert!(tolerates(&equal("5", "Equal"), &with) && tolerates(&equal("5", ""), &with));
        assert!(!tolerates(&equal("6", "Equal"), &with));
        assert!(tolerates(&equal("6", "Lt"), &with) && !tolerates(&equal("6", "Gt"), &with));
        assert!(!tolerates(&equal("5", "Other"), &with));
    }
}
