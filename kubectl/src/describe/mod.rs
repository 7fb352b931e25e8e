//! Descriptions of objects for people.
//!
//! [`gather`] reads what a description needs besides the object; [`describe`] writes it and does nothing else.

mod autoscale;
mod batch;
mod claim;
mod config;
mod container;
mod events;
mod generic;
mod ingress;
mod node;
mod page;
mod pod;
mod rbac;
mod read;
mod service;
mod signing;
mod volume;
mod workload;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use machinery::meta;
use serde_json::Value;

pub(crate) use page::Clock;
use page::Page;
pub(crate) use workload::{is_controlled, pod_selector, same};

use crate::{
    cluster::{Call, Cluster},
    error::CommandError,
};
use read::text;

const MIRROR: &str = "kubernetes.io/config.mirror";
/// Items that are read of a list at once.
const PAGE: &str = "500";

/// What a description shows besides the object.
pub(crate) struct Facts {
    /// Events; `None` when they are not shown.
    pub(crate) events: Option<Vec<Value>>,
    /// Pods of a workload, of a Node or of a claim's namespace.
    pub(crate) pods: Vec<Value>,
    /// Whether the Pods of a Node may not be read.
    pub(crate) forbidden: bool,
    /// ReplicaSets in a Deployment's namespace.
    pub(crate) replica_sets: Vec<Value>,
    /// EndpointSlices of a Service.
    pub(crate) endpoint_slices: Vec<Value>,
    /// Services behind an Ingress.
    pub(crate) backends: BTreeMap<String, Result<Backend, String>>,
    /// ResourceQuotas of a Namespace.
    pub(crate) quotas: Vec<Value>,
    /// LimitRanges of a Namespace.
    pub(crate) limits: Vec<Value>,
    /// The Lease of a Node, or why there is none.
    pub(crate) lease: Result<Value, String>,
    /// ResourceSlices of a Node.
    pub(crate) resource_slices: Vec<Value>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            events: None,
            pods: Vec::new(),
            forbidden: false,
            replica_sets: Vec::new(),
            endpoint_slices: Vec::new(),
            backends: BTreeMap::new(),
            quotas: Vec::new(),
            limits: Vec::new(),
            lease: Ok(Value::Null),
            resource_slices: Vec::new(),
        }
    }
}

impl Facts {
    fn events(&self) -> Option<&[Value]> {
        self.events.as_deref()
    }
}

/// A Service with its EndpointSlices.
pub(crate) struct Backend {
    pub(crate) service: Value,
    pub(crate) slices: Vec<Value>,
}

/// Group and kind of an object.
fn kind(object: &Value) -> (&str, &str) {
    let group = text(&object["apiVersion"]).rsplit_once('/').map_or("", |(group, _)| group);
    (group, text(&object["kind"]))
}

/// Writes the description of an object.
pub(crate) fn describe(object: &Value, facts: &Facts, clock: Clock) -> Result<String, CommandError> {
    let mut page = Page::new(clock);
    let (group, kind) = kind(object);
    let with_facts: fn(&mut Page, &Value, &Facts) = match (group, kind) {
        ("", "Pod") => pod::pod,
        ("", "Node") => node::node,
        ("", "Service") => service::service,
        ("", "Endpoints") => service::endpoints,
        ("", "ReplicationController") | ("apps", "ReplicaSet") => workload::replica_set,
        ("", "PersistentVolume") => claim::persistent_volume,
        ("", "PersistentVolumeClaim") => claim::claim,
        ("", "ConfigMap") => config::config_map,
        ("", "Namespace") => config::namespace,
        ("", "ServiceAccount") => config::service_account,
        ("apps", "Deployment") => workload::deployment,
        ("apps", "StatefulSet") => workload::stateful_set,
        ("apps", "DaemonSet") => workload::daemon_set,
        ("batch", "Job") => batch::job,
        ("batch", "CronJob") => batch::cron_job,
        ("discovery.k8s.io", "EndpointSlice") => service::endpoint_slice,
        ("networking.k8s.io", "Ingress") => ingress::ingress,
        ("networking.k8s.io", "IngressClass") => ingress::class,
        ("networking.k8s.io", "ServiceCIDR") => ingress::service_cidr,
        ("networking.k8s.io", "IPAddress") => ingress::ip_address,
        ("storage.k8s.io", "StorageClass") => claim::storage_class,
        ("storage.k8s.io", "VolumeAttributesClass") => claim::attributes_class,
        ("storage.k8s.io", "CSINode") => claim::csi_node,
        ("scheduling.k8s.io", "PriorityClass") => config::priority_class,
        ("autoscaling", "HorizontalPodAutoscaler") => autoscale::autoscaler,
        ("policy", "PodDisruptionBudget") => autoscale::disruption_budget,
        ("certificates.k8s.io", "CertificateSigningRequest") => {
            signing::request(&mut page, object, facts)?;
            return Ok(page.finish());
        }
        _ => {
            match (group, kind) {
                ("", "Secret") => config::secret(&mut page, object),
                ("", "ResourceQuota") => config::quota(&mut page, object),
                ("", "LimitRange") => config::limit_range(&mut page, object),
                ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => rbac::role(&mut page, object),
                ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => rbac::binding(&mut page, object),
                ("networking.k8s.io", "NetworkPolicy") => ingress::network_policy(&mut page, object),
                _ => generic::generic(&mut page, object, facts),
            }
            return Ok(page.finish());
        }
    };
    with_facts(&mut page, object, facts);
    Ok(page.finish())
}

/// A Pod template as a history shows it: the tabs stay.
pub(crate) fn template_text(template: &Value) -> String {
    let mut page = Page::new(Clock::now());
    pod::template(&mut page, template);
    page.unaligned()
}

/// Kinds whose descriptions show no events.
const WITHOUT_EVENTS: [&str; 9] = [
    "Secret",
    "ResourceQuota",
    "LimitRange",
    "Role",
    "ClusterRole",
    "RoleBinding",
    "ClusterRoleBinding",
    "NetworkPolicy",
    "Namespace",
];

/// Reads what the description of an object shows besides it.
pub(crate) async fn gather(cluster: &Cluster, object: &Value, with_events: bool) -> Result<Facts, CommandError> {
    let mut facts = Facts::default();
    let namespace = meta::namespace(object);
    let in_namespace = |resource: &str| format!("/api/v1/namespaces/{namespace}/{resource}");
    let (group, kind) = kind(object);
    match (group, kind) {
        ("", "Node") => of_node(cluster, object, &mut facts).await?,
        ("apps", "Deployment") => {
            let path = format!("/apis/apps/v1/namespaces/{namespace}/replicasets");
            let selector = pod_selector(object).unwrap_or_default();
            facts.replica_sets = list(cluster, Call::get(&path).query("labelSelector", selector)).await?;
        }
        ("", "ReplicationController") | ("apps", "ReplicaSet" | "StatefulSet" | "DaemonSet") => {
            let selector = pod_selector(object).unwrap_or_default();
            let call = Call::get(&in_namespace("pods")).query("labelSelector", selector);
            facts.pods = list(cluster, call).await?;
        }
        ("", "PersistentVolumeClaim") => facts.pods = list(cluster, Call::get(&in_namespace("pods"))).await?,
        ("", "Service") => facts.endpoint_slices = slices(cluster, namespace, meta::name(object)).await?,
        ("networking.k8s.io", "Ingress") => {
            for name in ingress::backends(object) {
                let behind = backend(cluster, namespace, name).await.map_err(|e| e.to_string());
                facts.backends.insert(name.to_owned(), behind);
            }
        }
        ("", "Namespace") => {
            let below = |resource: &str| Call::get(&format!("/api/v1/namespaces/{}/{resource}", meta::name(object)));
            facts.quotas = list(cluster, below("resourcequotas")).await?;
            facts.limits = list(cluster, below("limitranges")).await?;
        }
        _ => {}
    }
    if with_events && !WITHOUT_EVENTS.contains(&kind) {
        // Descriptions without events are better than none.
        facts.events = Some(of_object(cluster, object).await.unwrap_or_default());
    }
    Ok(facts)
}

async fn of_node(cluster: &Cluster, node: &Value, facts: &mut Facts) -> Result<(), CommandError> {
    let name = meta::name(node);
    let pods = Call::get("/api/v1/pods")
        .query("fieldSelector", format!("spec.nodeName={name},status.phase!=Failed,status.phase!=Succeeded"));
    match list(cluster, pods).await {
        Ok(pods) => facts.pods = pods,
        Err(error) if error.status().is_some_and(|s| s.reason == "Forbidden") => facts.forbidden = true,
        Err(error) => return Err(error),
    }
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}");
    facts.lease = cluster.get(&path).await.map_err(|e| e.status().map_or(e.to_string(), |s| s.message.clone()));
    let slices =
        Call::get("/apis/resource.k8s.io/v1/resourceslices").query("fieldSelector", format!("spec.nodeName={name}"));
    // Older servers and narrow roles know no slices.
    facts.resource_slices = list(cluster, slices).await.unwrap_or_default();
    Ok(())
}

async fn backend(cluster: &Cluster, namespace: &str, name: &str) -> Result<Backend, CommandError> {
    let plain = |error: CommandError| match error.status() {
        Some(status) => CommandError::plain(status.message.clone()),
        None => error,
    };
    let slices = slices(cluster, namespace, name).await.map_err(plain)?;
    let service = cluster.get(&format!("/api/v1/namespaces/{namespace}/services/{name}")).await.map_err(plain)?;
    Ok(Backend { service, slices })
}

async fn slices(cluster: &Cluster, namespace: &str, service: &str) -> Result<Vec<Value>, CommandError> {
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
    list(cluster, Call::get(&path).query("labelSelector", format!("kubernetes.io/service-name={service}"))).await
}

/// All items of a list, page by page.
pub(crate) async fn list(cluster: &Cluster, call: Call) -> Result<Vec<Value>, CommandError> {
    let (mut items, mut token) = (Vec::new(), String::new());
    loop {
        let mut page = cluster.json(&call.clone().query("limit", PAGE).query_if("continue", &token)).await?;
        if let Some(found) = page.get_mut("items").and_then(Value::as_array_mut) {
            items.append(found);
        }
        token = text(&page["metadata"]["continue"]).to_owned();
        if token.is_empty() {
            return Ok(items);
        }
    }
}

/// The events of an object.
async fn of_object(cluster: &Cluster, object: &Value) -> Result<Vec<Value>, CommandError> {
    let (name, namespace) = (meta::name(object), meta::namespace(object));
    let uid = match text(&object["metadata"]["annotations"][MIRROR]) {
        "" => meta::uid(object),
        mirrored => mirrored,
    };
    let kind = text(&object["kind"]);
    let mut selector = format!("involvedObject.name={name},involvedObject.namespace={namespace}");
    if kind != "Pod" {
        selector.push_str(&format!(",involvedObject.kind={kind}"));
    }
    let path = match namespace {
        "" => "/api/v1/events".to_owned(),
        namespace => format!("/api/v1/namespaces/{namespace}/events"),
    };
    let by = |uid: &str| Call::get(&path).query("fieldSelector", format!("{selector},involvedObject.uid={uid}"));
    let mut events = list(cluster, by(uid)).await?;
    if kind == "Node" {
        // The kubelet knows its Node by name only.
        events.extend(list(cluster, by(name)).await?);
    }
    Ok(events)
}
