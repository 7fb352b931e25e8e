//! ReplicaSet and ReplicationController seen as the same thing.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus},
        core::v1::{
            PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
        },
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};
use machinery::selector::LabelSelector;

use crate::{
    children::{Namespaced, SelectorError, selector_of},
    options::Options,
};

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The condition `ReplicaFailure`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) since: Option<Timestamp>,
}

/// The part of the status that is kept here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SetStatus {
    pub(super) replicas: i32,
    pub(super) fully_labeled: i32,
    pub(super) ready: i32,
    pub(super) available: i32,
    pub(super) terminating: Option<i32>,
    pub(super) observed_generation: i64,
    pub(super) failure: Option<Failure>,
}

/// A kind that keeps a number of Pods.
pub(crate) trait ReplicaKind: Namespaced {
    /// Name among controllers.
    const CONTROLLER: &'static str;
    /// Source of events.
    const COMPONENT: &'static str;
    /// Name of the queue.
    const QUEUE: &'static str;

    /// How many workers there are.
    fn workers(options: &Options) -> usize;
    /// `spec.replicas`.
    fn replicas(&self) -> i32;
    /// `spec.minReadySeconds`.
    fn min_ready_seconds(&self) -> i32;
    /// `spec.selector`.
    fn selector(&self) -> Result<LabelSelector, SelectorError>;
    /// `spec.template`.
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// The status.
    fn status(&self) -> SetStatus;
    /// Writes the status; conditions of others stay.
    fn put_status(&mut self, status: &SetStatus);
}

/// The failure among conditions: type, status, reason, message, since.
fn failure_of<'a>(
    mut conditions: impl Iterator<Item = (&'a str, &'a str, Option<&'a String>, Option<&'a String>, Option<&'a Time>)>,
) -> Option<Failure> {
    let (_, _, reason, message, since) = conditions.find(|c| c.0 == REPLICA_FAILURE && c.1 == "True")?;
    Some(Failure {
        reason: reason.cloned().unwrap_or_default(),
        message: message.cloned().unwrap_or_default(),
        since: since.map(|t| t.0),
    })
}

/// Conversions of the fields that both kinds name alike.
macro_rules! common {
    ($condition:ident) => {
        fn replicas(&self) -> i32 {
            self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
        }

        fn min_ready_seconds(&self) -> i32 {
            self.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0)
        }

        fn template(&self) -> Option<&PodTemplateSpec> {
            self.spec.as_ref().and_then(|s| s.template.as_ref())
        }

        fn status(&self) -> SetStatus {
            let status = self.status.clone().unwrap_or_default();
            let conditions = status.conditions.iter().flatten().map(|c| {
                let (kind, state) = (c.type_.as_str(), c.status.as_str());
                (kind, state, c.reason.as_ref(), c.message.as_ref(), c.last_transition_time.as_ref())
            });
            SetStatus {
                replicas: status.replicas,
                fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
                ready: status.ready_replicas.unwrap_or(0),
                available: status.available_replicas.unwrap_or(0),
                terminating: Self::terminating(&status),
                observed_generation: status.observed_generation.unwrap_or(0),
                failure: failure_of(conditions),
            }
        }

        fn put_status(&mut self, new: &SetStatus) {
            let status = self.status.get_or_insert_default();
            let some = |n: i32| (n != 0).then_some(n);
            status.replicas = new.replicas;
            status.fully_labeled_replicas = some(new.fully_labeled);
            status.ready_replicas = some(new.ready);
            status.available_replicas = some(new.available);
            status.observed_generation = Some(new.observed_generation);
            Self::put_terminating(status, new.terminating);
            let mut conditions = status.conditions.take().unwrap_or_default();
            conditions.retain(|c| c.type_ != REPLICA_FAILURE);
            conditions.extend(new.failure.as_ref().map(|f| $condition {
                type_: REPLICA_FAILURE.into(),
                status: "True".into(),
                reason: Some(f.reason.clone()),
                message: Some(f.message.clone()),
                last_transition_time: f.since.map(Time),
            }));
            status.conditions = (!conditions.is_empty()).then_some(conditions);
        }
    };
}

/// What only one of the two kinds has.
trait Terminating {
    type Status;
    fn terminating(status: &Self::Status) -> Option<i32>;
    fn put_terminating(status: &mut Self::Status, count: Option<i32>);
}

impl Terminating for ReplicaSet {
    type Status = ReplicaSetStatus;

    fn terminating(status: &ReplicaSetStatus) -> Option<i32> {
        // Absent differs from 0: readers know then that nobody counts.
        status.terminating_replicas
    }

    fn put_terminating(status: &mut ReplicaSetStatus, count: Option<i32>) {
        status.terminating_replicas = count;
    }
}

impl Terminating for ReplicationController {
    type Status = ReplicationControllerStatus;

    fn terminating(_status: &ReplicationControllerStatus) -> Option<i32> {
        None
    }

    fn put_terminating(_status: &mut ReplicationControllerStatus, _count: Option<i32>) {}
}

impl ReplicaKind for ReplicaSet {
    const CONTROLLER: &'static str = "replicaset-controller";
    const COMPONENT: &'static str = "replicaset-controller";
    const QUEUE: &'static str = "replicaset";

    fn workers(options: &Options) -> usize {
        options.workers.concurrent_replicaset_syncs
    }

    fn selector(&self) -> Result<LabelSelector, SelectorError> {
        self.spec.as_ref().map_or_else(|| Ok(LabelSelector::nothing()), |s| selector_of(&s.selector))
    }

    common!(ReplicaSetCondition);
}

impl ReplicaKind for ReplicationController {
    const CONTROLLER: &'static str = "replicationcontroller-controller";
    const COMPONENT: &'static str = "replication-controller";
    const QUEUE: &'static str = "replicationmanager";

    fn workers(options: &Options) -> usize {
        options.workers.concurrent_rc_syncs
    }

    fn selector(&self) -> Result<LabelSelector, SelectorError> {
        let empty = BTreeMap::new();
        let labels = self.spec.as_ref().and_then(|s| s.selector.as_ref()).unwrap_or(&empty);
        if labels.is_empty() {
            return Ok(LabelSelector::nothing());
        }
        Ok(LabelSelector::from_map(labels.iter().map(|(k, v)| (k.as_str(), v.as_str()))))
    }

    common!(ReplicationControllerCondition);
}
