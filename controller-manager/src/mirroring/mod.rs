//! EndpointSlices of hand-made Endpoints: for Services without a selector.

mod plan;

use std::{sync::Arc, time::Duration};

use ::controller::{
    Cached, Change, EventRecorder, EventType, Informer, ObjectKey, Outcome, Queue, Reconcile, ReconcileError, Whole,
    events::reference_to,
};
use k8s_openapi::api::{
    core::v1::{Endpoints, Service},
    discovery::v1::EndpointSlice,
};

use crate::{
    StartError,
    children::{name_prefix, owner_reference},
    context::{self, Context, Syncs},
    endpointslice,
    slices::{self, BY_SERVICE, Blueprint, MANAGED_BY, Plan, SERVICE_NAME, SliceView, Writer},
    table::Started,
};

const CONTROLLER: &str = "endpointslice-mirroring-controller";

struct Shared {
    services: Informer<Whole<Service>>,
    endpoints: Informer<Whole<Endpoints>>,
    slices: Informer<SliceView>,
    writer: Writer,
    queue: Queue<ObjectKey>,
    recorder: EventRecorder,
    batch: Duration,
    most: usize,
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let options = &context.options.endpoints;
    let shared = Arc::new(Shared {
        services: context.informers.get(),
        endpoints: context.informers.get(),
        slices: context.informers.get(),
        recorder: context.recorder(&client, CONTROLLER),
        writer: Writer::new(client, None),
        queue: context.queue_with("endpoint_slice_mirroring", endpointslice::LIMITING),
        batch: options.mirroring_endpointslice_updates_batch_period,
        most: options.mirroring_max_endpoints_per_subset,
    });
    let by = || Arc::clone(&shared);
    let (a, b, c) = (by(), by(), by());
    shared.services.on_change(move |change| a.queue.add_after(change.object().key.clone(), a.batch));
    shared.endpoints.on_change(move |change| b.queue.add_after(change.object().key.clone(), b.batch));
    shared.slices.on_change(move |change| c.slice_changed(change));
    let informers: [&dyn Syncs; 3] = [&shared.services, &shared.endpoints, &shared.slices];
    let (queue, workers) = (shared.queue.clone(), options.mirroring_concurrent_service_endpoint_syncs);
    context.drive_with(CONTROLLER, queue, workers, endpointslice::RETRIES, Reconciler(by()), &informers);
    Ok(Started::Running)
}

impl Shared {
    fn slice_changed(&self, change: &Change<SliceView>) {
        let wake = |slice: &Cached<SliceView>| {
            if slice.label(MANAGED_BY) == plan::MANAGER {
                let service = slice.label(SERVICE_NAME);
                self.queue.add_after(ObjectKey::new(slice.key.namespace.clone(), service), self.batch);
            }
        };
        match change {
            Change::Added { new, .. } | Change::Updated { new, .. }
                if self.writer.is_echo(&new.key, &new.resource_version) => {}
            Change::Added { new, .. } => wake(new),
            Change::Updated { old, new } => {
                wake(old);
                wake(new);
            }
            Change::Deleted { old } => {
                self.writer.forget(&old.key);
                wake(old);
            }
        }
    }

    fn complain(&self, endpoints: &Endpoints, left_out: &plan::LeftOut) {
        let about = reference_to(endpoints);
        if left_out.invalid > 0 {
            let text = format!("Skipped {} invalid IP addresses when mirroring to EndpointSlices", left_out.invalid);
            self.recorder.event(&about, EventType::Warning, "InvalidIPAddress", text);
        }
        if left_out.surplus > 0 {
            let text = format!(
                "A max of {} addresses can be mirrored to EndpointSlices per Endpoints subset. {} addresses were \
                 skipped",
                self.most, left_out.surplus
            );
            self.recorder.event(&about, EventType::Warning, "TooManyAddressesToMirror", text);
        }
    }
}

struct Reconciler(Arc<Shared>);

impl Reconcile for Reconciler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let shared = &self.0;
        if shared.writer.lags(key, &shared.slices) {
            return Ok(context::LAG);
        }
        let own = shared.slices.by_index(BY_SERVICE, &key.to_string());
        let existing: Vec<Arc<EndpointSlice>> =
            own.iter().filter(|s| s.label(MANAGED_BY) == plan::MANAGER).map(|s| Arc::new(s.view.0.clone())).collect();
        let service = shared.services.get(key);
        let service = service.as_ref().map(|s| &s.view.0);
        let Some(endpoints) = shared.endpoints.get(key).filter(|e| plan::applies(e, service)) else {
            let delete = existing.iter().map(|s| EndpointSlice::clone(s)).collect();
            shared.writer.carry_out(key, Plan { delete, ..Plan::default() }).await?;
            return Ok(Outcome::Done);
        };
        let (groups, left_out) = plan::groups(&endpoints, shared.most);
        let blueprint = Blueprint {
            namespace: key.namespace.clone(),
            generate_name: name_prefix(&key.name),
            labels: plan::labels(&endpoints),
            annotations: plan::annotations(&endpoints),
            owner: owner_reference(&endpoints.view.0),
            // All of a subset are in one slice.
            most: shared.most,
            trigger: plan::trigger(&endpoints),
            placeholder: false,
        };
        let packed = slices::pack(&blueprint, &["IPv4", "IPv6"], &existing, groups);
        if !packed.is_empty() {
            shared.complain(&endpoints, &left_out);
        }
        if let Err(error) = shared.writer.carry_out(key, packed).await {
            let text = format!("Error updating EndpointSlices for Endpoints {key}: {}", util::chain(&error));
            let about = reference_to(&endpoints.view.0);
            shared.recorder.event(&about, EventType::Warning, "FailedToUpdateEndpointSlices", text);
            return Err(error.into());
        }
        Ok(Outcome::Done)
    }
}
