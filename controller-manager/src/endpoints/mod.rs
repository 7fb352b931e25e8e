//! Endpoints of Services with a selector: the predecessor of EndpointSlices, which some clients still read.

pub(crate) mod plan;

use std::{collections::HashMap, sync::Arc, time::Duration};

use ::controller::{
    Change, EventRecorder, EventType, Informer, ObjectKey, Outcome, OwnWrites, Queue, Reconcile, ReconcileError, Whole,
    events::reference_to,
};
use client::{ApiErrorExt, CallError};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams},
};
use parking_lot::Mutex;

use crate::{
    StartError,
    context::{self, Context, Syncs},
    endpointslice::{
        self,
        plan::{TriggerTimes, selector_of, selects},
    },
    table::Started,
    views::PodView,
};

const CONTROLLER: &str = "endpoints-controller";
const ENDPOINTS: &str = "endpoints";

struct Shared {
    client: Client,
    services: Informer<Whole<Service>>,
    pods: Informer<PodView>,
    endpoints: Informer<Whole<Endpoints>>,
    own: OwnWrites<ObjectKey>,
    triggers: Mutex<HashMap<ObjectKey, TriggerTimes>>,
    queue: Queue<ObjectKey>,
    recorder: EventRecorder,
    batch: Duration,
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let options = &context.options.endpoints;
    let shared = Arc::new(Shared {
        services: context.informers.get(),
        pods: context.informers.get(),
        endpoints: context.informers.get(),
        recorder: context.recorder(&client, "endpoint-controller"),
        client,
        own: OwnWrites::default(),
        triggers: Mutex::default(),
        queue: context.queue_with("endpoint", endpointslice::LIMITING),
        batch: options.endpoint_updates_batch_period,
    });
    let by = || Arc::clone(&shared);
    let (a, b, c, d) = (by(), by(), by(), by());
    shared.services.on_change(move |change| {
        if let Change::Deleted { old } = change {
            a.triggers.lock().remove(&old.key);
        }
        a.queue.add(change.object().key.clone());
    });
    shared.pods.on_change(move |change| {
        for key in endpointslice::services_of(&b.services, change) {
            b.queue.add_after(key, b.batch);
        }
    });
    shared.endpoints.on_change(move |change| {
        if let Change::Deleted { old } = change {
            c.queue.add(old.key.clone());
        }
    });
    let informers: [&dyn Syncs; 3] = [&shared.services, &shared.pods, &shared.endpoints];
    let (queue, workers) = (shared.queue.clone(), options.concurrent_endpoint_syncs);
    context.drive_with(CONTROLLER, queue, workers, endpointslice::RETRIES, Reconciler(by()), &informers);
    context.after_sync(CONTROLLER, &informers, move || d.find_leftovers());
    Ok(Started::Running)
}

impl Shared {
    /// Services that were deleted while nobody looked.
    fn find_leftovers(&self) {
        for endpoints in self.endpoints.list() {
            let lock = endpoints.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(plan::LEADER));
            if !lock {
                self.queue.add(endpoints.key.clone());
            }
        }
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), CallError> {
        self.own.forget(key);
        if self.endpoints.get(key).is_none() {
            return Ok(());
        }
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
        match api.delete(&key.name, &DeleteParams::default()).await {
            Err(error) if !error.is_not_found() => Err(CallError::new(format!("delete Endpoints {key}"), error)),
            _ => Ok(()),
        }
    }

    async fn write(&self, key: &ObjectKey, object: &Endpoints, exists: bool) -> Result<(), kube::Error> {
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
        let written = if exists {
            api.replace(&key.name, &PostParams::default(), object).await?
        } else {
            match api.create(&PostParams::default(), object).await {
                Err(error) if error.is_namespace_terminating() => return Ok(()),
                created => created?,
            }
        };
        self.own.wrote(key, ENDPOINTS, &written.resource_version().unwrap_or_default());
        Ok(())
    }
}

struct Reconciler(Arc<Shared>);

impl Reconcile for Reconciler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let shared = &self.0;
        let Some(service) = shared.services.get(key) else {
            shared.delete(key).await?;
            return Ok(Outcome::Done);
        };
        let Some(selector) = selector_of(&service) else { return Ok(Outcome::Done) };
        if !shared.own.lagging(key, |_| shared.endpoints.last_revision()).is_empty() {
            return Ok(context::LAG);
        }
        let mut pods = shared.pods.in_namespace(&key.namespace);
        pods.retain(|p| selects(selector, &p.labels));
        let trigger = shared.triggers.lock().entry(key.clone()).or_default().earliest(&service, &pods);
        let present = shared.endpoints.get(key);
        let present = present.as_ref().map(|e| &e.view.0);
        let Some(object) = plan::wanted(&service, &pods, present, trigger.map(|t| t.to_string())) else {
            return Ok(Outcome::Done);
        };
        if let Err(error) = shared.write(key, &object, present.is_some()).await {
            let about = reference_to(&object);
            let (reason, text) = if present.is_some() {
                ("FailedToUpdateEndpoint", format!("Failed to update endpoint {key}: {}", error.text()))
            } else {
                ("FailedToCreateEndpoint", format!("Failed to create endpoint for service {key}: {}", error.text()))
            };
            shared.recorder.event(&about, EventType::Warning, reason, text);
            return Err(CallError::new(format!("write Endpoints {key}"), error).into());
        }
        Ok(Outcome::Done)
    }
}
