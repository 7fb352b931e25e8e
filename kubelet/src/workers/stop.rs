//! Stopping containers and Pods.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod, PodSpec};
use tokio::sync::watch;

use super::plan::role_of;
use crate::cri::{ContainerRecord, CriError, PodView, RecordState, labels};
use crate::events::EventType;
use crate::pods::{self, Role};
use crate::services::Services;

/// No stop call is shorter than this.
const MIN_GRACE: i64 = 2;

/// A Pod that only the runtime knows.
pub struct LostPod;

impl LostPod {
    /// Enough of a Pod to stop it: identity and preStop hooks from the runtime's labels and annotations.
    pub fn restore(uid: &str, name: &str, namespace: &str, view: &PodView) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.uid = Some(uid.to_owned());
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.namespace = Some(namespace.to_owned());
        let mut containers: Vec<Container> = Vec::new();
        for record in &view.containers {
            if containers.iter().all(|known| known.name != record.name) {
                containers.push(restore_container(record));
            }
        }
        pod.spec = Some(PodSpec { containers, ..PodSpec::default() });
        pod
    }

    /// Whether a Pod is made of what the runtime tells alone.
    pub fn is(pod: &Pod) -> bool {
        pod.metadata.creation_timestamp.is_none() && pod.metadata.annotations.is_none()
    }
}

fn restore_container(record: &ContainerRecord) -> Container {
    let hook = record.annotations.get(labels::PRE_STOP);
    let hook: Option<LifecycleHandler> = hook.and_then(|text| serde_json::from_str(text).ok());
    let ports = record.annotations.get(labels::PORTS).and_then(|text| serde_json::from_str(text).ok());
    let mut container = Container { name: record.name.clone(), ports, ..Container::default() };
    if let Some(hook) = hook {
        container.lifecycle.get_or_insert_default().pre_stop = Some(hook);
    }
    container
}

/// One container to stop, and who must be gone before its signal.
struct Stopping<'a> {
    record: &'a ContainerRecord,
    container: Option<Container>,
    after: Vec<watch::Receiver<bool>>,
    done: watch::Sender<bool>,
}

impl Services {
    /// Stops one container: event, preStop within the grace, then the runtime's stop.
    pub(super) async fn kill_container(
        &self,
        pod: &Pod,
        record: &ContainerRecord,
        message: &str,
        grace: i64,
    ) -> Result<(), CriError> {
        let container = pods::find_container(pod, &record.name).map(|(container, _)| container.into_owned());
        let (done, _) = watch::channel(false);
        let stopping = Stopping { record, container, after: Vec::new(), done };
        self.stop_one(pod, stopping, message, grace).await
    }

    async fn stop_one(&self, pod: &Pod, stopping: Stopping<'_>, message: &str, grace: i64) -> Result<(), CriError> {
        let record = stopping.record;
        let about = (record.name.as_str(), role_of(pod, &record.name));
        self.events.container(pod, about, EventType::Normal, "Killing", message);
        let start = Instant::now();
        let limit = Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        if grace > 0 && record.state == RecordState::Running {
            self.pre_stop(pod, &stopping, limit).await;
        }
        for mut earlier in stopping.after.iter().cloned() {
            let left = limit.saturating_sub(start.elapsed());
            // Whoever is not gone in time is stopped together with this one.
            if tokio::time::timeout(left, earlier.wait_for(|done| *done)).await.is_err() {
                break;
            }
        }
        let used = i64::try_from(start.elapsed().as_secs()).unwrap_or(i64::MAX);
        let left = grace.saturating_sub(used).max(MIN_GRACE);
        let result = self.cri.stop_container(&record.id, left).await;
        stopping.done.send_replace(true);
        result
    }

    async fn pre_stop(&self, pod: &Pod, stopping: &Stopping<'_>, limit: Duration) {
        let Some(container) = &stopping.container else { return };
        let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else { return };
        let run = self.hooks.run(pod, container, &stopping.record.id, hook);
        match tokio::time::timeout(limit, run).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(pod = pods::describe(pod), container = container.name, error, "PreStopHook failed");
                let about = (container.name.as_str(), role_of(pod, &container.name));
                self.events.container(pod, about, EventType::Warning, "FailedPreStopHook", "PreStopHook failed");
            }
            Err(_) => tracing::info!(container = container.name, "PreStop hook not completed in grace period"),
        }
    }

    /// Stops everything of a Pod: regular containers together, then sidecars from the last to the first, then
    /// sandboxes.
    pub(super) async fn kill_pod(&self, pod: &Pod, view: &PodView, grace: i64) -> Result<(), CriError> {
        let stops = order(pod, view).into_iter().map(|stopping| {
            let message = format!("Stopping container {}", stopping.record.name);
            async move { self.stop_one(pod, stopping, &message, grace).await }
        });
        join_all(stops).await.into_iter().collect::<Result<Vec<()>, _>>()?;
        for sandbox in view.sandboxes.iter().filter(|sandbox| sandbox.ready) {
            self.cri.stop_pod_sandbox(&sandbox.id).await?;
        }
        Ok(())
    }
}

/// Running containers with what each waits for.
fn order<'a>(pod: &Pod, view: &'a PodView) -> Vec<Stopping<'a>> {
    let alive =
        view.containers.iter().filter(|record| matches!(record.state, RecordState::Running | RecordState::Unknown));
    let mut all: Vec<Stopping<'a>> = alive
        .map(|record| Stopping {
            record,
            container: pods::find_container(pod, &record.name).map(|(container, _)| container.into_owned()),
            after: Vec::new(),
            done: watch::channel(false).0,
        })
        .collect();
    let position: HashMap<&str, usize> =
        pods::init_containers(pod).iter().enumerate().map(|(index, c)| (c.name.as_str(), index)).collect();
    let is_sidecar = |name: &str| role_of(pod, name) == Role::Sidecar;
    let signals: Vec<(String, watch::Receiver<bool>)> =
        all.iter().map(|stopping| (stopping.record.name.clone(), stopping.done.subscribe())).collect();
    for stopping in all.iter_mut().filter(|stopping| is_sidecar(&stopping.record.name)) {
        let own = position.get(stopping.record.name.as_str());
        let earlier = signals.iter().filter(|(name, _)| !is_sidecar(name) || position.get(name.as_str()) > own);
        stopping.after = earlier.map(|(_, signal)| signal.clone()).collect();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sidecars_wait_for_regular_and_later_ones() {
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": "p" }, "spec": {
            "initContainers": [{ "name": "s1", "restartPolicy": "Always" }, { "name": "s2", "restartPolicy": "Always" }],
            "containers": [{ "name": "a" }, { "name": "b" }] } }))
        .unwrap();
        let record = |name: &str| ContainerRecord {
            id: name.into(),
            name: name.into(),
            state: RecordState::Running,
            sandbox_id: "s".into(),
            created_at: 0,
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
            message: String::new(),
            image: String::new(),
            image_ref: String::new(),
            restart_count: 0,
            hash: String::new(),
            log_path: String::new(),
            annotations: HashMap::new(),
            resources: None,
            user: None,
            mounts: Vec::new(),
        };
        let view = PodView { sandboxes: Vec::new(), containers: ["s1", "a", "s2", "b"].map(record).to_vec() };
        let waits: HashMap<String, usize> = order(&pod, &view)
            .into_iter()
            .map(|stopping| (stopping.record.name.clone(), stopping.after.len()))
            .collect();
        assert_eq!((waits["a"], waits["b"], waits["s2"], waits["s1"]), (0, 0, 2, 3));
    }
}
