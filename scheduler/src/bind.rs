//! The asynchronous half of scheduling: tells the API server where a Pod goes.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    api::CallError,
    devices::{DeviceError, DevicePlan},
    extenders::ExtenderError,
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
        let bind_began = shared.now();
        // Who waits for volumes keeps nobody else from being bound.
        let waits = self.volumes.is_some() || self.devices.as_ref().is_some_and(DevicePlan::waits);
        let slot = Some(slot).filter(|_| !waits);
        let bound = self.bind(shared).await;
        let now = shared.now();
        shared.metrics.running("binding", -1);
        let status = if bound.is_ok() { "Success" } else { "Error" };
        shared.metrics.ran("Bind", status, profile, now.saturating_sub(bind_began));
        match bound {
            Ok(()) => {
                shared.state.lock().queue.remove(&pod.uid);
                shared.metrics.attempted(profile, Attempt::Scheduled, now.saturating_sub(self.began));
                let since = self.waiting.first_attempt.unwrap_or(self.began);
                shared.metrics.bound(self.waiting.attempts, now.saturating_sub(since));
                tracing::info!(v = 2, pod = %pod.full_name(), node = %self.node, "Successfully bound pod to node");
                let note = format!("Successfully assigned {} to {}", pod.full_name(), self.node);
                shared.tell(pod, "Normal", "Scheduled", "Binding", note);
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
        if self.volumes.is_some() || self.devices.is_some() {
            // This takes a while: others can see where the Pod is going.
            let call = shared.metrics.calling("pod_status_patch");
            let nominated = shared.api.patch_status(pod, &json!({"nominatedNodeName": &*self.node})).await;
            call.ended(&nominated);
            if let Err(error) = nominated {
                tracing::debug!(pod = %pod.full_name(), %error, "the nominated node is not written");
            }
        }
        let profile = shared.profiles.of(pod);
        let devices = profile.and_then(|p| p.devices.as_ref()).zip(self.devices.as_ref());
        if let Err(error) = self.bind_volumes(shared).await {
            if let Some(((devices, _), plan)) = devices {
                devices.release(plan);
            }
            return Err(error.into());
        }
        if let Some(((devices, deadline), plan)) = devices
            && let Err(error) = devices.bind(plan, pod, &shared.api, shared.clock.now(), *deadline).await
        {
            devices.unreserve(plan, pod, &shared.api, error.is_of_devices()).await;
            return Err(error.into());
        }
        let bound = match shared.extenders.bind(pod, &self.node).await {
            Some(bound) => bound.map_err(BindError::from),
            None => {
                let call = shared.metrics.calling("pod_binding");
                let bound = shared.api.bind(pod, &self.node).await;
                call.ended(&bound);
                bound.map_err(BindError::from)
            }
        };
        if bound.is_err()
            && let Some(((devices, _), plan)) = devices
        {
            devices.unreserve(plan, pod, &shared.api, false).await;
        }
        bound
    }

    async fn bind_volumes(&self, shared: &Shared) -> Result<(), VolumeError> {
        let settings = shared.profiles.of(&self.waiting.pod).and_then(|p| p.volumes.as_ref());
        let (Some(plan), Some((storage, deadline))) = (&self.volumes, settings) else { return Ok(()) };
        let outcome = storage.bind(plan, &shared.api, *deadline).await;
        storage.release(plan);
        outcome
    }
}
