//! Pod address ranges of nodes: each gets the first free block of every cluster CIDR.

pub(crate) mod options;
mod pool;

use std::{collections::HashMap, sync::Arc};

use ::controller::{
    Cached, Change, EventRecorder, EventType, Informer, ObjectKey, Outcome, Reconcile, ReconcileError,
    events::reference_to,
};
use client::{ApiErrorExt, CallError, Scope};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use parking_lot::Mutex;
use prometheus::IntCounterVec;
use serde_json::json;

use crate::{StartError, context::Context, metrics::RangeMetrics, table::Started, views::NodeView};
use pool::Pool;

const CONTROLLER: &str = "node-ipam-controller";

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let options = &context.options.ipam;
    if !options.allocate_node_cidrs {
        return Ok(Started::Skipped);
    }
    let pools = options.pools().map_err(StartError::Flags)?;
    let blocks = Arc::new(Mutex::new(Blocks::new(pools, context.metrics.ranges.clone())));
    let nodes: Informer<NodeView> = context.informers.get();
    let queue = context.queue("node_ipam");
    let (keys, taken) = (queue.clone(), Arc::clone(&blocks));
    nodes.on_change(move |change| match change {
        Change::Deleted { old } => taken.lock().release(old),
        Change::Added { new, .. } | Change::Updated { new, .. } => {
            taken.lock().occupy(&cidrs(new));
            keys.add(new.key.clone());
        }
    });
    let client = context.client("node-controller").await?;
    let recorder = context.recorder(&client, "cidrAllocator");
    let allocator = Allocator { client, nodes: nodes.clone(), blocks, recorder };
    context.drive(CONTROLLER, queue, 30, allocator, &[&nodes]);
    Ok(Started::Running)
}

/// Ranges that a Node has.
fn cidrs(node: &Node) -> Vec<IpNet> {
    let spec = node.spec.as_ref();
    let all = spec.and_then(|spec| spec.pod_cidrs.clone()).filter(|all| !all.is_empty());
    let all = all.or_else(|| spec.and_then(|spec| spec.pod_cidr.clone()).map(|one| vec![one])).unwrap_or_default();
    all.iter().filter_map(|text| text.parse().ok()).collect()
}

/// The pools, and what was taken from them and is perhaps not seen on its Node yet.
struct Blocks {
    pools: Vec<Pool>,
    given: HashMap<ObjectKey, Vec<IpNet>>,
    metrics: RangeMetrics,
}

impl Blocks {
    fn new(pools: Vec<Pool>, metrics: RangeMetrics) -> Self {
        for pool in &pools {
            let size = i64::try_from(pool.counts().1).unwrap_or(i64::MAX);
            metrics.size.with_label_values(&[pool.range().to_string()]).set(size);
        }
        Self { pools, given: HashMap::new(), metrics }
    }

    /// Changes all pools; the change answers by how many blocks.
    fn change(&mut self, counter: impl Fn(&RangeMetrics) -> &IntCounterVec, change: impl Fn(&mut Pool) -> usize) {
        for pool in &mut self.pools {
            let changed = change(pool);
            if changed > 0 {
                let range = pool.range().to_string();
                counter(&self.metrics).with_label_values(&[&range]).inc_by(u64::try_from(changed).unwrap_or(0));
                let (used, all) = pool.counts();
                #[allow(clippy::cast_precision_loss)]
                self.metrics.usage.with_label_values(&[&range]).set(used as f64 / all as f64);
            }
        }
    }

    fn occupy(&mut self, cidrs: &[IpNet]) {
        for cidr in cidrs {
            self.change(|metrics| &metrics.allocations, |pool| pool.occupy(*cidr));
        }
    }

    fn free(&mut self, cidrs: &[IpNet]) {
        for cidr in cidrs {
            self.change(|metrics| &metrics.releases, |pool| pool.release(*cidr));
        }
    }

    fn release(&mut self, node: &Cached<NodeView>) {
        let mut all = cidrs(node);
        all.extend(self.given.remove(&node.key).unwrap_or_default());
        self.free(&all);
    }

    /// One block of each pool, the same ones when asked again; `None` if a pool has none left.
    fn take(&mut self, node: &ObjectKey) -> Option<Vec<IpNet>> {
        if let Some(given) = self.given.get(node) {
            return Some(given.clone());
        }
        let mut taken = Vec::new();
        for at in 0..self.pools.len() {
            let (tries, range) = (self.pools[at].tries(), self.pools[at].range().to_string());
            let Some(cidr) = self.pools[at].take() else {
                self.free(&taken);
                return None;
            };
            // Counted as what comes from a Node is.
            self.pools[at].release(cidr);
            self.occupy(&[cidr]);
            self.metrics
                .tries
                .with_label_values(&[&range])
                .observe(f64::from(u32::try_from(tries).unwrap_or(u32::MAX)));
            taken.push(cidr);
        }
        self.given.insert(node.clone(), taken.clone());
        Some(taken)
    }
}

struct Allocator {
    client: Client,
    nodes: Informer<NodeView>,
    blocks: Arc<Mutex<Blocks>>,
    recorder: EventRecorder,
}

impl Allocator {
    fn tell(&self, node: &Node, what: &str) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let text = format!("Node {name} status is now: {what}");
        self.recorder.event(&reference_to(node), EventType::Normal, what, text);
    }
}

impl Reconcile for Allocator {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(node) = self.nodes.get(key) else { return Ok(Outcome::Done) };
        if !cidrs(&node).is_empty() {
            self.blocks.lock().given.remove(key);
            return Ok(Outcome::Done);
        }
        let taken = self.blocks.lock().take(key);
        let Some(taken) = taken else {
            self.tell(&node, "CIDRNotAvailable");
            return Ok(Outcome::Backoff);
        };
        let api: Api<Node> = Api::all(self.client.clone());
        let taken: Vec<String> = taken.iter().map(IpNet::to_string).collect();
        let patch = json!({"spec": {"podCIDR": taken.first(), "podCIDRs": taken}});
        match client::strategic_patch(&api, &key.name, Scope::Object, &patch).await {
            Ok(_) => Ok(Outcome::Done),
            Err(error) if error.is_not_found() => Ok(Outcome::Done),
            Err(error) => {
                self.tell(&node, "CIDRAssignmentFailed");
                Err(CallError::into(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks() -> Blocks {
        let pool = |cidr: &str, mask| Pool::new(cidr.parse().unwrap(), mask).unwrap();
        let metrics = crate::metrics::Metrics::new(&prometheus::Registry::new()).unwrap();
        Blocks::new(vec![pool("10.244.0.0/22", 24), pool("fd00::/62", 64)], metrics.ranges)
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(String::new(), name.to_owned())
    }

    #[test]
    fn blocks_of_all_families_or_none() {
        let mut blocks = blocks();
        blocks.occupy(&["10.244.0.0/24".parse().unwrap()]);
        let first = blocks.take(&key("a")).unwrap();
        assert_eq!(first, ["10.244.1.0/24".parse::<IpNet>().unwrap(), "fd00::/64".parse().unwrap()]);
        assert_eq!(blocks.take(&key("a")).unwrap(), first, "asked again before the Node shows it");
        blocks.take(&key("b")).unwrap();
        blocks.take(&key("c")).unwrap();
        assert_eq!(blocks.take(&key("d")), None);
        let free: Vec<_> = std::iter::from_fn(|| blocks.pools[1].take()).collect();
        assert_eq!(free.len(), 1, "what was taken for d was given back");
        let range = "10.244.0.0/22";
        assert_eq!(blocks.metrics.allocations.with_label_values(&[range]).get(), 4);
        assert_eq!(blocks.metrics.size.with_label_values(&[range]).get(), 4);
        assert!((blocks.metrics.usage.with_label_values(&[range]).get() - 1.0).abs() < 1e-9);
        assert_eq!(blocks.metrics.releases.with_label_values(&["fd00::/62"]).get(), 0);
    }
}
