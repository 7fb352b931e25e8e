//! Pods: the spec they share with templates, and what may change of a stored one.

mod container;
mod environment;
mod ephemeral;
mod mounts;
mod probes;
mod profiles;
mod resize;
mod resources;
mod restart;
mod scheduling;
mod security;
mod status;
mod update;
mod volumes;

use std::collections::HashSet;

use machinery::{
    field::{ErrorList, Path},
    meta, names,
};
use serde_json::{Value, json};

pub(super) use self::{
    ephemeral::update as ephemeral_update,
    resize::resize,
    resources::overhead,
    scheduling::{node_selector, tolerations},
    status::status,
    update::update,
    volumes::{network_source, one_source},
};
use super::{
    checks::{choice, enumeration, ip, labels, within},
    read::{is_true, list, present, text},
    spec_path,
};

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const CONTAINER_LISTS: [&str; 2] = ["containers", "initContainers"];
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_TEXT: usize = 2048;
const MAX_HOSTNAME: usize = 64;
const SPEC_NAMES: [&str; 2] = ["serviceAccountName", "nodeName"];

/// Checks what every Pod obeys.
pub(super) fn pod(pod: &Value, errors: &mut ErrorList) {
    let path = spec_path();
    let none = Value::Null;
    let own = pod.get("spec").unwrap_or(&none);
    let annotations = pod.pointer("/metadata/annotations").unwrap_or(&none);
    pod_annotations(annotations, own, &Path::new("metadata").child("annotations"), errors);
    let name = meta::name(pod);
    spec(own, Some(name), &path, errors);
    if text(own, "serviceAccountName").is_empty() {
        no_tokens(own, &path.child("volumes"), errors);
    }
    trimmed_images(own, &path, errors);
}

/// Checks what only a new Pod obeys.
pub(super) fn new_pod(pod: &Value, errors: &mut ErrorList) {
    let path = spec_path();
    let none = Value::Null;
    let spec = pod.get("spec").unwrap_or(&none);
    if !list(spec, "ephemeralContainers").is_empty() {
        errors.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
    }
    if !text(spec, "nodeName").is_empty() && !list(spec, "schedulingGates").is_empty() {
        errors.forbidden(&path.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
    profiles::agree(pod, &path, errors);
}

/// Checks a template; `path` is its own.
pub(super) fn template(template: &Value, path: &Path, errors: &mut ErrorList) {
    let none = Value::Null;
    let own = template.get("spec").unwrap_or(&none);
    template_metadata(template, path, errors);
    let path = path.child("spec");
    spec(own, None, &path, errors);
    if !list(own, "ephemeralContainers").is_empty() {
        errors.forbidden(&path.child("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

/// Checks labels and annotations of a template. Their paths leave `metadata` out.
pub(super) fn template_metadata(template: &Value, path: &Path, errors: &mut ErrorList) {
    let none = Value::Null;
    let metadata = template.get("metadata").unwrap_or(&none);
    labels(metadata.get("labels"), &path.child("labels"), errors);
    let path = path.child("annotations");
    crate::metadata::annotations(template, &path, errors);
    let annotations = metadata.get("annotations").unwrap_or(&none);
    pod_annotations(annotations, template.get("spec").unwrap_or(&none), &path, errors);
}

fn trimmed_images(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for field in CONTAINER_LISTS {
        for (at, one) in list(spec, field).iter().enumerate() {
            let image = text(one, "image");
            if image.trim() != image {
                let path = path.child(field).index(at).child("image");
                errors.invalid(&path, &json!(image), "must not have leading or trailing whitespace");
            }
        }
    }
}

fn no_tokens(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for (at, volume) in list(spec, "volumes").iter().enumerate() {
        let sources = volume.get("projected").map_or(&[][..], |projected| list(projected, "sources"));
        for (source_at, source) in sources.iter().enumerate() {
            if present(source, "serviceAccountToken").is_some() {
                let path = path.index(at).child("projected").child("sources").index(source_at);
                let text = "must not be specified when serviceAccountName is not set";
                errors.forbidden(&path.child("serviceAccountToken"), text);
            }
        }
    }
}

fn pod_annotations(annotations: &Value, spec: &Value, path: &Path, errors: &mut ErrorList) {
    if let Some(mirror) = annotations.get(MIRROR).filter(|_| text(spec, "nodeName").is_empty()) {
        errors.invalid(&path.key(MIRROR), mirror, "must set spec.nodeName if mirror pod annotation is set");
    }
    let wrong = |cost: &&Value| cost.as_str().is_none_or(|text| text.parse::<i32>().is_err());
    if let Some(cost) = annotations.get(DELETION_COST).filter(wrong) {
        errors.invalid(&path.key(DELETION_COST), cost, "must be a 32bit integer");
    }
}

/// Checks a pod spec, of a Pod or of a template.
fn spec(spec: &Value, pod: Option<&str>, path: &Path, errors: &mut ErrorList) {
    let volumes = volumes::all(spec, pod, &path.child("volumes"), errors);
    resource_claims(spec, &path.child("resourceClaims"), errors);
    container::all(&container::Surroundings { spec, volumes }, path, errors);
    resources::pod(spec, path, errors);
    choice(spec, "restartPolicy", &["Always", "OnFailure", "Never"], path, errors);
    let policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    choice(spec, "dnsPolicy", &policies, path, errors);
    labels(spec.get("nodeSelector"), &path.child("nodeSelector"), errors);
    security::pod(spec, path, errors);
    scheduling::affinity(spec, &path.child("affinity"), errors);
    dns_config(spec, &path.child("dnsConfig"), errors);
    scheduling::gates(spec, path, errors);
    scheduling::spread(spec, &path.child("topologySpreadConstraints"), errors);
    security::user_namespace(spec, path, errors);
    for field in SPEC_NAMES {
        subdomain(spec, field, path, errors);
    }
    within(spec, "activeDeadlineSeconds", 1, i64::from(i32::MAX), path, errors);
    host_names(spec, path, errors);
    tolerations(list(spec, "tolerations"), &path.child("tolerations"), errors);
    host_aliases(spec, &path.child("hostAliases"), errors);
    for field in ["priorityClassName", "runtimeClassName"] {
        subdomain(spec, field, path, errors);
    }
    enumeration(spec, "preemptionPolicy", &["PreemptLowerPriority", "Never"], path, errors);
    overhead(spec.get("overhead"), &path.child("overhead"), errors);
    security::operating_system(spec, path, errors);
}

fn subdomain(spec: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
    let name = text(spec, field);
    if !name.is_empty() {
        errors.invalid_all(&path.child(field), &json!(name), names::dns1123_subdomain(name));
    }
}

fn host_names(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for field in ["hostname", "subdomain"] {
        let name = text(spec, field);
        if !name.is_empty() {
            errors.invalid_all(&path.child(field), &json!(name), names::dns1123_label(name));
        }
    }
    let Some(name) = present(spec, "hostnameOverride").and_then(Value::as_str) else { return };
    let path = path.child("hostnameOverride");
    if is_true(spec, "hostNetwork") {
        errors.forbidden(&path, "may not be specified when hostNetwork is true");
    }
    if is_true(spec, "setHostnameAsFQDN") {
        errors.forbidden(&path, "may not be specified when setHostnameAsFQDN is true");
    }
    errors.invalid_all(&path, &json!(name), names::dns1123_subdomain(name));
    if name.len() > MAX_HOSTNAME {
        errors.too_long(&path, MAX_HOSTNAME);
    }
}

fn host_aliases(spec: &Value, path: &Path, errors: &mut ErrorList) {
    for (at, alias) in list(spec, "hostAliases").iter().enumerate() {
        let path = path.index(at);
        ip(text(alias, "ip"), &path.child("ip"), errors);
        for (at, name) in list(alias, "hostnames").iter().enumerate() {
            let name = name.as_str().unwrap_or("");
            let path = path.child("hostnames").index(at);
            errors.invalid_all(&path, &json!(name), names::dns1123_subdomain(name));
        }
    }
}

fn dns_config(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let none = Value::Null;
    let config = spec.get("dnsConfig").unwrap_or(&none);
    let servers = list(config, "nameservers");
    if text(spec, "dnsPolicy") == "None" {
        if config.is_null() {
            errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        } else if servers.is_empty() {
            let text = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            errors.required(&path.child("nameservers"), text);
        }
    }
    if servers.len() > MAX_NAMESERVERS {
        let text = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.invalid(&path.child("nameservers"), &json!(servers), &text);
    }
    for (at, server) in servers.iter().enumerate() {
        ip(server.as_str().unwrap_or(""), &path.child("nameservers").index(at), errors);
    }
    searches(list(config, "searches"), &path.child("searches"), errors);
    for (at, option) in list(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            errors.required(&path.child("options").index(at), "must not be empty");
        }
    }
}

fn searches(searches: &[Value], path: &Path, errors: &mut ErrorList) {
    if searches.len() > MAX_SEARCHES {
        let text = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.invalid(path, &json!(searches), &text);
    }
    let words: Vec<&str> = searches.iter().filter_map(Value::as_str).collect();
    if words.join(" ").len() > MAX_SEARCH_TEXT {
        let text =
            format!("must not have more than {MAX_SEARCH_TEXT} characters (including spaces) in the search list");
        errors.invalid(path, &json!(searches), &text);
    }
    for (at, search) in words.into_iter().enumerate().filter(|(_, search)| *search != ".") {
        let name = search.strip_suffix('.').unwrap_or(search);
        // Labels may hold underscores here; for the rest they are as elsewhere.
        if !names::dns1123_subdomain(&name.replace('_', "a")).is_empty() {
            errors.invalid_all(&path.index(at), &json!(name), names::dns1123_subdomain(name));
        }
    }
}

fn resource_claims(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (at, claim) in list(spec, "resourceClaims").iter().enumerate() {
        let path = path.index(at);
        let name = text(claim, "name");
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else if !seen.insert(name) {
            errors.duplicate(&path.child("name"), &json!(name));
        } else {
            errors.invalid_all(&path.child("name"), &json!(name), names::dns1123_label(name));
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"];
        let given: Vec<&str> = sources.into_iter().filter(|source| present(claim, source).is_some()).collect();
        match given.as_slice() {
            [] => {
                let text = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.invalid(&path, claim, text);
            }
            [_] => {}
            _ => {
                let text = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.invalid(&path, claim, text);
            }
        }
        for source in given {
            let name = text(claim, source);
            errors.invalid_all(&path.child(source), &json!(name), names::dns1123_subdomain(name));
        }
    }
}
