//! EndpointSlices of Services with a selector.

pub(crate) mod plan;
mod topology;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use ::controller::{
    Cached, Change, EventRecorder, EventType, Informer, ObjectKey, Outcome, Queue, RateLimiting, Reconcile,
    ReconcileError, Retries, Whole, events::reference_to,
};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use machinery::quantity::Quantity;
use parking_lot::Mutex;

use self::{plan::TriggerTimes, topology::Shares};
use crate::{
    StartError,
    children::owner_reference,
    context::{self, Context, Syncs},
    metrics::SliceMetrics,
    nodelifecycle::is_ready,
    slices::{self, BY_SERVICE, Blueprint, MANAGED_BY, SERVICE_NAME, SliceView, Writer},
    table::Started,
    views::{NodeView, PodView},
};

const CONTROLLER: &str = "endpointslice-controller";
/// Delays after failures.
pub(crate) const LIMITING: RateLimiting = RateLimiting::per_key(Duration::from_secs(1), Duration::from_secs(1000));
/// Failures in a row after which a Service waits for its next change.
pub(crate) const RETRIES: Retries = Retries::Limited(15);
/// Time that somebody else's edit of a slice stands at least.
const EDIT_DELAY: Duration = Duration::from_secs(1);
const ZONE: &str = "topology.kubernetes.io/zone";
/// Labels of nodes that are not counted for the shares of zones.
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

struct Shared {
    services: Informer<Whole<Service>>,
    pods: Informer<PodView>,
    nodes: Informer<NodeView>,
    slices: Informer<SliceView>,
    writer: Writer,
    metrics: SliceMetrics,
    triggers: Mutex<HashMap<ObjectKey, TriggerTimes>>,
    /// What came of sharing endpoints among zones, for Services that want that.
    sharing: Mutex<HashMap<ObjectKey, plan::Shared>>,
    queue: Queue<ObjectKey>,
    recorder: EventRecorder,
    /// Time in which changes of Pods are gathered.
    batch: Duration,
    most: usize,
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let options = &context.options.endpoints;
    let shared = Arc::new(Shared {
        services: context.informers.get(),
        pods: context.informers.get(),
        nodes: context.informers.get(),
        slices: context.informers.get(),
        recorder: context.recorder(&client, "endpoint-slice-controller"),
        writer: Writer::new(client, Some(context.metrics.slices.changes.clone())),
        metrics: context.metrics.slices.clone(),
        triggers: Mutex::default(),
        sharing: Mutex::default(),
        queue: context.queue_with("endpoint_slice", LIMITING),
        batch: options.endpointslice_updates_batch_period,
        most: options.max_endpoints_per_slice,
    });
    let by = || Arc::clone(&shared);
    let (a, b, c, d) = (by(), by(), by(), by());
    shared.services.on_change(move |change| a.service_changed(change));
    shared.pods.on_change(move |change| b.pod_changed(change));
    shared.slices.on_change(move |change| c.slice_changed(change));
    shared.nodes.on_change(move |change| d.node_changed(change));
    let informers: [&dyn Syncs; 4] = [&shared.services, &shared.pods, &shared.nodes, &shared.slices];
    let (queue, workers) = (shared.queue.clone(), options.concurrent_service_endpoint_syncs);
    context.drive_with(CONTROLLER, queue, workers, RETRIES, Reconciler(by()), &informers);
    Ok(Started::Running)
}

/// Keys of the Services that a Pod's change concerns.
pub(crate) fn services_of(services: &Informer<Whole<Service>>, change: &Change<PodView>) -> Vec<ObjectKey> {
    let (old, new) = match change {
        Change::Added { new, .. } => (None, new),
        Change::Updated { old, new } => (Some(old), new),
        Change::Deleted { old } => (None, old),
    };
    let relabelled = old.is_some_and(|o| o.labels != new.labels);
    if old.is_some_and(|o| !relabelled && !plan::differs(o, new)) {
        return Vec::new();
    }
    let matching = |selector: &BTreeMap<String, String>| {
        plan::selects(selector, &new.labels) || old.is_some_and(|o| relabelled && plan::selects(selector, &o.labels))
    };
    let all = services.in_namespace(&new.key.namespace);
    let concerned = all.iter().filter(|s| plan::selector_of(s).is_some_and(matching));
    concerned.map(|s| s.key.clone()).collect()
}

impl Shared {
    fn service_changed(&self, change: &Change<Whole<Service>>) {
        if let Change::Deleted { old } = change {
            self.triggers.lock().remove(&old.key);
            self.sharing.lock().remove(&old.key);
            self.metrics.set(&old.key, None);
        }
        self.queue.add(change.object().key.clone());
    }

    fn pod_changed(&self, change: &Change<PodView>) {
        for key in services_of(&self.services, change) {
            self.queue.add_after(key, self.batch);
        }
    }

    fn slice_changed(&self, change: &Change<SliceView>) {
        let wake = |slice: &Cached<SliceView>| {
            let service = slice.label(SERVICE_NAME);
            if slice.label(MANAGED_BY) == plan::MANAGER && !service.is_empty() {
                self.queue.add_after(ObjectKey::new(slice.key.namespace.clone(), service), EDIT_DELAY);
            }
        };
        match change {
            Change::Added { initial: true, .. } => {}
            Change::Added { new, .. } | Change::Updated { new, .. }
                if self.writer.is_echo(&new.key, &new.resource_version) => {}
            Change::Added { new, .. } => wake(new),
            Change::Updated { old, new } => {
                // Handed over or taken back.
                wake(old);
                wake(new);
            }
            Change::Deleted { old } => {
                self.writer.forget(&old.key);
                wake(old);
            }
        }
    }

    /// Services wait for the Nodes of their Pods, and follow the zones.
    fn node_changed(&self, change: &Change<NodeView>) {
        let shares_moved = match change {
            Change::Added { initial, new } => !initial && weight(new).is_some(),
            Change::Updated { old, new } => weight(old) != weight(new),
            Change::Deleted { old } => weight(old).is_some(),
        };
        if shares_moved {
            let following = self.services.list().into_iter().filter(|service| plan::follows_topology(service));
            following.for_each(|service| self.queue.add(service.key.clone()));
        }
        let moved = match change {
            Change::Added { initial, .. } => !initial,
            Change::Updated { old, new } => zone(old) != zone(new),
            Change::Deleted { .. } => true,
        };
        if moved {
            let pods = self.pods.by_index(crate::views::BY_NODE, &change.object().key.name);
            for new in pods {
                for key in services_of(&self.services, &Change::Added { new, initial: false }) {
                    self.queue.add(key);
                }
            }
        }
    }
}

fn zone(node: &NodeView) -> String {
    node.metadata.labels.as_ref().and_then(|l| l.get(ZONE)).cloned().unwrap_or_default()
}

/// Zone and thousandths of a processor of a node that endpoints may be on; `None` for other nodes.
fn weight(node: &NodeView) -> Option<(String, i64)> {
    let labels = node.metadata.labels.as_ref();
    let is_reserved = CONTROL_PLANE.iter().any(|key| labels.is_some_and(|l| l.contains_key(*key)));
    if is_reserved || !is_ready(node) {
        return None;
    }
    let cpu = node.status.as_ref().and_then(|s| s.allocatable.as_ref()?.get("cpu"));
    let milli = cpu.and_then(|text| Quantity::parse(&text.0).ok()).map_or(0, |quantity| quantity.milli_value());
    Some((zone(node), milli))
}

struct Reconciler(Arc<Shared>);

impl Reconciler {
    /// Tells of a Service when its zones begin to share endpoints, or why they do not.
    fn tell_sharing(&self, service: &Cached<Whole<Service>>, sharing: Option<plan::Shared>) {
        let news = {
            let mut known = self.0.sharing.lock();
            let news = plan::sharing_news(known.get(&service.key), sharing.as_ref());
            match sharing {
                Some(sharing) => drop(known.insert(service.key.clone(), sharing)),
                None => drop(known.remove(&service.key)),
            }
            news
        };
        let about = reference_to(&service.view.0);
        for (is_good, text) in news {
            let (kind, reason) = match is_good {
                true => (EventType::Normal, "TopologyAwareHintsEnabled"),
                false => (EventType::Warning, "TopologyAwareHintsDisabled"),
            };
            self.0.recorder.event(&about, kind, reason, text);
        }
    }

    fn shares(&self) -> Option<Shares> {
        let weights: Vec<(String, i64)> = self.0.nodes.list().iter().filter_map(|node| weight(node)).collect();
        topology::shares(weights.iter().map(|(zone, milli)| (zone.as_str(), *milli)))
    }
}

impl Reconcile for Reconciler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let shared = &self.0;
        let Some(service) = shared.services.get(key) else { return Ok(Outcome::Done) };
        let Some(selector) = plan::selector_of(&service) else { return Ok(Outcome::Done) };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        if shared.writer.lags(key, &shared.slices) {
            return Ok(context::LAG);
        }
        let mut pods = shared.pods.in_namespace(&key.namespace);
        pods.retain(|p| plan::selects(selector, &p.labels));
        let trigger = shared.triggers.lock().entry(key.clone()).or_default().earliest(&service, &pods);
        let nodes: std::collections::HashSet<&str> = pods.iter().map(|p| p.node.as_str()).collect();
        let known = nodes.into_iter().filter_map(|n| {
            let node = shared.nodes.get(&ObjectKey::cluster(n))?;
            Some((n.to_owned(), zone(&node)))
        });
        let (mut groups, unknown_node) = plan::groups(&service, &pods, &known.collect());
        let sharing = plan::follows_topology(&service).then(|| plan::share(&mut groups, self.shares().as_ref()));
        self.tell_sharing(&service, sharing);
        let own = shared.slices.by_index(BY_SERVICE, &key.to_string());
        let existing: Vec<Arc<EndpointSlice>> =
            own.iter().filter(|s| s.label(MANAGED_BY) == plan::MANAGER).map(|s| Arc::new(s.view.0.clone())).collect();
        let blueprint = Blueprint {
            namespace: key.namespace.clone(),
            generate_name: crate::children::name_prefix(&key.name),
            labels: plan::labels(&service),
            annotations: BTreeMap::new(),
            owner: owner_reference(&service.view.0),
            most: shared.most,
            trigger: trigger.map(|t| t.to_string()),
            placeholder: true,
        };
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let endpoints: usize = groups.iter().map(|group| group.endpoints.len()).sum();
        let desired: usize = groups.iter().map(|group| group.endpoints.len().div_ceil(shared.most.max(1))).sum();
        let packed = slices::pack(&blueprint, &plan::types(&service), &existing, groups);
        let actual = (existing.len() + packed.create.len()).saturating_sub(packed.delete.len());
        shared.metrics.set(key, Some([number(endpoints), number(desired.max(1)), number(actual)]));
        let done = shared.writer.carry_out(key, packed).await;
        shared.metrics.syncs.with_label_values(&[if done.is_ok() { "success" } else { "error" }]).inc();
        if let Err(error) = done {
            let text = format!("Error updating Endpoint Slices for Service {key}: {}", util::chain(&error));
            let about = reference_to(&service.view.0);
            shared.recorder.event(&about, EventType::Warning, "FailedToUpdateEndpointSlices", text);
            return Err(error.into());
        }
        // The Node's own event wakes the Service as well; this is for the one that came in between.
        Ok(if unknown_node { Outcome::Backoff } else { Outcome::Done })
    }
}
