//! What a layer does to all of its objects, in kustomize's order.

use std::collections::BTreeMap;

use machinery::meta;
use serde_json::{Map, Value};

use super::{
    KustomizeError,
    file::{Image, Kustomization, Labels, Replicas},
    item::Item,
    load::Root,
    merge,
    paths::{add_entries, visit},
    replace,
};

/// Kinds whose names stay.
const UNPREFIXED: [&str; 3] = ["CustomResourceDefinition", "APIService", "Namespace"];
/// Kinds that may have several replicas.
const SCALED: [&str; 4] = ["Deployment", "ReplicationController", "ReplicaSet", "StatefulSet"];
/// Kinds with a Pod template in `spec.template`.
const TEMPLATED: [&str; 6] = ["Deployment", "ReplicaSet", "DaemonSet", "StatefulSet", "ReplicationController", "Job"];
/// Selectors inside of Pod specifications.
const POD_SELECTORS: [&str; 5] = [
    "affinity/podAffinity/preferredDuringSchedulingIgnoredDuringExecution[]/podAffinityTerm/labelSelector/matchLabels",
    "affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution[]/labelSelector/matchLabels",
    "affinity/podAntiAffinity/preferredDuringSchedulingIgnoredDuringExecution[]/podAffinityTerm/labelSelector/matchLabels",
    "affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution[]/labelSelector/matchLabels",
    "topologySpreadConstraints[]/labelSelector/matchLabels",
];

/// Runs the transformers of a layer.
pub(super) fn run(file: &Kustomization, root: &Root, items: &mut Vec<Item>) -> Result<(), KustomizeError> {
    merge::run(file, root, items)?;
    if !file.namespace.is_empty() {
        items.iter_mut().for_each(|item| into_namespace(item, &file.namespace));
    }
    for item in items.iter_mut() {
        if UNPREFIXED.contains(&item.kind()) {
            continue;
        }
        if !(file.name_prefix.is_empty() && file.name_suffix.is_empty()) {
            item.rename(format!("{}{}{}", file.name_prefix, item.name(), file.name_suffix));
            item.affixes.push(format!("{}/{}", file.name_prefix, file.name_suffix));
        }
    }
    for item in items.iter_mut() {
        for labels in &file.labels {
            label(item, labels);
        }
        if !file.common_labels.is_empty() {
            let labels = Labels { pairs: file.common_labels.clone(), include_selectors: true, include_templates: true };
            label(item, &labels);
        }
        annotate(item, &file.common_annotations);
    }
    for patch in &file.patches_json {
        merge::one(patch, root, items)?;
    }
    for replicas in &file.replicas {
        scale(items, replicas)?;
    }
    for item in items.iter_mut() {
        for image in &file.images {
            set_image(&mut item.object, image);
        }
    }
    replace::run(&file.replacements, root, items)
}

fn into_namespace(item: &mut Item, namespace: &str) {
    item.remember();
    if item.kind() == "Namespace" && item.group().is_empty() {
        meta::metadata_mut(&mut item.object).insert("name".into(), namespace.into());
        return;
    }
    if item.is_namespaced() {
        meta::metadata_mut(&mut item.object).insert("namespace".into(), namespace.into());
    }
    let service: &[&str] = match item.kind() {
        "CustomResourceDefinition" => &["spec", "conversion", "webhook", "clientConfig", "service", "namespace"],
        "APIService" => &["spec", "service", "namespace"],
        _ => &[],
    };
    visit(&mut item.object, service, false, &mut |service, field| {
        service.insert(field.to_owned(), namespace.into());
    });
    if ["RoleBinding", "ClusterRoleBinding"].contains(&item.kind()) {
        visit(&mut item.object, &["subjects[]", "name"], false, &mut |subject, _| {
            let is = |field: &str, wanted: &str| subject.get(field).and_then(Value::as_str) == Some(wanted);
            if is("kind", "ServiceAccount") && is("name", "default") {
                subject.insert("namespace".into(), namespace.into());
            }
        });
    }
}

/// Paths of labels in selectors; with whether missing maps are made.
fn selectors(item: &Item) -> Vec<(String, bool)> {
    let kind = item.kind();
    let of = |path: &str, create| (path.to_owned(), create);
    let in_pods =
        |prefix: &str| POD_SELECTORS.iter().map(move |path| (format!("{prefix}/{path}"), false)).collect::<Vec<_>>();
    let mut all = match kind {
        "Service" | "ReplicationController" => vec![of("spec/selector", true)],
        "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" => vec![of("spec/selector/matchLabels", true)],
        "Job" | "PodDisruptionBudget" => vec![of("spec/selector/matchLabels", false)],
        "CronJob" => vec![of("spec/jobTemplate/spec/selector/matchLabels", false)],
        "NetworkPolicy" => vec![
            of("spec/podSelector/matchLabels", false),
            of("spec/ingress[]/from[]/podSelector/matchLabels", false),
            of("spec/egress[]/to[]/podSelector/matchLabels", false),
        ],
        _ => Vec::new(),
    };
    if TEMPLATED.contains(&kind) {
        all.extend(in_pods("spec/template/spec"));
    }
    if kind == "CronJob" {
        all.extend(in_pods("spec/jobTemplate/spec/template/spec"));
    }
    all
}

/// Paths of the metadata of templates.
fn templates(item: &Item, field: &str) -> Vec<String> {
    match item.kind() {
        kind if TEMPLATED.contains(&kind) => vec![format!("spec/template/metadata/{field}")],
        "CronJob" => vec![
            format!("spec/jobTemplate/metadata/{field}"),
            format!("spec/jobTemplate/spec/template/metadata/{field}"),
        ],
        _ => Vec::new(),
    }
}

fn label(item: &mut Item, labels: &Labels) {
    add_entries(&mut item.object, "metadata/labels", true, &labels.pairs);
    if labels.include_selectors || labels.include_templates {
        for path in templates(item, "labels") {
            add_entries(&mut item.object, &path, true, &labels.pairs);
        }
        if item.kind() == "StatefulSet" {
            add_entries(&mut item.object, "spec/volumeClaimTemplates[]/metadata/labels", true, &labels.pairs);
        }
    }
    if labels.include_selectors {
        for (path, create) in selectors(item) {
            add_entries(&mut item.object, &path, create, &labels.pairs);
        }
    }
}

fn annotate(item: &mut Item, annotations: &BTreeMap<String, String>) {
    if annotations.is_empty() {
        return;
    }
    add_entries(&mut item.object, "metadata/annotations", true, annotations);
    for path in templates(item, "annotations") {
        add_entries(&mut item.object, &path, true, annotations);
    }
}

fn scale(items: &mut [Item], replicas: &Replicas) -> Result<(), KustomizeError> {
    let mut found = false;
    for item in items.iter_mut().filter(|item| SCALED.contains(&item.kind()) && item.was_named(&replicas.name)) {
        visit(&mut item.object, &["spec", "replicas"], true, &mut |spec, _| {
            spec.insert("replicas".into(), replicas.count.into());
        });
        found = true;
    }
    if found {
        return Ok(());
    }
    let kinds = "[Deployment.[noVer].[noGrp] ReplicationController.[noVer].[noGrp] ReplicaSet.[noVer].[noGrp] \
                 StatefulSet.[noVer].[noGrp]]";
    Err(KustomizeError::plain(format!(
        "resource with name {} does not match a config with the following GVK {kinds}",
        replicas.name
    )))
}

/// Changes images of containers, wherever they are.
fn set_image(value: &mut Value, wanted: &Image) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                if (key == "containers" || key == "initContainers")
                    && let Value::Array(containers) = inner
                {
                    containers.iter_mut().filter_map(Value::as_object_mut).for_each(|one| in_container(one, wanted));
                } else {
                    set_image(inner, wanted);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| set_image(item, wanted)),
        _ => {}
    }
}

fn in_container(container: &mut Map<String, Value>, wanted: &Image) {
    let Some(image) = container.get("image").and_then(Value::as_str) else { return };
    let (rest, digest) = image.split_once('@').map_or((image, ""), |(rest, digest)| (rest, digest));
    let slash = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[slash..].find(':') {
        Some(colon) => (&rest[..slash + colon], &rest[slash + colon + 1..]),
        None => (rest, ""),
    };
    if name != wanted.name {
        return;
    }
    let name = if wanted.new_name.is_empty() { name } else { &wanted.new_name };
    let tag = if wanted.new_tag.is_empty() { tag } else { &wanted.new_tag };
    let tag = if wanted.tag_suffix.is_empty() { tag.to_owned() } else { format!("{tag}{}", wanted.tag_suffix) };
    let image = match (wanted.digest.as_str(), wanted.new_tag.as_str()) {
        ("", "") if !digest.is_empty() => match tag.as_str() {
            "" => format!("{name}@{digest}"),
            tag => format!("{name}:{tag}@{digest}"),
        },
        ("", _) if tag.is_empty() => name.to_owned(),
        ("", _) => format!("{name}:{tag}"),
        (digest, "") => format!("{name}@{digest}"),
        (digest, tag) => format!("{name}:{tag}@{digest}"),
    };
    container.insert("image".into(), image.into());
}
