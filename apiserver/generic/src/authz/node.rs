//! The Node authorizer: a kubelet reaches its own node, the Pods bound to it, and what those Pods refer to.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use rules::rbac::{PolicyRule, Request};
use serde::Deserialize;
use serde_json::Value;
use storage::cache::Freshness;

use super::{Attributes, Authorizer, Decision};
use crate::{projection::Projection, resource::Resource, user::User, verbs::list::HOT_FIELD};

/// What a Pod refers to.
#[derive(Debug, Default)]
pub struct PodReferences {
    secrets: Vec<String>,
    config_maps: Vec<String>,
    claims: Vec<String>,
    resource_claims: Vec<String>,
    service_account: String,
}

impl<'de> Deserialize<'de> for PodReferences {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::of(&Value::deserialize(deserializer)?))
    }
}

impl PodReferences {
    fn of(pod: &Value) -> Self {
        let mut refs = Self::default();
        let spec = &pod["spec"];
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        refs.service_account = text(&spec["serviceAccountName"]);
        for pull in list(&spec["imagePullSecrets"]) {
            refs.secrets.push(text(&pull["name"]));
        }
        for volume in list(&spec["volumes"]) {
            refs.add_volume(volume, &text(&pod["metadata"]["name"]));
        }
        for kind in ["initContainers", "containers", "ephemeralContainers"] {
            for container in list(&spec[kind]) {
                for from in list(&container["envFrom"]) {
                    refs.secrets.push(text(&from["secretRef"]["name"]));
                    refs.config_maps.push(text(&from["configMapRef"]["name"]));
                }
                for env in list(&container["env"]) {
                    refs.secrets.push(text(&env["valueFrom"]["secretKeyRef"]["name"]));
                    refs.config_maps.push(text(&env["valueFrom"]["configMapKeyRef"]["name"]));
                }
            }
        }
        for status in list(&pod["status"]["resourceClaimStatuses"]) {
            refs.resource_claims.push(text(&status["resourceClaimName"]));
        }
        for claim in list(&spec["resourceClaims"]) {
            refs.resource_claims.push(text(&claim["resourceClaimName"]));
        }
        for names in [&mut refs.secrets, &mut refs.config_maps, &mut refs.claims, &mut refs.resource_claims] {
            names.retain(|n| !n.is_empty());
            names.sort_unstable();
            names.dedup();
            names.shrink_to_fit();
        }
        refs
    }

    fn add_volume(&mut self, volume: &Value, pod: &str) {
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        self.secrets.push(text(&volume["secret"]["secretName"]));
        self.config_maps.push(text(&volume["configMap"]["name"]));
        self.claims.push(text(&volume["persistentVolumeClaim"]["claimName"]));
        if volume.get("ephemeral").is_some() {
            self.claims.push(format!("{pod}-{}", text(&volume["name"])));
        }
        for source in list(&volume["projected"]["sources"]) {
            self.secrets.push(text(&source["secret"]["name"]));
            self.config_maps.push(text(&source["configMap"]["name"]));
        }
        for plugin in ["csi", "flexVolume", "cephfs", "rbd", "scaleIO", "storageos", "iscsi", "azureFile"] {
            let Some(source) = volume.get(plugin) else { continue };
            for field in ["nodePublishSecretRef", "secretRef"] {
                self.secrets.push(text(&source[field]["name"]));
            }
            self.secrets.push(text(&source["secretName"]));
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// What a PersistentVolumeClaim is bound to.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimReferences {
    spec: ClaimSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ClaimSpec {
    volume_name: String,
}

/// The node of a VolumeAttachment.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct AttachmentReferences {
    spec: AttachmentSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AttachmentSpec {
    node_name: String,
}

/// The Node authorizer.
pub struct NodeAuthorizer {
    /// Pods, for their index by node.
    pub pods: Arc<Resource>,
    /// What each Pod refers to.
    pub references: Arc<Projection<PodReferences>>,
    /// Claims.
    pub claims: Arc<Projection<ClaimReferences>>,
    /// VolumeAttachments.
    pub attachments: Arc<Projection<AttachmentReferences>>,
    /// Rules every node has (`system:node`).
    pub rules: Vec<PolicyRule>,
}

#[async_trait]
impl Authorizer for NodeAuthorizer {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        if !attributes.user.in_group("system:nodes") {
            return Decision::NoOpinion(String::new());
        }
        let Some(node) = attributes.user.node_name() else {
            return Decision::NoOpinion(String::new());
        };
        if !attributes.is_resource {
            return self.by_rules(attributes);
        }
        match (attributes.group.as_str(), attributes.resource.as_str()) {
            ("", "secrets") => self.read_reference(node, attributes, |refs, name| has(&refs.secrets, name)).await,
            ("", "configmaps") => {
                self.read_reference(node, attributes, |refs, name| has(&refs.config_maps, name)).await
            }
            ("", "persistentvolumeclaims") => match attributes.subresource.as_str() {
                "status" => self.status_of_claim(node, attributes).await,
                _ => self.get_reference(node, attributes, |refs, name| has(&refs.claims, name)).await,
            },
            ("", "persistentvolumes") => self.get_volume(node, attributes).await,
            ("resource.k8s.io", "resourceclaims") => {
                self.get_reference(node, attributes, |refs, name| has(&refs.resource_claims, name)).await
            }
            ("", "serviceaccounts") => match (attributes.subresource.as_str(), attributes.verb.as_str()) {
                ("token", "create") | ("", "get") => {
                    let related = self.related(node, &attributes.namespace, |r| r.service_account == attributes.name);
                    verdict(related.await, node)
                }
                _ => no("can only get individual resources of this type"),
            },
            ("storage.k8s.io", "volumeattachments") => self.get_attachment(node, attributes),
            ("coordination.k8s.io", "leases") => lease(node, attributes),
            ("storage.k8s.io", "csinodes") => own_object(node, attributes),
            ("", "nodes") => self.nodes(node, attributes),
            ("", "pods") => self.pods_of(node, attributes).await,
            _ => self.by_rules(attributes),
        }
    }

    fn rules_of(&self, _user: &User, _namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        (Vec::new(), vec!["node authorizer does not support user rule resolution".into()])
    }
}

fn has(names: &[String], name: &str) -> bool {
    names.binary_search_by(|n| n.as_str().cmp(name)).is_ok()
}

fn no(why: &str) -> Decision {
    Decision::NoOpinion(why.to_owned())
}

fn verdict(related: bool, node: &str) -> Decision {
    match related {
        true => Decision::Allow(String::new()),
        false => Decision::NoOpinion(format!("no relationship found between node '{node}' and this object")),
    }
}

/// Leases: only the node's own in `kube-node-lease`.
fn lease(node: &str, attributes: &Attributes) -> Decision {
    if !matches!(attributes.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a node lease");
    }
    if attributes.namespace != "kube-node-lease" {
        return no("can only access leases in the \"kube-node-lease\" system namespace");
    }
    if attributes.verb != "create" && attributes.name != node {
        return no("can only access node lease with the same name as the requesting node");
    }
    Decision::Allow(String::new())
}

fn own_object(node: &str, attributes: &Attributes) -> Decision {
    if !matches!(attributes.verb.as_str(), "get" | "create" | "update" | "patch" | "delete") {
        return no("can only get, create, update, patch, or delete a CSINode");
    }
    if attributes.verb != "create" && attributes.name != node {
        return no("can only access CSINode with the same name as the requesting node");
    }
    Decision::Allow(String::new())
}

impl NodeAuthorizer {
    fn by_rules(&self, attributes: &Attributes) -> Decision {
        let request = Request {
            verb: &attributes.verb,
            group: &attributes.group,
            resource: &attributes.resource,
            subresource: &attributes.subresource,
            name: &attributes.name,
            path: &attributes.path,
            is_resource: attributes.is_resource,
        };
        match self.rules.iter().any(|rule| rule.allows(&request)) {
            true => Decision::Allow(String::new()),
            false => Decision::NoOpinion(String::new()),
        }
    }

    /// get, list and watch of one named object.
    async fn read_reference(
        &self,
        node: &str,
        attributes: &Attributes,
        refers: impl Fn(&PodReferences, &str) -> bool,
    ) -> Decision {
        if !matches!(attributes.verb.as_str(), "get" | "list" | "watch") {
            return no("can only read resources of this type");
        }
        if !attributes.subresource.is_empty() {
            return no("cannot read subresource");
        }
        if attributes.namespace.is_empty() {
            return no("can only read namespaced object of this type");
        }
        if attributes.name.is_empty() {
            return no("No Object name found");
        }
        verdict(self.related(node, &attributes.namespace, |r| refers(r, &attributes.name)).await, node)
    }

    async fn get_reference(
        &self,
        node: &str,
        attributes: &Attributes,
        refers: impl Fn(&PodReferences, &str) -> bool,
    ) -> Decision {
        if attributes.verb != "get" || attributes.name.is_empty() || !attributes.subresource.is_empty() {
            return no("can only get individual resources of this type");
        }
        verdict(self.related(node, &attributes.namespace, |r| refers(r, &attributes.name)).await, node)
    }

    async fn status_of_claim(&self, node: &str, attributes: &Attributes) -> Decision {
        if !matches!(attributes.verb.as_str(), "get" | "update" | "patch") {
            return no("can only get, update, or patch status of this type");
        }
        verdict(self.related(node, &attributes.namespace, |r| has(&r.claims, &attributes.name)).await, node)
    }

    async fn get_volume(&self, node: &str, attributes: &Attributes) -> Decision {
        if attributes.verb != "get" || attributes.name.is_empty() || !attributes.subresource.is_empty() {
            return no("can only get individual resources of this type");
        }
        for (key, references) in self.references_of(node).await {
            let namespace = key.split('/').next().unwrap_or("");
            let bound = |claim: &String| {
                self.claims.get(namespace, claim).is_some_and(|c| c.spec.volume_name == attributes.name)
            };
            if references.claims.iter().any(bound) {
                return Decision::Allow(String::new());
            }
        }
        verdict(false, node)
    }

    fn get_attachment(&self, node: &str, attributes: &Attributes) -> Decision {
        if attributes.verb != "get" || attributes.name.is_empty() {
            return no("can only get individual resources of this type");
        }
        let attached = self.attachments.get("", &attributes.name).is_some_and(|a| a.spec.node_name == node);
        verdict(attached, node)
    }

    /// Nodes read themselves only; writes are narrowed further by NodeRestriction.
    fn nodes(&self, node: &str, attributes: &Attributes) -> Decision {
        let names_other = !attributes.name.is_empty() && attributes.name != node;
        match attributes.verb.as_str() {
            "get" if names_other => verdict(false, node),
            "list" | "watch" if attributes.name != node => no("can only read its own node"),
            "update" | "patch" if names_other => verdict(false, node),
            _ => self.by_rules(attributes),
        }
    }

    /// Pods are read when bound to the node; lists and watches must select the node.
    async fn pods_of(&self, node: &str, attributes: &Attributes) -> Decision {
        if matches!(attributes.verb.as_str(), "list" | "watch") && attributes.subresource.is_empty() {
            return match attributes.selectors.requires_field("spec.nodeName", node) {
                true => Decision::Allow(String::new()),
                false => no("can only list/watch pods with spec.nodeName field selector"),
            };
        }
        if attributes.verb != "get" || attributes.name.is_empty() {
            return self.by_rules(attributes);
        }
        match self.pods.get(&attributes.namespace, &attributes.name, Freshness::Any).await {
            Ok(pod) if pod.index.field(HOT_FIELD) == Some(node) => Decision::Allow(String::new()),
            // A 404 tells a node nothing.
            Err(error) if error.is_not_found() => Decision::Allow(String::new()),
            _ => verdict(false, node),
        }
    }

    async fn related(&self, node: &str, namespace: &str, refers: impl Fn(&PodReferences) -> bool) -> bool {
        let found = self.references_of(node).await;
        found
            .iter()
            .any(|(key, refs)| key.strip_prefix(namespace).is_some_and(|rest| rest.starts_with('/')) && refers(refs))
    }

    /// The references of all Pods of a node, by `namespace/name`.
    async fn references_of(&self, node: &str) -> HashMap<String, Arc<PodReferences>> {
        let Ok(prefix) = self.pods.key_prefix("") else { return HashMap::new() };
        let Ok(snapshot) = self.pods.cache().list(&prefix, Freshness::Any).await else { return HashMap::new() };
        let Some(pods) = snapshot.by_field(HOT_FIELD, node, None) else { return HashMap::new() };
        pods.filter_map(|(_, pod)| {
            let (namespace, name) = (pod.index.namespace(), pod.index.name());
            self.references.get(namespace, name).map(|refs| (format!("{namespace}/{name}"), refs))
        })
        .collect()
    }
}
