//! Writing statuses, and deleting Pods whose work is over.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::{CallError, limited};
use crate::metrics::METRICS;
use crate::pods;
use crate::status::{Pending, StatusStore, merge};

/// How often every status is compared with the API's copy.
const COMPARE: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);

/// Writes the store's statuses to the API.
pub struct StatusWriter {
    /// Client.
    pub client: Client,
    /// Statuses.
    pub store: Arc<StatusStore>,
}

impl StatusWriter {
    /// Writes until stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut compare = tokio::time::interval(COMPARE);
        compare.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let batch = tokio::select! {
                () = stop.cancelled() => return,
                batch = self.store.changes() => batch,
                _ = compare.tick() => self.store.all(needs_look),
            };
            for pending in batch {
                let uid = pods::uid(&pending.pod).to_owned();
                match self.sync(&pending).await {
                    Ok(()) => {
                        if let Some(elapsed) = self.store.written(&pending) {
                            METRICS.status_sync.observe(elapsed.as_secs_f64());
                        }
                    }
                    Err(error) => {
                        tracing::warn!(pod = pods::describe(&pending.pod), %error, "failed to update status for pod");
                        self.store.retry(&uid);
                        tokio::time::sleep(RETRY).await;
                    }
                }
            }
        }
    }

    async fn sync(&self, pending: &Pending) -> Result<(), CallError> {
        let own = &pending.pod;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), pods::namespace(own));
        let Some(current) = limited(api.get_opt(pods::name(own))).await? else { return Ok(()) };
        let expected = match pods::is_static(own) {
            true if pods::annotation(&current, pods::CONFIG_MIRROR) != pods::annotation(own, pods::CONFIG_HASH) => {
                return Ok(());
            }
            true => pods::uid(&current).to_owned(),
            false => pods::uid(own).to_owned(),
        };
        if pods::uid(&current) != expected {
            return Ok(());
        }
        let before = current.status.clone().unwrap_or_default();
        let after = merge(&before, &pending.status, may_still_run(&pending.status));
        let written = match difference(&before, &after) {
            Some(status) => self.patch(&api, &current, status).await?,
            None => current,
        };
        self.delete_if_over(&api, pending, &written).await
    }

    async fn patch(&self, api: &Api<Pod>, current: &Pod, status: Value) -> Result<Pod, CallError> {
        let body = json!({ "metadata": { "uid": pods::uid(current) }, "status": status });
        let patch = Patch::Strategic(&body);
        limited(api.patch_status(pods::name(current), &PatchParams::default(), &patch)).await
    }

    /// The API object goes when its deletion was asked for, its phase is terminal, and nothing of it is left here.
    async fn delete_if_over(&self, api: &Api<Pod>, pending: &Pending, current: &Pod) -> Result<(), CallError> {
        let over = pending.finished
            && !pods::is_static(&pending.pod)
            && !pods::is_mirror(current)
            && pods::is_deleting(current)
            && pods::is_terminal_phase(pods::phase(current));
        if !over {
            return Ok(());
        }
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: current.metadata.uid.clone(), resource_version: None }),
            ..DeleteParams::default()
        };
        match limited(api.delete(pods::name(current), &params)).await {
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            other => other.map(drop),
        }
    }
}

/// Whether the API's copy, as last seen, is not what it should be. Copies of static Pods are not seen here.
fn needs_look(pending: &Pending) -> bool {
    let pod = &pending.pod;
    if pods::is_static(pod) || (pending.finished && pods::is_deleting(pod)) {
        return true;
    }
    let nothing = PodStatus::default();
    let before = pod.status.as_ref().unwrap_or(&nothing);
    difference(before, &merge(before, &pending.status, may_still_run(&pending.status))).is_some()
}

/// A container that may yet be running keeps the Pod from looking ended.
fn may_still_run(status: &PodStatus) -> bool {
    let lists = [&status.container_statuses, &status.init_container_statuses];
    lists
        .into_iter()
        .flatten()
        .flatten()
        .any(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()))
}

/// A strategic merge patch of the status: changed fields, nulls for those that went. Lists are given whole, which for
/// lists that merge by key also says which entries stay.
fn difference(before: &PodStatus, after: &PodStatus) -> Option<Value> {
    if before == after {
        return None;
    }
    let value = |status: &PodStatus| serde_json::to_value(status).unwrap_or_default();
    let (Value::Object(before), Value::Object(after)) = (value(before), value(after)) else { return None };
    let mut patch = Map::new();
    for (key, new) in &after {
        if before.get(key) != Some(new) {
            patch.insert(key.clone(), new.clone());
        }
    }
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    if let (Some(Value::Array(old)), Some(Value::Array(new))) = (before.get("conditions"), patch.get_mut("conditions"))
    {
        let types = |list: &[Value]| list.iter().filter_map(|c| c.get("type").cloned()).collect::<Vec<_>>();
        let kept = types(new);
        // Entries merge by type: fields that went must be named.
        for condition in new.iter_mut() {
            let before = old.iter().find(|before| before["type"] == condition["type"]);
            let gone: Vec<String> = before
                .and_then(Value::as_object)
                .into_iter()
                .flat_map(|before| before.keys())
                .filter(|key| condition.get(*key).is_none())
                .cloned()
                .collect();
            for key in gone {
                condition[key] = Value::Null;
            }
        }
        new.extend(
            types(old)
                .into_iter()
                .filter(|type_| !kept.contains(type_))
                .map(|type_| json!({ "$patch": "delete", "type": type_ })),
        );
        let mut order = kept;
        patch.insert(
            "$setElementOrder/conditions".to_owned(),
            order.drain(..).map(|type_| json!({ "type": type_ })).collect(),
        );
    }
    if let (Some(Value::Array(old)), Some(Value::Array(new))) = (before.get("podIPs"), patch.get_mut("podIPs")) {
        let gone: Vec<Value> = old.iter().filter(|ip| !new.contains(ip)).cloned().collect();
        new.extend(gone.into_iter().map(|ip| json!({ "$patch": "delete", "ip": ip["ip"] })));
    }
    if let (Some(Value::Array(old)), Some(Value::Array(new))) = (before.get("hostIPs"), patch.get("hostIPs"))
        && old.iter().any(|ip| !new.contains(ip))
    {
        let mut list = vec![json!({ "$patch": "replace" })];
        list.extend(new.iter().cloned());
        patch.insert("hostIPs".to_owned(), Value::Array(list));
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(json: Value) -> PodStatus {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn only_changes_are_sent() {
        let before =
            status(json!({ "phase": "Pending", "reason": "x", "conditions": [{ "type": "A", "status": "True" }] }));
        assert_eq!(difference(&before, &before), None);
        let after = status(json!({ "phase": "Running", "conditions": [{ "type": "B", "status": "True" }] }));
        let patch = difference(&before, &after).unwrap();
        assert_eq!(patch["phase"], "Running");
        assert_eq!(patch["reason"], Value::Null);
        assert_eq!(patch["conditions"][1], json!({ "$patch": "delete", "type": "A" }));
        let before = status(json!({ "conditions": [{ "type": "A", "status": "False", "reason": "R" }] }));
        let after = status(json!({ "conditions": [{ "type": "A", "status": "True" }] }));
        assert_eq!(difference(&before, &after).unwrap()["conditions"][0]["reason"], Value::Null);
    }
}
