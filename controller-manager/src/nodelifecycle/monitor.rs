//! The monitor: one look at all nodes every few seconds.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use ::controller::{
    Cached, EventRecorder, EventType, Informer, InformerConfig, Whole, events::reference_to, start_informer,
};
use client::{ApiErrorExt, CallError};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, ObjectReference, Pod},
};
use kube::{Api, Client};
use runtime::clock::Clock;

use super::{
    NOT_READY, UNREACHABLE, condition,
    health::{Grace, Health, make_unknown},
    is_ready,
    options::NodeOptions,
    set_condition,
    taints::{self, execute},
    zones::{Turn, Zones},
};
use crate::{
    StartError,
    context::{Context, now},
    metrics::NodeMetrics,
    table::Started,
    views::{BY_NODE, NodeView, PodView},
};

const CONTROLLER: &str = "node-lifecycle-controller";
const LEASES: &str = "kube-node-lease";
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";
const REGION: &str = "topology.kubernetes.io/region";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client("node-controller").await?;
    let leases: Api<Lease> = Api::namespaced(context.watching_client().await?, LEASES);
    let monitor = Monitor {
        nodes: context.informers.get(),
        pods: context.informers.get(),
        leases: start_informer(&context.tasks, leases, InformerConfig::default(), &[], Whole),
        recorder: context.recorder(&client, "node-controller"),
        clock: Arc::clone(&context.clock),
        options: context.options.nodes.clone(),
        health: Health::default(),
        zones: Zones::default(),
        known: HashMap::new(),
        unmarked: HashSet::new(),
        metrics: context.metrics.nodes.clone(),
        client,
    };
    taints::start(context, &monitor.client, &monitor.nodes);
    let (tasks, stop) = (context.tasks.clone(), context.tasks.token().clone());
    let (nodes, pods, leases) = (monitor.nodes.clone(), monitor.pods.clone(), monitor.leases.clone());
    context.after_sync(CONTROLLER, &[&nodes, &pods, &leases], move || {
        let mut monitor = monitor;
        tasks.spawn(CONTROLLER, async move {
            loop {
                monitor.look().await;
                let pause = monitor.clock.sleep(monitor.options.node_monitor_period);
                if stop.run_until_cancelled(pause).await.is_none() {
                    return;
                }
            }
        });
    });
    Ok(Started::Running)
}

struct Monitor {
    client: Client,
    nodes: Informer<NodeView>,
    pods: Informer<PodView>,
    leases: Informer<Whole<Lease>>,
    recorder: EventRecorder,
    clock: Arc<dyn Clock>,
    options: NodeOptions,
    health: Health,
    zones: Zones,
    /// Nodes seen in the last look.
    known: HashMap<String, ObjectReference>,
    /// Nodes that are not ready and whose Pods could not all be told.
    unmarked: HashSet<String>,
    metrics: NodeMetrics,
}

fn zone_of(node: &Node) -> String {
    let label =
        |name: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(name)).map_or("", String::as_str);
    format!("{}:\u{0}:{}", label(REGION), label(ZONE))
}

/// The `NoExecute` taint that a node should have.
fn wanted_taint(node: &Node) -> Option<&'static str> {
    match condition(node, "Ready") {
        Some("False") => Some(NOT_READY),
        Some("Unknown") => Some(UNREACHABLE),
        _ => None,
    }
}

fn has_taint(node: &Node) -> bool {
    let keys = [NOT_READY, UNREACHABLE];
    super::taints_of(node).iter().any(|t| t.effect == super::NO_EXECUTE && keys.contains(&t.key.as_str()))
}

impl Monitor {
    async fn look(&mut self) {
        let nodes = self.nodes.list();
        self.announce(&nodes);
        let mut states: Vec<Node> = Vec::new();
        for node in &nodes {
            match self.check(node).await {
                Ok(node) => states.push(node),
                Err(error) => tracing::error!(%error, node = node.key.name, "cannot update the status of a node"),
            }
        }
        let names: HashSet<&str> = nodes.iter().map(|node| node.key.name.as_str()).collect();
        self.health.keep(|name| names.contains(name));
        self.unmarked.retain(|name| names.contains(name.as_str()));
        self.tend(&states).await;
    }

    /// Tells of nodes that came and went.
    fn announce(&mut self, nodes: &[Arc<Cached<NodeView>>]) {
        let present: HashMap<String, ObjectReference> =
            nodes.iter().map(|node| (node.key.name.clone(), reference_to(&node.view.0))).collect();
        let tell = |about: &ObjectReference, reason, text: String| {
            self.recorder.event(about, EventType::Normal, reason, text);
        };
        for (name, about) in present.iter().filter(|(name, _)| !self.known.contains_key(*name)) {
            tell(about, "RegisteredNode", format!("Node {name} event: Registered Node {name} in Controller"));
        }
        for (name, about) in self.known.iter().filter(|(name, _)| !present.contains_key(*name)) {
            tell(about, "RemovingNode", format!("Node {name} event: Removing Node {name} from Controller"));
        }
        self.known = present;
    }

    /// Looks at one node; answers it as it is afterwards.
    async fn check(&mut self, cached: &Cached<NodeView>) -> Result<Node, CallError> {
        let name = &cached.key.name;
        let lease = self.leases.get(&::controller::ObjectKey::new(LEASES.to_owned(), name.clone()));
        let renewed = lease.as_ref().and_then(|lease| lease.spec.as_ref()).and_then(|spec| spec.renew_time.as_ref());
        let grace =
            Grace { running: self.options.node_monitor_grace_period, starting: self.options.node_startup_grace_period };
        let was_ready = is_ready(cached);
        let mut node = Node::clone(cached);
        if self.health.is_silent(cached, renewed, self.clock.elapsed(), grace) {
            let now = now(&*self.clock);
            if make_unknown(&mut node, &now) {
                let api: Api<Node> = Api::all(self.client.clone());
                match client::modify_status(&api, name, |node| make_unknown(node, &now)).await {
                    Ok(written) => node = written,
                    Err(error) if error.is_not_found() => return Ok(node),
                    Err(error) => return Err(error),
                }
            }
        }
        let is_ready = is_ready(&node);
        if was_ready && !is_ready {
            let text = format!("Node {name} status is now: NodeNotReady");
            self.recorder.event(&reference_to(&node), EventType::Normal, "NodeNotReady", text);
        }
        if is_ready {
            self.unmarked.remove(name);
        } else if was_ready || self.unmarked.contains(name) {
            match self.mark_pods(name).await {
                true => self.unmarked.remove(name),
                false => self.unmarked.insert(name.clone()),
            };
        }
        Ok(node)
    }

    /// Makes the Pods of a node unready, so that no Service leads to them. Whether all could be told.
    async fn mark_pods(&self, node: &str) -> bool {
        let now = now(&*self.clock);
        let mut all = true;
        for pod in self.pods.by_index(BY_NODE, node) {
            if !pod.is_ready() {
                continue;
            }
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &pod.key.namespace);
            let marked = client::modify_status(&api, &pod.key.name, |pod: &mut Pod| {
                let status = pod.status.get_or_insert_default();
                let mut conditions = status.conditions.iter().flatten();
                if !conditions.any(|c| c.type_ == "Ready" && c.status == "True") {
                    return false;
                }
                set_condition(status, "Ready", "False", "", "", now.clone());
                true
            });
            match marked.await {
                Ok(marked) => {
                    let about = reference_to(&marked);
                    self.recorder.event(&about, EventType::Warning, "NodeNotReady", "Node is not ready");
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    tracing::warn!(%error, pod = %pod.key, "cannot mark a pod as not ready");
                    all = false;
                }
            }
        }
        all
    }

    /// Taints what is not ready, as fast as the zones allow.
    async fn tend(&mut self, nodes: &[Node]) {
        let elapsed = self.clock.elapsed();
        let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for node in nodes.iter().filter(|node| !node.metadata.labels.iter().flatten().any(|(key, _)| key == EXCLUDED)) {
            let count = counts.entry(zone_of(node)).or_default();
            match condition(node, "Ready") {
                Some("True") => count.0 += 1,
                _ => count.1 += 1,
            }
        }
        for (zone, (ready, unready)) in &counts {
            let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
            let all = ready + unready;
            self.metrics.size.with_label_values(&[zone]).set(number(all));
            self.metrics.unhealthy.with_label_values(&[zone]).set(number(*unready));
            self.metrics.health.with_label_values(&[zone]).set(number(ready * 100 / all.max(1)));
        }
        match self.zones.update(&counts, elapsed, &self.options) {
            Turn::Stop => {
                tracing::info!("Controller detected that all Nodes are not-Ready. Entering master disruption mode");
                for node in nodes {
                    self.taint(node, None).await;
                }
            }
            Turn::Resume => {
                tracing::info!("Controller detected that some Nodes are Ready. Exiting master disruption mode");
                self.health.reset(elapsed);
            }
            Turn::None => {}
        }
        if self.zones.stopped {
            return;
        }
        self.queue_or_swap(nodes).await;
        for (zone, (ready, unready)) in &counts {
            for name in self.zones.get(zone, elapsed).due(ready + unready, elapsed, &self.options) {
                if let Some(node) = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(&name)) {
                    self.taint(node, wanted_taint(node)).await;
                    self.metrics.evictions.with_label_values(&[zone]).inc();
                }
            }
        }
    }

    /// Ready nodes lose their taints and tainted ones change theirs at once; the others wait in their zone.
    async fn queue_or_swap(&mut self, nodes: &[Node]) {
        let elapsed = self.clock.elapsed();
        for node in nodes {
            let name = node.metadata.name.clone().unwrap_or_default();
            let wanted = wanted_taint(node);
            let tainted = has_taint(node);
            let zone = self.zones.get(&zone_of(node), elapsed);
            match wanted {
                Some(_) if !tainted => zone.add(&name),
                _ => {
                    zone.remove(&name);
                    if tainted {
                        self.taint(node, wanted).await;
                    }
                }
            }
        }
    }

    async fn taint(&self, node: &Node, key: Option<&str>) {
        let since = now(&*self.clock);
        if !execute(&mut node.clone(), key, &since) {
            return;
        }
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let api: Api<Node> = Api::all(self.client.clone());
        match client::modify(&api, name, |node| execute(node, key, &since)).await {
            Err(error) if !error.is_not_found() => tracing::error!(%error, node = name, "cannot taint a node"),
            _ => {}
        }
    }
}
