//! Fields that name other objects follow their new names.

use serde_json::{Map, Value};

use super::{
    item::{Item, effective},
    paths::visit,
};

/// Places in Pod specifications, by the kind that is named.
const OF_PODS: [(&str, &[&str]); 4] = [
    (
        "ConfigMap",
        &[
            "volumes[]/configMap/name",
            "volumes[]/projected/sources[]/configMap/name",
            "containers[]/env[]/valueFrom/configMapKeyRef/name",
            "initContainers[]/env[]/valueFrom/configMapKeyRef/name",
            "containers[]/envFrom[]/configMapRef/name",
            "initContainers[]/envFrom[]/configMapRef/name",
        ],
    ),
    (
        "Secret",
        &[
            "volumes[]/secret/secretName",
            "volumes[]/projected/sources[]/secret/name",
            "containers[]/env[]/valueFrom/secretKeyRef/name",
            "initContainers[]/env[]/valueFrom/secretKeyRef/name",
            "containers[]/envFrom[]/secretRef/name",
            "initContainers[]/envFrom[]/secretRef/name",
            "imagePullSecrets[]/name",
        ],
    ),
    ("ServiceAccount", &["serviceAccountName"]),
    ("PersistentVolumeClaim", &["volumes[]/persistentVolumeClaim/claimName"]),
];

/// Places in other kinds: kind of the holder, kind that is named, path.
const OTHERS: [(&str, &str, &str); 20] = [
    ("Ingress", "Service", "spec/rules[]/http/paths[]/backend/service/name"),
    ("Ingress", "Service", "spec/rules[]/http/paths[]/backend/serviceName"),
    ("Ingress", "Service", "spec/defaultBackend/service/name"),
    ("Ingress", "Service", "spec/backend/serviceName"),
    ("Ingress", "Secret", "spec/tls[]/secretName"),
    ("Ingress", "IngressClass", "spec/ingressClassName"),
    ("StatefulSet", "Service", "spec/serviceName"),
    ("ServiceAccount", "Secret", "secrets[]/name"),
    ("ServiceAccount", "Secret", "imagePullSecrets[]/name"),
    ("StorageClass", "Secret", "parameters/secretName"),
    ("PersistentVolume", "Secret", "spec/csi/nodePublishSecretRef/name"),
    ("PersistentVolumeClaim", "PersistentVolume", "spec/volumeName"),
    ("PersistentVolumeClaim", "StorageClass", "spec/storageClassName"),
    ("PersistentVolume", "StorageClass", "spec/storageClassName"),
    ("StatefulSet", "StorageClass", "spec/volumeClaimTemplates[]/spec/storageClassName"),
    ("APIService", "Service", "spec/service/name"),
    ("MutatingWebhookConfiguration", "Service", "webhooks[]/clientConfig/service/name"),
    ("ValidatingWebhookConfiguration", "Service", "webhooks[]/clientConfig/service/name"),
    ("Node", "ConfigMap", "spec/configSource/configMap/name"),
    ("Pod", "PriorityClass", "spec/priorityClassName"),
];

/// An object that others may name.
struct Named {
    kind: String,
    names: Vec<(String, String)>,
    now: (String, String),
    affixes: Vec<String>,
}

/// Writes the present names of objects wherever former ones stand.
pub(super) fn follow(items: &mut [Item]) {
    let named: Vec<Named> = items.iter().map(of).collect();
    for item in items {
        let namespace = item.namespace().to_owned();
        // References were written when the object was in its first namespace.
        let origin = item.before.first().map_or_else(String::new, |(_, namespace)| namespace.clone());
        let here = Here { namespace, origin, affixes: item.affixes.clone() };
        let kind = item.kind().to_owned();
        let pods: &[&str] = match kind.as_str() {
            "Pod" => &["spec"],
            "CronJob" => &["spec/jobTemplate/spec/template/spec"],
            "Deployment" | "ReplicaSet" | "DaemonSet" | "StatefulSet" | "ReplicationController" | "Job" => {
                &["spec/template/spec"]
            }
            _ => &[],
        };
        for prefix in pods {
            for (target, places) in &OF_PODS {
                for place in *places {
                    rewrite(&mut item.object, &format!("{prefix}/{place}"), target, &named, &here);
                }
            }
            rewrite(&mut item.object, &format!("{prefix}/priorityClassName"), "PriorityClass", &named, &here);
        }
        for (_, target, path) in OTHERS.iter().filter(|(holder, _, _)| *holder == kind) {
            rewrite(&mut item.object, path, target, &named, &here);
        }
        if kind == "RoleBinding" || kind == "ClusterRoleBinding" {
            subjects(&mut item.object, &named, &here);
        }
        by_kind(&mut item.object, &kind, &named, &here);
        resource_names(&mut item.object, &kind, &named, &here);
    }
}

/// Where a referrer is, and was when it was written.
struct Here {
    namespace: String,
    origin: String,
    affixes: Vec<String>,
}

fn of(item: &Item) -> Named {
    Named {
        kind: item.kind().to_owned(),
        names: item.before.clone(),
        now: (item.name().to_owned(), item.namespace().to_owned()),
        affixes: item.affixes.clone(),
    }
}

/// The object that a name means: of the referrer's layer and namespace if there are several. A namespace beside the name
/// has to be right.
fn find<'a>(named: &'a [Named], kind: &str, name: &str, namespace: Option<&str>, here: &Here) -> Option<&'a Named> {
    let fits = |n: &str, ns: &str| n == name && namespace.is_none_or(|wanted| effective(wanted) == effective(ns));
    let is_meant = |one: &&Named| {
        one.kind == kind && (fits(&one.now.0, &one.now.1) || one.names.iter().any(|(n, ns)| fits(n, ns)))
    };
    let mut candidates: Vec<&Named> = named.iter().filter(is_meant).collect();
    let sieves: [&dyn Fn(&Named) -> bool; 3] =
        [&|one| one.affixes == here.affixes, &|one| one.now.1 == here.namespace, &|one| {
            one.names.iter().any(|(n, ns)| n == name && *ns == here.origin)
        }];
    for sieve in sieves {
        if candidates.len() > 1 {
            let kept: Vec<&Named> = candidates.iter().copied().filter(|one| sieve(one)).collect();
            candidates = if kept.is_empty() { candidates } else { kept };
        }
    }
    candidates.first().copied()
}

fn rewrite(object: &mut Value, path: &str, kind: &str, named: &[Named], here: &Here) {
    let parts: Vec<&str> = path.split('/').collect();
    visit(object, &parts, false, &mut |map, field| one(map, field, kind, named, here));
}

/// One reference. What is named with its namespace follows into another one.
fn one(map: &mut Map<String, Value>, field: &str, kind: &str, named: &[Named], here: &Here) {
    let Some(name) = map.get(field).and_then(Value::as_str) else { return };
    let beside = map.get("namespace").and_then(Value::as_str);
    let Some(target) = find(named, kind, name, beside, here) else { return };
    let is_placed = beside.is_some();
    let (name, namespace) = target.now.clone();
    map.insert(field.to_owned(), name.into());
    if is_placed && !namespace.is_empty() {
        map.insert("namespace".into(), namespace.into());
    }
}

/// Subjects of bindings get the namespace of their account.
fn subjects(object: &mut Value, named: &[Named], here: &Here) {
    visit(object, &["subjects[]", "name"], false, &mut |subject, field| {
        let before = subject.get(field).and_then(Value::as_str).map(ToOwned::to_owned);
        let Some(before) = before else { return };
        let beside = subject.get("namespace").and_then(Value::as_str);
        let Some(target) = find(named, "ServiceAccount", &before, beside, here) else { return };
        let (name, namespace) = target.now.clone();
        subject.insert(field.to_owned(), name.into());
        if !namespace.is_empty() {
            subject.insert("namespace".into(), namespace.into());
        }
    });
}

/// References that say what kind they name.
fn by_kind(object: &mut Value, kind: &str, named: &[Named], here: &Here) {
    let places: &[&str] = match kind {
        "HorizontalPodAutoscaler" => &["spec/scaleTargetRef"],
        "RoleBinding" | "ClusterRoleBinding" => &["roleRef"],
        _ => &[],
    };
    for place in places {
        let parts: Vec<&str> = place.split('/').collect();
        visit(object, &parts, false, &mut |map, field| {
            let Some(Value::Object(reference)) = map.get_mut(field) else { return };
            let target = reference.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
            one(reference, "name", &target, named, here);
        });
    }
}

/// Names in the rules of roles.
fn resource_names(object: &mut Value, kind: &str, named: &[Named], here: &Here) {
    if kind != "Role" && kind != "ClusterRole" {
        return;
    }
    let of_resource = |resource: &str| match resource {
        "configmaps" => Some("ConfigMap"),
        "secrets" => Some("Secret"),
        _ => None,
    };
    visit(object, &["rules[]", "resourceNames"], false, &mut |rule, field| {
        let resources = rule.get("resources").and_then(Value::as_array).cloned().unwrap_or_default();
        let kinds: Vec<&str> = resources.iter().filter_map(Value::as_str).filter_map(of_resource).collect();
        let Some(Value::Array(names)) = rule.get_mut(field) else { return };
        for name in names {
            let found = kinds.iter().find_map(|kind| find(named, kind, name.as_str()?, None, here));
            if let Some(target) = found {
                *name = target.now.0.as_str().into();
            }
        }
    });
}
