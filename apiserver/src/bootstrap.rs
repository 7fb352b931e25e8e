//! Objects that every cluster has: namespaces, priority classes, RBAC policy, the `kubernetes` Service.

use std::{net::IpAddr, sync::Arc, time::Duration};

use generic::{
    resource::{Resource, Stored, Swap},
    user::User,
    verbs::context::Moment,
};
use machinery::{ApiResult, meta};
use registry::services::Addresses;
use rules::rbac::{PolicyRule, uncovered};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{options::Options, resources::Resources};

/// Pause before a failed round is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How often the endpoints of the `kubernetes` Service are looked after.
const RECONCILE: Duration = Duration::from_secs(10);
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];
const SERVICE: &str = "kubernetes";

/// Creates an object unless it exists; answers the present one.
pub(crate) async fn ensure(resource: &Resource, mut object: Value) -> ApiResult<Option<Stored>> {
    let moment = Moment::now();
    let metadata = meta::metadata_mut(&mut object);
    metadata.insert("uid".into(), json!(uuid::Uuid::new_v4().to_string()));
    metadata.insert("creationTimestamp".into(), json!(moment.text));
    resource.strategy.defaults(&mut object);
    moment.with_context(&User::server(), |context| resource.strategy.prepare_create(&mut object, context));
    match resource.insert(&object).await? {
        Swap::Done(_) => Ok(None),
        Swap::Lost(present) => Ok(present),
    }
}

/// Namespaces and priority classes.
pub(crate) async fn basics(resources: &Resources) -> Result<(), crate::StartError> {
    let namespaces = resources.get("", "namespaces")?;
    for name in NAMESPACES {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        ensure(&namespaces, object).await?;
    }
    let classes = resources.get("scheduling.k8s.io", "priorityclasses")?;
    for (name, value, what) in [
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ] {
        let object = json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value, "description": what,
        });
        ensure(&classes, object).await?;
    }
    Ok(())
}

/// RBAC policy: missing objects are made, missing rules and subjects added unless the object declines.
pub(crate) async fn policy(resources: &Resources) -> Result<(), crate::StartError> {
    for object in rules::bootstrap::objects() {
        let plural = format!("{}s", object["kind"].as_str().unwrap_or("").to_lowercase());
        let resource = resources.get("rbac.authorization.k8s.io", &plural)?;
        let mut present = ensure(&resource, object.clone()).await?;
        while let Some(stored) = present.take() {
            let Some(completed) = completed(&stored.object, &object) else { break };
            if let Swap::Lost(current) = resource.replace(&completed, stored.revision).await? {
                present = current;
            }
        }
    }
    Ok(())
}

/// The stored object with what it lacks, or `None` if it lacks nothing or wants none of it.
fn completed(stored: &Value, wanted: &Value) -> Option<Value> {
    let declines = meta::text_map(stored, "annotations")
        .any(|(k, v)| k == "rbac.authorization.kubernetes.io/autoupdate" && v == "false");
    if declines {
        return None;
    }
    let mut new = stored.clone();
    let rules = |object: &Value| -> Vec<PolicyRule> {
        object.get("rules").and_then(|r| serde_json::from_value(r.clone()).ok()).unwrap_or_default()
    };
    // Aggregated roles get their rules from a controller.
    if wanted.get("aggregationRule").is_none() {
        let missing = uncovered(&rules(stored), &rules(wanted));
        if !missing.is_empty() {
            let mut all = rules(stored);
            all.extend(missing);
            new["rules"] = json!(all);
        }
    }
    let list = |object: &Value| object.get("subjects").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut subjects = list(stored);
    subjects.extend(list(wanted).into_iter().filter(|s| !list(stored).contains(s)));
    if subjects.len() > list(stored).len() {
        new["subjects"] = json!(subjects);
    }
    (new != *stored).then_some(new)
}

/// `kube-system/extension-apiserver-authentication`: whom components that delegate authentication may trust.
pub(crate) async fn authentication(
    resources: &Resources,
    options: &Options,
    client_ca: Option<&[u8]>,
) -> Result<(), crate::StartError> {
    let mut data = serde_json::Map::new();
    if let Some(pem) = client_ca {
        data.insert("client-ca-file".into(), json!(String::from_utf8_lossy(pem)));
    }
    if let Some(file) = &options.requestheader_client_ca_file {
        let pem = runtime::tls::read(file)?;
        data.insert("requestheader-client-ca-file".into(), json!(String::from_utf8_lossy(&pem)));
        for (key, list) in [
            ("requestheader-allowed-names", &options.requestheader_allowed_names),
            ("requestheader-username-headers", &options.requestheader_username_headers),
            ("requestheader-uid-headers", &options.requestheader_uid_headers),
            ("requestheader-group-headers", &options.requestheader_group_headers),
            ("requestheader-extra-headers-prefix", &options.requestheader_extra_headers_prefix),
        ] {
            data.insert(key.into(), json!(json!(list).to_string()));
        }
    }
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"}});
    Ok(keep(&*resources.get("", "configmaps")?, object, "data").await?)
}

/// What the `kubernetes` Service points at.
pub(crate) struct KubernetesService {
    pub(crate) services: Arc<Resource>,
    pub(crate) endpoints: Arc<Resource>,
    pub(crate) slices: Arc<Resource>,
    pub(crate) cidrs: Arc<Resource>,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) advertise: IpAddr,
    pub(crate) port: u16,
}

impl KubernetesService {
    /// Keeps the Service and its endpoints right until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            let pause = match self.reconcile().await {
                Ok(()) => RECONCILE,
                Err(error) => {
                    tracing::warn!(%error, "the kubernetes Service is not up to date");
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn reconcile(&self) -> ApiResult<()> {
        let range = self.addresses.range.to_string();
        let cidr = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": SERVICE}, "spec": {"cidrs": [range]}});
        ensure(&self.cidrs, cidr).await?;
        let first = self.addresses.first();
        let labels = json!({"component": "apiserver", "provider": "kubernetes"});
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": SERVICE, "namespace": "default", "labels": labels},
            "spec": {
                "type": "ClusterIP", "clusterIP": first, "clusterIPs": [first],
                "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
                "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": self.port}],
            },
        });
        if ensure(&self.services, service.clone()).await?.is_none() {
            self.addresses.claim_first(&service).await?;
        }
        let skip = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": SERVICE, "namespace": "default", "labels": skip},
            "subsets": [{
                "addresses": [{"ip": self.advertise}],
                "ports": [{"name": "https", "port": self.port, "protocol": "TCP"}],
            }],
        });
        keep(&self.endpoints, endpoints, "subsets").await?;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": SERVICE, "namespace": "default", "labels": {"kubernetes.io/service-name": SERVICE}},
            "addressType": if self.advertise.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": [{"addresses": [self.advertise], "conditions": {"ready": true}}],
            "ports": [{"name": "https", "port": self.port, "protocol": "TCP"}],
        });
        keep(&self.slices, slice, "endpoints").await
    }
}

/// Creates the object, or makes one field of the present one right.
async fn keep(resource: &Resource, wanted: Value, field: &str) -> ApiResult<()> {
    let mut present = ensure(resource, wanted.clone()).await?;
    while let Some(stored) = present.take() {
        if stored.object.get(field) == wanted.get(field) {
            break;
        }
        let mut new = stored.object.clone();
        new[field] = wanted[field].clone();
        if let Swap::Lost(current) = resource.replace(&new, stored.revision).await? {
            present = current;
        }
    }
    Ok(())
}
