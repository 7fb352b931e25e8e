//! Takes `DisruptionTarget` back from Pods that nobody disrupted in the end.

use std::{sync::Arc, time::Duration};

use ::controller::{Change, Informer, ObjectKey, Outcome, Queue, Reconcile, ReconcileError, Viewed};
use client::ApiErrorExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use runtime::clock::Clock;

use super::{plan::stale_at, until};
use crate::{context::now, nodelifecycle::set_condition, views::PodView};

/// Queues Pods that are said to be disrupted.
pub(super) fn watch(pods: &Informer<PodView>, queue: &Queue<ObjectKey>) {
    let queue = queue.clone();
    pods.on_change(move |change| {
        let pod = change.object();
        if !matches!(change, Change::Deleted { .. }) && stale_at(pod).is_some() {
            queue.add(pod.key.clone());
        }
    });
}

pub(super) struct Revoker {
    pub(super) client: Client,
    pub(super) pods: Informer<PodView>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Revoker {
    fn left(&self, pod: &PodView) -> Option<Duration> {
        stale_at(pod).map(|at| until(at, now(&*self.clock).0))
    }
}

impl Reconcile for Revoker {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(pod) = self.pods.get(key) else { return Ok(Outcome::Done) };
        match self.left(&pod) {
            None => return Ok(Outcome::Done),
            Some(left) if !left.is_zero() => return Ok(Outcome::After(left)),
            Some(_) => {}
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let revoked = client::modify_status(&api, &key.name, |fresh: &mut Pod| {
            // It may have been disrupted again since.
            let stale = fresh.metadata.uid.as_deref() == Some(&pod.uid)
                && self.left(&PodView::project(fresh.clone())).is_some_and(|left| left.is_zero());
            if stale {
                let status = fresh.status.get_or_insert_default();
                set_condition(status, "DisruptionTarget", "False", "", "", now(&*self.clock));
            }
            stale
        });
        match revoked.await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(Outcome::Done),
        }
    }
}
