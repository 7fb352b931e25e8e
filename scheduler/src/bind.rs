//! The asynchronous half of scheduling: tells the API server where a Pod goes.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    api::CallError,
    config::Point,
    devices::{DeviceError, DevicePlan, Devices},
    extenders::ExtenderError,
    framework::PluginId,
    meter::Status,
    metrics::Attempt,
    plugins::volumes::{VolumeError, VolumePlan},
    queue::Waiting,
    report::Report,
    scheduler::{Shared, take_back},
};

/// A Pod on its way to a node.
pub(crate) struct Binding {
    pub(crate) waiting: Waiting,
    pub(crate) node: Arc<str>,
    /// When its cycle began.
    pub(crate) began: Duration,
    /// Volumes to be bound first.
    pub(crate) volumes: Option<VolumePlan>,
    /// Claims of devices to be written first.
    pub(crate) devices: Option<DevicePlan>,
    /// Whether its plugins are timed.
    pub(crate) sampled: bool,
}

/// Why a Pod was not bound.
#[derive(Debug, thiserror::Error)]
enum BindError {
    #[error("running PreBind plugin \"VolumeBinding\": {0}")]
    Volumes(#[from] VolumeError),
    #[error("running PreBind plugin \"DynamicResources\": {0}")]
    Devices(#[from] DeviceError),
    #[error("binding rejected: running Bind plugin \"DefaultBinder\": {0}")]
    Call(#[from] CallError),
    #[error("binding rejected: {0}")]
    Extender(#[from] ExtenderError),
}

impl Binding {
    /// Binds the Pod, or takes the assumption back.
    pub(crate) async fn run(self, shared: &Shared, slot: OwnedSemaphorePermit) {
        let pod = &self.waiting.pod;
        let profile = &pod.template.scheduler_name;
        shared.metrics.running("binding", 1);
        // Who waits for volumes keeps nobody else from being bound.
        let waits = self.volumes.is_some() || self.devices.as_ref().is_some_and(DevicePlan::waits);
        let slot = Some(slot).filter(|_| !waits);
        let bound = self.bind(shared).await;
        let now = shared.now();
        shared.metrics.running("binding", -1);
        match bound {
            Ok(()) => {
                shared.state.lock().queue.remove(&pod.uid);
                shared.metrics.attempted(profile, Attempt::Scheduled, now.saturating_sub(self.began));
                let since = self.waiting.first_attempt.unwrap_or(self.began);
                shared.metrics.bound(self.waiting.attempts, now.saturating_sub(since));
                tracing::info!(v = 2, pod = %pod.full_name(), node = %self.node, "Successfully bound pod to node");
                let note = format!("Successfully assigned {} to {}", pod.full_name(), self.node);
                shared.tell(pod, "Normal", "Scheduled", "Binding", note);
                // Nothing here is told of it.
                shared.metrics.ran(Point::PostBind, Status::Success, profile, Duration::ZERO);
            }
            Err(error) => {
                shared.metrics.attempted(profile, Attempt::Error, now.saturating_sub(self.began));
                let known = take_back(shared, pod);
                if !known || matches!(&error, BindError::Call(e) if e.is_not_found()) {
                    tracing::info!(v = 2, pod = %pod.full_name(), "Pod is gone while it was being bound");
                    return;
                }
                let message = error.to_string();
                tracing::error!(pod = %pod.full_name(), node = %self.node, err = %message, "Error scheduling pod; retrying");
                Report::of_error(pod, message).run(shared).await;
            }
        }
        drop(slot);
    }

    /// Binds volumes and devices, then the Pod.
    async fn bind(&self, shared: &Shared) -> Result<(), BindError> {
        let pod = &self.waiting.pod;
        let began = shared.now();
        let prepared = self.prepare(shared).await;
        self.ran(shared, Point::PreBind, &prepared, began);
        prepared?;
        let began = shared.now();
        let bound = match shared.extenders.bind(pod, &self.node).await {
            Some(bound) => bound.map_err(BindError::from),
            None => {
                let call = shared.metrics.calling("pod_binding");
                let bound = shared.api.bind(pod, &self.node).await;
                call.ended(&bound);
                self.plugin_ran(shared, PluginId::DefaultBinder, Point::Bind, &bound, began);
                bound.map_err(BindError::from)
            }
        };
        self.ran(shared, Point::Bind, &bound, began);
        if bound.is_err()
            && let Some((devices, _, plan)) = self.devices_of(shared)
        {
            devices.unreserve(plan, pod, &shared.api, false).await;
        }
        bound
    }

    /// PreBind: what has to be there before the Pod is bound.
    async fn prepare(&self, shared: &Shared) -> Result<(), BindError> {
        let pod = &self.waiting.pod;
        if self.volumes.is_some() || self.devices.is_some() {
            // This takes a while: others can see where the Pod is going.
            let call = shared.metrics.calling("pod_status_patch");
            let nominated = shared.api.patch_status(pod, &json!({"nominatedNodeName": &*self.node})).await;
            call.ended(&nominated);
            if let Err(error) = nominated {
                tracing::debug!(pod = %pod.full_name(), %error, "the nominated node is not written");
            }
        }
        let devices = self.devices_of(shared);
        if let Err(error) = self.bind_volumes(shared).await {
            if let Some((devices, _, plan)) = devices {
                devices.release(plan);
            }
            return Err(error.into());
        }
        let Some((devices, deadline, plan)) = devices else { return Ok(()) };
        let began = shared.now();
        let written = devices.bind(plan, pod, &shared.api, shared.clock.now(), deadline).await;
        self.plugin_ran(shared, PluginId::DynamicResources, Point::PreBind, &written, began);
        if let Err(error) = written {
            devices.unreserve(plan, pod, &shared.api, error.is_of_devices()).await;
            return Err(error.into());
        }
        Ok(())
    }

    /// What the Pod is given of devices, who gives it, and how long that may take.
    fn devices_of<'a>(&'a self, shared: &'a Shared) -> Option<(&'a Devices, Duration, &'a DevicePlan)> {
        let (devices, deadline) = shared.profiles.of(&self.waiting.pod)?.devices.as_ref()?;
        Some((devices, *deadline, self.devices.as_ref()?))
    }

    async fn bind_volumes(&self, shared: &Shared) -> Result<(), VolumeError> {
        let settings = shared.profiles.of(&self.waiting.pod).and_then(|p| p.volumes.as_ref());
        let (Some(plan), Some((storage, deadline))) = (&self.volumes, settings) else { return Ok(()) };
        let began = shared.now();
        let outcome = storage.bind(plan, &shared.api, *deadline).await;
        self.plugin_ran(shared, PluginId::VolumeBinding, Point::PreBind, &outcome, began);
        storage.release(plan);
        outcome
    }

    fn ran<E>(&self, shared: &Shared, point: Point, outcome: &Result<(), E>, began: Duration) {
        let took = shared.now().saturating_sub(began);
        shared.metrics.ran(point, status_of(outcome), &self.waiting.pod.template.scheduler_name, took);
    }

    fn plugin_ran<E>(&self, shared: &Shared, plugin: PluginId, point: Point, outcome: &Result<(), E>, began: Duration) {
        if self.sampled {
            shared.metrics.plugin_ran(plugin, point, status_of(outcome), shared.now().saturating_sub(began));
        }
    }
}

fn status_of<E>(outcome: &Result<(), E>) -> Status {
    if outcome.is_ok() { Status::Success } else { Status::Error }
}
