//! Plugins that only fill in: tolerations, taints of new nodes, default classes.

use std::sync::Arc;

use async_trait::async_trait;
use generic::{
    admission::{AdmissionRequest, Operation, Plugin},
    resource::{Resource, decode_cached},
};
use machinery::{ApiResult, meta};
use serde_json::{Value, json};
use storage::cache::Freshness;

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// How long Pods stay on a lost node, seconds.
const TOLERATION_SECONDS: i64 = 300;

/// Lets every Pod tolerate lost nodes for five minutes.
pub(super) struct DefaultTolerationSeconds;

#[async_trait]
impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.is("", "pods")
            && request.subresource.is_empty()
            && matches!(request.operation, Operation::Create | Operation::Update)
    }

    async fn admit(
        &self,
        _request: &AdmissionRequest,
        object: Option<&mut Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let Some(pod) = object else { return Ok(()) };
        let spec = meta::object_mut(&mut pod["spec"]);
        let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
        let Some(list) = tolerations.as_array_mut() else { return Ok(()) };
        for key in [NOT_READY, UNREACHABLE] {
            let tolerated = list.iter().any(|t| {
                let text = |field: &str| t.get(field).and_then(Value::as_str).unwrap_or("");
                (text("key") == key || text("key").is_empty()) && matches!(text("effect"), "NoExecute" | "")
            });
            if !tolerated {
                list.push(json!({
                    "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS,
                }));
            }
        }
        Ok(())
    }
}

/// Taints new nodes until they are ready.
pub(super) struct TaintNodesByCondition;

#[async_trait]
impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.is("", "nodes") && request.subresource.is_empty() && request.operation == Operation::Create
    }

    async fn admit(
        &self,
        _request: &AdmissionRequest,
        object: Option<&mut Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let Some(node) = object else { return Ok(()) };
        let taints = meta::object_mut(&mut node["spec"]).entry("taints").or_insert_with(|| json!([]));
        if let Some(list) = taints.as_array_mut() {
            let present = list.iter().any(|t| t["key"] == NOT_READY && t["effect"] == "NoSchedule");
            if !present {
                list.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            }
        }
        Ok(())
    }
}

/// The newest class that one of the annotations marks as default; of equals the first by name.
async fn default_class(classes: &Resource, annotations: &[&str]) -> ApiResult<Option<String>> {
    let prefix = classes.key_prefix("")?;
    let listed = classes.cache().list(&prefix, Freshness::Any).await;
    let snapshot = listed.map_err(|e| classes.store_error(e))?;
    let mut marked: Vec<(String, String)> = Vec::new();
    for (_, cached) in snapshot.range(None) {
        let class = decode_cached(cached)?.object;
        if meta::text_map(&class, "annotations").any(|(k, v)| annotations.contains(&k) && v == "true") {
            marked.push((meta::text(&class, "creationTimestamp").to_owned(), meta::name(&class).to_owned()));
        }
    }
    marked.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    Ok(marked.into_iter().next().map(|(_, name)| name))
}

/// Gives claims without a class the default one.
pub(super) struct DefaultStorageClass {
    pub(super) classes: Arc<Resource>,
}

const STORAGE_MARKS: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.is("", "persistentvolumeclaims")
            && request.subresource.is_empty()
            && request.operation == Operation::Create
    }

    async fn admit(
        &self,
        _request: &AdmissionRequest,
        object: Option<&mut Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let Some(claim) = object else { return Ok(()) };
        let annotated =
            meta::text_map(claim, "annotations").any(|(k, _)| k == "volume.beta.kubernetes.io/storage-class");
        if annotated || claim.pointer("/spec/storageClassName").is_some_and(|c| !c.is_null()) {
            return Ok(());
        }
        if let Some(class) = default_class(&self.classes, &STORAGE_MARKS).await? {
            claim["spec"]["storageClassName"] = json!(class);
        }
        Ok(())
    }
}

/// Gives Ingresses without a class the default one.
pub(super) struct DefaultIngressClass {
    pub(super) classes: Arc<Resource>,
}

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.is("networking.k8s.io", "ingresses")
            && request.subresource.is_empty()
            && request.operation == Operation::Create
    }

    async fn admit(
        &self,
        _request: &AdmissionRequest,
        object: Option<&mut Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let Some(ingress) = object else { return Ok(()) };
        let annotated = meta::text_map(ingress, "annotations").any(|(k, _)| k == "kubernetes.io/ingress.class");
        if annotated || ingress.pointer("/spec/ingressClassName").is_some_and(|c| !c.is_null()) {
            return Ok(());
        }
        let marks = ["ingressclass.kubernetes.io/is-default-class"];
        if let Some(class) = default_class(&self.classes, &marks).await? {
            ingress["spec"]["ingressClassName"] = json!(class);
        }
        Ok(())
    }
}
