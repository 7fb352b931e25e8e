//! From a manifest to a static Pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, Toleration};
use serde_json::Value;

use super::SourceName;
use crate::pods;

/// A manifest that cannot be run.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ManifestError {
    /// Not YAML or JSON of a Pod.
    #[error("couldn't parse as pod: {0}")]
    Decode(String),
    /// Refers to objects of the API.
    #[error("static pods may not reference {0}")]
    Reference(&'static str),
    /// Lacks something.
    #[error("invalid pod: {0}")]
    Invalid(String),
}

/// Where a manifest was found.
#[derive(Clone, Debug)]
pub struct Origin<'a> {
    /// Which source.
    pub source: SourceName,
    /// Path or address, part of the UID.
    pub place: &'a str,
    /// Node name.
    pub node: &'a str,
}

/// Reads YAML or JSON; a list of Pods is allowed where `lists` says so.
pub fn decode(bytes: &[u8], lists: bool) -> Result<Vec<Value>, ManifestError> {
    let value: Value = serde_yaml::from_slice(bytes).map_err(|error| ManifestError::Decode(error.to_string()))?;
    let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    match (kind, lists) {
        ("Pod", _) => Ok(vec![value]),
        ("PodList", true) => {
            let items = value.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
            Ok(items)
        }
        _ => Err(ManifestError::Decode(format!("invalid pod: kind {kind:?}"))),
    }
}

/// Makes it a Pod of this node.
pub fn prepare(value: &Value, origin: &Origin<'_>) -> Result<Pod, ManifestError> {
    let mut value = value.clone();
    default_pod(&mut value);
    let mut pod: Pod =
        serde_json::from_value(value.clone()).map_err(|error| ManifestError::Decode(error.to_string()))?;
    check(&pod)?;
    let node = origin.node.to_lowercase();
    let hash = fingerprint(&value, &node, origin.place);
    let metadata = &mut pod.metadata;
    if metadata.uid.as_deref().is_none_or(str::is_empty) {
        metadata.uid = Some(hash);
    }
    metadata.name = Some(format!("{}-{node}", metadata.name.clone().unwrap_or_default()));
    metadata.namespace.get_or_insert_with(|| "default".to_owned());
    let uid = metadata.uid.clone().unwrap_or_default();
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(pods::CONFIG_HASH.to_owned(), uid);
    annotations.insert(pods::CONFIG_SOURCE.to_owned(), origin.source.as_str().to_owned());
    annotations.insert(pods::CONFIG_SEEN.to_owned(), jiff::Timestamp::now().to_string());
    pod.status = None;
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(origin.node.to_owned());
    if origin.source == SourceName::File {
        let all = Toleration {
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            ..Toleration::default()
        };
        let tolerations = spec.tolerations.get_or_insert_default();
        if !tolerations.contains(&all) {
            tolerations.push(all);
        }
    }
    Ok(pod)
}

/// Defaults that the API would have set.
fn default_pod(value: &mut Value) {
    let fill = |object: &mut Value, key: &str, default: Value| {
        if let Some(map) = object.as_object_mut() {
            map.entry(key.to_owned()).or_insert(default);
        }
    };
    let Some(spec) = value.get_mut("spec") else { return };
    for (key, default) in [
        ("restartPolicy", Value::from("Always")),
        ("dnsPolicy", Value::from("ClusterFirst")),
        ("terminationGracePeriodSeconds", Value::from(30)),
        ("schedulerName", Value::from("default-scheduler")),
        ("enableServiceLinks", Value::from(true)),
        ("securityContext", Value::Object(serde_json::Map::new())),
    ] {
        fill(spec, key, default);
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            fill(container, "terminationMessagePath", Value::from("/dev/termination-log"));
            fill(container, "terminationMessagePolicy", Value::from("File"));
        }
    }
}

fn check(pod: &Pod) -> Result<(), ManifestError> {
    let invalid = |text: &str| Err(ManifestError::Invalid(text.to_owned()));
    if pods::name(pod).is_empty() {
        return invalid("metadata.name: Required value: name or generateName is required");
    }
    if pods::containers(pod).is_empty() {
        return invalid("spec.containers: Required value");
    }
    let mut names = std::collections::BTreeSet::new();
    for (container, _) in pods::all_containers(pod) {
        if container.name.is_empty() || container.name.contains(['/', '\0']) || container.name.starts_with('.') {
            return invalid("spec.containers[].name: Invalid value");
        }
        if !names.insert(container.name.clone()) {
            return invalid("spec.containers[].name: Duplicate value");
        }
    }
    let safe = |text: &str| !text.contains(['/', '\0']) && text != "." && text != "..";
    if !safe(pods::name(pod)) || !safe(pods::namespace(pod)) || !safe(pods::uid(pod)) {
        return invalid("metadata: Invalid value");
    }
    for volume in pods::spec(pod).volumes.iter().flatten() {
        if !safe(&volume.name) || volume.name.is_empty() {
            return invalid("spec.volumes[].name: Invalid value");
        }
    }
    match api_reference(pod) {
        Some(what) => Err(ManifestError::Reference(what)),
        None => Ok(()),
    }
}

/// What of the API a Pod refers to, if anything.
fn api_reference(pod: &Pod) -> Option<&'static str> {
    let spec = pods::spec(pod);
    if spec.service_account_name.as_deref().is_some_and(|name| !name.is_empty()) {
        return Some("serviceaccounts");
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return Some("resourceclaims");
    }
    if !spec.image_pull_secrets.as_deref().unwrap_or_default().is_empty() {
        return Some("secrets");
    }
    for (container, _) in pods::all_containers(pod) {
        for from in container.env_from.iter().flatten() {
            if from.config_map_ref.is_some() {
                return Some("configmaps");
            }
            if from.secret_ref.is_some() {
                return Some("secrets");
            }
        }
        for source in container.env.iter().flatten().filter_map(|env| env.value_from.as_ref()) {
            if source.config_map_key_ref.is_some() {
                return Some("configmaps");
            }
            if source.secret_key_ref.is_some() {
                return Some("secrets");
            }
        }
    }
    for volume in spec.volumes.iter().flatten() {
        if volume.config_map.is_some() {
            return Some("configmaps");
        }
        if volume.secret.is_some() {
            return Some("secrets");
        }
        if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
            return Some("persistentvolumeclaims");
        }
        if let Some(projected) = &volume.projected {
            for source in projected.sources.iter().flatten() {
                if source.config_map.is_some() {
                    return Some("configmaps");
                }
                if source.secret.is_some() {
                    return Some("secrets");
                }
                if source.service_account_token.is_some() {
                    return Some("serviceaccounts");
                }
                if source.cluster_trust_bundle.is_some() {
                    return Some("clustertrustbundles");
                }
            }
        }
    }
    None
}

/// FNV-1a of 128 bits over the object, the node and the place.
fn fingerprint(value: &Value, node: &str, place: &str) -> String {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    // Keys are sorted, so that only a change of content changes the identity.
    let sorted: BTreeMap<String, Value> = value.as_object().cloned().unwrap_or_default().into_iter().collect();
    let text = serde_json::to_string(&sorted).unwrap_or_default();
    let bytes = text.bytes().chain(format!("host:{node}file:{place}").into_bytes());
    let hash = bytes.fold(OFFSET, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME));
    format!("{hash:032x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin<'static> {
        Origin { source: SourceName::File, place: "/m/a.yaml", node: "Node1" }
    }

    fn one(yaml: &str) -> Result<Pod, ManifestError> {
        prepare(&decode(yaml.as_bytes(), false)?[0], &origin())
    }

    #[test]
    fn identity_and_marks() {
        let yaml = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: c, image: i}]}\n";
        let pod = one(yaml).unwrap();
        assert_eq!((pods::name(&pod), pods::namespace(&pod)), ("web-node1", "default"));
        assert_eq!(pods::uid(&pod).len(), 32);
        assert_eq!(pods::annotation(&pod, pods::CONFIG_HASH), Some(pods::uid(&pod)));
        assert!(pods::is_static(&pod));
        assert_eq!(pods::spec(&pod).tolerations.as_ref().unwrap()[0].effect.as_deref(), Some("NoExecute"));
        assert_eq!(pods::uid(&one(yaml).unwrap()), pods::uid(&pod));
        assert_ne!(pods::uid(&one(&yaml.replace("image: i", "image: j")).unwrap()), pods::uid(&pod));
    }

    #[test]
    fn references_and_nonsense_are_refused() {
        let secret = "kind: Pod\nmetadata: {name: w}\nspec: {containers: [{name: c}], volumes: [{name: v, secret: {secretName: s}}]}";
        assert_eq!(one(secret).unwrap_err(), ManifestError::Reference("secrets"));
        assert!(one("kind: Pod\nmetadata: {name: ../x}\nspec: {containers: [{name: c}]}").is_err());
        assert!(one("kind: Pod\nmetadata: {name: x, uid: ../../etc}\nspec: {containers: [{name: c}]}").is_err());
        assert!(decode(b"kind: Deployment", false).is_err());
        assert!(decode(b"{{{", false).is_err());
    }
}
