//! NodeRestriction: a kubelet changes its own Node, the mirror and status of its own Pods, and nothing else.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use generic::{
    admission::{AdmissionRequest, Operation, Plugin},
    authz::{Attributes, Authorizer, Decision},
    resource::{Resource, Stored},
};
use machinery::{ApiResult, meta};
use serde_json::{Map, Value};
use x509_parser::{certification_request::X509CertificationRequest, pem::parse_x509_pem, prelude::FromDer};

const NODES_GROUP: &str = "system:nodes";
const MIRROR: &str = "kubernetes.io/config.mirror";
const LEASES: &str = "kube-node-lease";
/// Labels of the reserved domains that kubelets set.
const OWN_LABELS: [&str; 14] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "kubernetes.io/instance-type",
    "failure-domain.kubernetes.io/zone",
    "failure-domain.kubernetes.io/region",
];

/// The plugin.
pub(super) struct NodeRestriction {
    pub(super) pods: Arc<Resource>,
    pub(super) nodes: Arc<Resource>,
    pub(super) authorizer: Arc<dyn Authorizer>,
}

type Verdict = Result<(), String>;

#[async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.user.in_group(NODES_GROUP) && request.operation != Operation::Connect
    }

    async fn admit(
        &self,
        request: &AdmissionRequest,
        object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> ApiResult<()> {
        let object = object.as_deref();
        let reject = |why: String| request.reject(object, &why);
        let Some(node) = request.user.node_name() else {
            return Err(reject(format!("could not determine node from user {:?}", request.user.name)));
        };
        let (group, resource) = (request.resource.group.as_str(), request.resource.resource.as_str());
        let verdict = match (group, resource, request.subresource.as_str()) {
            ("", "pods", "") => match request.operation {
                Operation::Create => self.create_pod(node, object).await?,
                Operation::Delete => self.own_pod(request, node, "delete pods").await?,
                _ => Err(unexpected(request, node, "create and delete mirror pods")),
            },
            ("", "pods", "status") => status(node, object, old),
            ("", "pods", "eviction") => self.own_pod(request, node, "evict pods").await?,
            ("", "nodes", _) => own_node(request, node, object, old),
            ("", "persistentvolumeclaims", "status") => claim(object, old),
            ("", "serviceaccounts", "token") => self.token(request, node, object).await?,
            ("coordination.k8s.io", "leases", _) => lease(request, node, object),
            ("storage.k8s.io", "csinodes", _) => csi_node(request, node, object),
            ("resource.k8s.io", "resourceslices", _) => slice(request, node, object, old),
            ("certificates.k8s.io", "certificatesigningrequests", "") if request.operation == Operation::Create => {
                certificate(node, object)
            }
            _ => Ok(()),
        };
        verdict.map_err(reject)
    }
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn unexpected(request: &AdmissionRequest, node: &str, may: &str) -> String {
    let operation = match request.operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    };
    format!("unexpected operation {operation:?}, node {node:?} can only {may}")
}

fn status(node: &str, object: Option<&Value>, old: Option<&Value>) -> Verdict {
    let (Some(new), Some(old)) = (object, old) else { return Ok(()) };
    if text(old, "/spec/nodeName") != node {
        return Err(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
    }
    if new.pointer("/metadata/labels") != old.pointer("/metadata/labels") {
        return Err(format!("node {node:?} cannot update labels through pod status"));
    }
    Ok(())
}

impl NodeRestriction {
    async fn create_pod(&self, node: &str, object: Option<&Value>) -> ApiResult<Verdict> {
        let Some(pod) = object else { return Ok(Ok(())) };
        if !meta::text_map(pod, "annotations").any(|(key, _)| key == MIRROR) {
            let text = format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods");
            return Ok(Err(text));
        }
        if text(pod, "/spec/nodeName") != node {
            return Ok(Err(format!("node {node:?} can only create pods with spec.nodeName set to itself")));
        }
        let uid = self.nodes.starting_point("", node).await?.map(|n| meta::uid(&n.object).to_owned());
        Ok(owner(pod, node, uid.as_deref()).and_then(|()| references(pod, node)))
    }

    async fn own_pod(&self, request: &AdmissionRequest, node: &str, what: &str) -> ApiResult<Verdict> {
        let pod: Option<Stored> = self.pods.starting_point(&request.namespace, &request.name).await?;
        Ok(match pod {
            Some(pod) if text(&pod.object, "/spec/nodeName") != node => {
                Err(format!("node {node:?} can only {what} with spec.nodeName set to itself"))
            }
            // A Pod that is gone is for the verb to answer.
            _ => Ok(()),
        })
    }

    async fn token(&self, request: &AdmissionRequest, node: &str, object: Option<&Value>) -> ApiResult<Verdict> {
        let Some(token) = object else { return Ok(Ok(())) };
        let unbound = "node requested token not bound to a pod".to_owned();
        let (name, uid) = (text(token, "/spec/boundObjectRef/name"), text(token, "/spec/boundObjectRef/uid"));
        if text(token, "/spec/boundObjectRef/kind") != "Pod" || name.is_empty() {
            return Ok(Err(unbound));
        }
        if uid.is_empty() {
            return Ok(Err("node requested token with a pod binding without a uid".into()));
        }
        let Some(pod) = self.pods.starting_point(&request.namespace, name).await? else { return Ok(Err(unbound)) };
        if meta::uid(&pod.object) != uid {
            let text = format!("the UID in the bound object reference ({uid}) does not match the UID in record");
            return Ok(Err(text));
        }
        if text(&pod.object, "/spec/nodeName") != node {
            return Ok(Err("node requested token bound to a pod scheduled on a different node".into()));
        }
        self.audiences(request, token, &pod.object).await
    }

    /// Every audience stands in a token projection of the Pod, or RBAC lets the node ask for it.
    async fn audiences(&self, request: &AdmissionRequest, token: &Value, pod: &Value) -> ApiResult<Verdict> {
        let audience = match asked_audience(token) {
            Err(text) => return Ok(Err(text)),
            Ok(None) => return Ok(Ok(())),
            Ok(Some(audience)) if projects(pod, &audience) => return Ok(Ok(())),
            Ok(Some(audience)) => audience,
        };
        let attributes = Attributes {
            user: request.user.clone(),
            verb: "request-serviceaccounts-token-audience".into(),
            resource: audience.clone(),
            name: request.name.clone(),
            namespace: request.namespace.clone(),
            is_resource: true,
            ..Attributes::default()
        };
        Ok(match self.authorizer.authorize(&attributes).await {
            Decision::Allow(_) => Ok(()),
            _ => Err(format!("audience {audience:?} not found in pod spec volume")),
        })
    }
}

/// The audience that a TokenRequest names, if it is not the API's.
fn asked_audience(token: &Value) -> Result<Option<String>, String> {
    let asked = token.pointer("/spec/audiences").and_then(Value::as_array).into_iter().flatten();
    let mut asked = asked.filter_map(Value::as_str).filter(|audience| !audience.is_empty());
    match (asked.next(), asked.next()) {
        (_, Some(_)) => Err("node may only request 0 or 1 audiences".into()),
        (first, None) => Ok(first.map(str::to_owned)),
    }
}

/// Whether a Pod has a token projection for an audience.
fn projects(pod: &Value, audience: &str) -> bool {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array).into_iter().flatten();
    let mut sources = volumes.flat_map(|v| v.pointer("/projected/sources").and_then(Value::as_array)).flatten();
    sources.any(|source| text(source, "/serviceAccountToken/audience") == audience)
}

fn owner(pod: &Value, node: &str, uid: Option<&str>) -> Verdict {
    let owners = pod.pointer("/metadata/ownerReferences").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let [owner] = owners else {
        return Err(format!("node {node:?} can only create pods with a single owner reference set to itself"));
    };
    let is_self = owner["apiVersion"] == "v1" && owner["kind"] == "Node" && owner["name"] == node;
    if !is_self {
        return Err(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return Err(format!("node {node:?} can only create pods with a controller owner reference set to itself"));
    }
    if owner["blockOwnerDeletion"] == true {
        return Err(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    match uid {
        Some(uid) if owner["uid"] == uid => Ok(()),
        _ => Err(format!("node {node:?} UID mismatch: expected {}", uid.unwrap_or("none"))),
    }
}

/// Mirror Pods refer to nothing that would give their node access to it.
fn references(pod: &Value, node: &str) -> Verdict {
    let refuse = |what: &str| Err(format!("node {node:?} can not create pods that reference {what}"));
    if !text(pod, "/spec/serviceAccountName").is_empty() {
        return refuse("a service account");
    }
    if pod.pointer("/spec/resourceClaims").and_then(Value::as_array).is_some_and(|claims| !claims.is_empty()) {
        return refuse("resourceclaims");
    }
    let of = |key: &str| mentions(&pod["spec"], key);
    if of("secretRef") || of("secretKeyRef") || of("secret") || of("imagePullSecrets") {
        return refuse("secrets");
    }
    if of("configMapRef") || of("configMapKeyRef") || of("configMap") {
        return refuse("configmaps");
    }
    if of("persistentVolumeClaim") {
        return refuse("persistentvolumeclaims");
    }
    if of("serviceAccountToken") {
        return refuse("a service account token");
    }
    Ok(())
}

/// Whether a field of this name stands anywhere in a tree, with something in it.
fn mentions(tree: &Value, key: &str) -> bool {
    match tree {
        Value::Object(map) => map.iter().any(|(name, value)| {
            let said = !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty());
            (name == key && said) || mentions(value, key)
        }),
        Value::Array(list) => list.iter().any(|item| mentions(item, key)),
        _ => false,
    }
}

fn own_node(request: &AdmissionRequest, node: &str, object: Option<&Value>, old: Option<&Value>) -> Verdict {
    let name = object.map(meta::name).filter(|name| !name.is_empty()).unwrap_or(&request.name);
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    let Some(new) = object else { return Ok(()) };
    let empty = Value::Null;
    let before = old.unwrap_or(&empty);
    let modified = changed_labels(before, new);
    let forbidden: Vec<&str> = modified.iter().copied().filter(|label| !may_set(label)).collect();
    if !forbidden.is_empty() {
        let what = if old.is_none() { "set the following labels" } else { "modify labels" };
        return Err(format!("node {node:?} is not allowed to {what}: {}", forbidden.join(", ")));
    }
    if let Some(old) = old {
        let differs = |pointer: &str| said(new.pointer(pointer)) != said(old.pointer(pointer));
        if differs("/spec/taints") {
            return Err(format!("node {node:?} is not allowed to modify taints"));
        }
        if differs("/metadata/ownerReferences") {
            return Err(format!("node {node:?} is not allowed to modify ownerReferences"));
        }
    } else if said(new.pointer("/metadata/ownerReferences")).is_some() {
        return Err(format!("node {node:?} is not allowed to set ownerReferences"));
    }
    Ok(())
}

/// An empty list says as little as none.
fn said(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()))
}

fn changed_labels<'a>(old: &'a Value, new: &'a Value) -> BTreeSet<&'a str> {
    let of = |object: &'a Value| object.pointer("/metadata/labels").and_then(Value::as_object);
    let (old, new) = (of(old), of(new));
    let keys = old.into_iter().chain(new).flat_map(Map::keys);
    keys.filter(|key| old.and_then(|l| l.get(*key)) != new.and_then(|l| l.get(*key))).map(String::as_str).collect()
}

fn in_domain(prefix: &str, domain: &str) -> bool {
    prefix == domain || prefix.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

/// Whether a kubelet may set a label on its Node.
fn may_set(label: &str) -> bool {
    let Some((prefix, _)) = label.split_once('/') else { return true };
    if in_domain(prefix, "node-restriction.kubernetes.io") {
        return false;
    }
    let reserved = in_domain(prefix, "kubernetes.io") || in_domain(prefix, "k8s.io");
    let own = in_domain(prefix, "kubelet.kubernetes.io") || in_domain(prefix, "node.kubernetes.io");
    !reserved || own || OWN_LABELS.contains(&label)
}

fn claim(object: Option<&Value>, old: Option<&Value>) -> Verdict {
    let (Some(new), Some(old)) = (object, old) else { return Ok(()) };
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        meta::metadata_mut(&mut claim).remove("managedFields");
        let status = meta::object_mut(&mut claim["status"]);
        for field in ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"] {
            status.remove(field);
        }
        claim
    };
    if rest(new) == rest(old) {
        return Ok(());
    }
    Err("node is not allowed to update fields other than status.capacity and status.conditions".into())
}

fn lease(request: &AdmissionRequest, node: &str, object: Option<&Value>) -> Verdict {
    if request.namespace != LEASES {
        return Err(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    let name = object.map(meta::name).filter(|name| !name.is_empty()).unwrap_or(&request.name);
    if name != node {
        return Err("can only access node lease with the same name as the requesting node".into());
    }
    Ok(())
}

fn csi_node(request: &AdmissionRequest, node: &str, object: Option<&Value>) -> Verdict {
    let name = object.map(meta::name).filter(|name| !name.is_empty()).unwrap_or(&request.name);
    if name == node { Ok(()) } else { Err("can only access CSINode with the same name as the requesting node".into()) }
}

fn slice(request: &AdmissionRequest, node: &str, object: Option<&Value>, old: Option<&Value>) -> Verdict {
    let (subject, what) = match request.operation {
        Operation::Create => (object, "create"),
        Operation::Delete => (old, "delete"),
        _ => return Ok(()),
    };
    if subject.is_some_and(|slice| text(slice, "/spec/nodeName") != node) {
        return Err(format!("can only {what} ResourceSlice with the same NodeName as the requesting node"));
    }
    Ok(())
}

/// Certificates for kubelets are asked for by the node that they name.
fn certificate(node: &str, object: Option<&Value>) -> Verdict {
    let Some(request) = object else { return Ok(()) };
    let signer = text(request, "/spec/signerName");
    if !matches!(signer, "kubernetes.io/kubelet-serving" | "kubernetes.io/kube-apiserver-client-kubelet") {
        return Ok(());
    }
    let unreadable = || "unable to parse csr".to_owned();
    let pem = STANDARD.decode(text(request, "/spec/request")).map_err(|_| unreadable())?;
    let (_, pem) = parse_x509_pem(&pem).map_err(|_| unreadable())?;
    let (_, csr) = X509CertificationRequest::from_der(&pem.contents).map_err(|_| unreadable())?;
    let mut names = csr.certification_request_info.subject.iter_common_name();
    let wanted = format!("system:node:{node}");
    if names.next().and_then(|name| name.as_str().ok()) == Some(&wanted) {
        return Ok(());
    }
    Err(format!("can only create a node CSR with CN={wanted}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels() {
        for (label, allowed) in [
            ("team", true),
            ("example.com/a", true),
            ("kubernetes.io/hostname", true),
            ("node.kubernetes.io/anything", true),
            ("x.kubelet.kubernetes.io/y", true),
            ("kubernetes.io/role", false),
            ("node-role.kubernetes.io/control-plane", false),
            ("node-restriction.kubernetes.io/x", false),
            ("foo.k8s.io/x", false),
        ] {
            assert_eq!(may_set(label), allowed, "{label}");
        }
    }

    #[test]
    fn mirror_pods_give_no_access() {
        let pod = |spec: Value| json!({"spec": spec});
        assert_eq!(references(&pod(json!({"volumes": [{"name": "h", "hostPath": {"path": "/"}}]})), "n"), Ok(()));
        assert_eq!(references(&pod(json!({"imagePullSecrets": []})), "n"), Ok(()));
        for spec in [
            json!({"volumes": [{"secret": {"secretName": "s"}}]}),
            json!({"containers": [{"envFrom": [{"configMapRef": {"name": "c"}}]}]}),
            json!({"serviceAccountName": "default"}),
            json!({"resourceClaims": [{"name": "c"}]}),
            json!({"volumes": [{"persistentVolumeClaim": {"claimName": "c"}}]}),
            json!({"volumes": [{"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
        ] {
            assert!(references(&pod(spec.clone()), "n").is_err(), "{spec}");
        }
    }

    #[test]
    fn mirror_pods_belong_to_their_node() {
        let pod = |owner: Value| json!({"metadata": {"ownerReferences": [owner]}});
        let good = json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u", "controller": true});
        assert_eq!(owner(&pod(good.clone()), "n", Some("u")), Ok(()));
        assert!(owner(&pod(good.clone()), "n", Some("other")).is_err());
        assert!(owner(&pod(good), "m", Some("u")).is_err());
        assert!(owner(&json!({}), "n", Some("u")).is_err());
    }

    #[test]
    fn statuses_are_of_own_pods() {
        let pod = |node: &str, labels: Value| json!({"metadata": {"labels": labels}, "spec": {"nodeName": node}});
        let (own, other) = (pod("n", json!({})), pod("m", json!({})));
        assert_eq!(status("n", Some(&own), Some(&own)), Ok(()));
        assert!(status("n", Some(&other), Some(&other)).is_err());
        assert!(status("n", Some(&pod("n", json!({"a": "b"}))), Some(&own)).is_err());
    }
}
