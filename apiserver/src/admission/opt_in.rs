//! Small plugins that are off unless `--enable-admission-plugins` names them.

use std::sync::Arc;

use async_trait::async_trait;
use generic::{
    admission::{AdmissionRequest, Operation, Plugin},
    resource::Resource,
};
use machinery::{ApiResult, meta};
use serde_json::{Value, json};

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

fn writes(request: &AdmissionRequest) -> bool {
    matches!(request.operation, Operation::Create | Operation::Update)
}

/// Admits everything.
pub(super) struct AlwaysAdmit;

#[async_trait]
impl Plugin for AlwaysAdmit {
    fn name(&self) -> &'static str {
        "AlwaysAdmit"
    }

    fn handles(&self, _request: &AdmissionRequest) -> bool {
        false
    }
}

/// Refuses everything.
pub(super) struct AlwaysDeny;

#[async_trait]
impl Plugin for AlwaysDeny {
    fn name(&self) -> &'static str {
        "AlwaysDeny"
    }

    fn handles(&self, _request: &AdmissionRequest) -> bool {
        true
    }

    async fn admit(
        &self,
        request: &AdmissionRequest,
        object: Option<&mut Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        Err(request.reject(object.as_deref(), "admission control is denying all modifications"))
    }
}

/// Has every image pulled anew, so that nobody uses what another's secret has pulled.
pub(super) struct AlwaysPullImages;

#[async_trait]
impl Plugin for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        writes(request) && request.is("", "pods") && matches!(request.subresource.as_str(), "" | "ephemeralcontainers")
    }

    async fn admit(
        &self,
        _request: &AdmissionRequest,
        object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> ApiResult<()> {
        let Some(pod) = object else { return Ok(()) };
        for list in CONTAINERS {
            let before: Vec<Value> = old.and_then(|pod| pod["spec"][list].as_array()).cloned().unwrap_or_default();
            for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                // The policy of a container that runs already cannot be changed.
                if !before.iter().any(|old| old["name"] == container["name"]) {
                    container["imagePullPolicy"] = json!("Always");
                }
            }
        }
        Ok(())
    }
}

/// Refuses external IPs of Services that are not there already (CVE-2020-8554).
pub(super) struct DenyServiceExternalIps;

#[async_trait]
impl Plugin for DenyServiceExternalIps {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        writes(request) && request.subresource.is_empty() && request.is("", "services")
    }

    async fn validate(&self, request: &AdmissionRequest, object: Option<&Value>, old: Option<&Value>) -> ApiResult<()> {
        let addresses = |service: Option<&Value>| {
            service.and_then(|s| s.pointer("/spec/externalIPs")).and_then(Value::as_array).cloned().unwrap_or_default()
        };
        let before = addresses(old);
        if addresses(object).iter().all(|address| before.contains(address)) {
            return Ok(());
        }
        Err(request.reject(object, "Use of external IPs is denied by admission control"))
    }
}

/// Lets Pods with extended resources tolerate the taints of the nodes that have them.
pub(super) struct ExtendedResourceToleration;

#[async_trait]
impl Plugin for ExtendedResourceToleration {
    fn name(&self) -> &'static str {
        "ExtendedResourceToleration"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        writes(request) && request.subresource.is_empty() && request.is("", "pods")
    }

    async fn admit(
        &self,
        _request: &AdmissionRequest,
        object: Option<&mut Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let Some(pod) = object else { return Ok(()) };
        let containers = CONTAINERS[..2].iter().flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten());
        let mut names: Vec<String> = containers
            .filter_map(|container| container.pointer("/resources/requests").and_then(Value::as_object))
            .flat_map(|requests| requests.keys())
            .filter(|name| rules::validation::is_extended(name))
            .cloned()
            .collect();
        names.sort();
        names.dedup();
        let tolerations = meta::object_mut(&mut pod["spec"]).entry("tolerations").or_insert_with(|| json!([]));
        if let Some(list) = tolerations.as_array_mut() {
            for key in names {
                let wanted = json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
                if !list.contains(&wanted) {
                    list.push(wanted);
                }
            }
        }
        Ok(())
    }
}

/// Refuses anti-affinity that must hold and is about anything but single nodes.
pub(super) struct LimitPodHardAntiAffinityTopology;

#[async_trait]
impl Plugin for LimitPodHardAntiAffinityTopology {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        writes(request) && request.subresource.is_empty() && request.is("", "pods")
    }

    async fn validate(
        &self,
        request: &AdmissionRequest,
        object: Option<&Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let place = "/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution";
        let terms = object.and_then(|pod| pod.pointer(place)).and_then(Value::as_array).into_iter().flatten();
        for key in terms.filter_map(|term| term["topologyKey"].as_str()) {
            if key != "kubernetes.io/hostname" {
                let why = format!(
                    "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key \
                     kubernetes.io/hostname is allowed"
                );
                return Err(request.reject(object, &why));
            }
        }
        Ok(())
    }
}

/// Makes the namespaces that objects are created in.
pub(super) struct NamespaceAutoProvision {
    pub(super) namespaces: Arc<Resource>,
}

#[async_trait]
impl Plugin for NamespaceAutoProvision {
    fn name(&self) -> &'static str {
        "NamespaceAutoProvision"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation == Operation::Create
            && !request.dry_run
            && !request.namespace.is_empty()
            && !request.is("", "namespaces")
    }

    async fn admit(
        &self,
        request: &AdmissionRequest,
        _object: Option<&mut Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        match self.namespaces.get_settled("", &request.namespace).await {
            Err(error) if error.is_not_found() => {}
            other => return other.map(drop),
        }
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": request.namespace}});
        crate::bootstrap::ensure(&self.namespaces, namespace).await.map(drop)
    }
}

/// Refuses requests in namespaces that do not exist.
pub(super) struct NamespaceExists {
    pub(super) namespaces: Arc<Resource>,
}

#[async_trait]
impl Plugin for NamespaceExists {
    fn name(&self) -> &'static str {
        "NamespaceExists"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.operation != Operation::Connect && !request.namespace.is_empty() && !request.is("", "namespaces")
    }

    async fn validate(
        &self,
        request: &AdmissionRequest,
        _object: Option<&Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        self.namespaces.get_settled("", &request.namespace).await.map(drop)
    }
}
