//! The core group.

use std::collections::BTreeSet;

use machinery::{GroupVersionKind, meta};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    Cells,
    cells::{
        NONE, UNKNOWN, UNSET, access_modes, age, condition, containers, first_three, label_map, list, name, number,
        since, text, text_or,
    },
    pods,
};

pub(super) fn table(gvk: &GroupVersionKind) -> Option<(&'static str, Cells)> {
    let table: (&'static str, Cells) = match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("", "Pod") => (pods::COLUMNS, pods::cells),
        ("", "Service") => ("Name(s,n) Type(s) Cluster-IP(s) External-IP(s) Port(s)(s) Age(s) | Selector(s)", service),
        ("", "Endpoints") => ("Name(s,n) Endpoints(s) Age(s)", endpoints),
        ("", "Node") => (
            "Name(s,n) Status(s) Roles(s) Age(s) Version(s) | Internal-IP(s) External-IP(s) OS-Image(s) Kernel-Version(s) Container-Runtime(s)",
            node,
        ),
        ("" | "events.k8s.io", "Event") => (EVENT_COLUMNS, event),
        ("", "Namespace") => {
            ("Name(s,n) Status(s) Age(s)", |o, now| vec![name(o), json!(text(o, "/status/phase")), age(o, now)])
        }
        ("", "Secret") => ("Name(s,n) Type(s) Data(s) Age(s)", |o, now| {
            vec![name(o), json!(text(o, "/type")), json!(keys(o, "data")), age(o, now)]
        }),
        ("", "ConfigMap") => ("Name(s,n) Data(s) Age(s)", |o, now| {
            vec![name(o), json!(keys(o, "data") + keys(o, "binaryData")), age(o, now)]
        }),
        ("", "ServiceAccount") => ("Name(s,n) Age(s)", |o, now| vec![name(o), age(o, now)]),
        ("", "PodTemplate") => ("Name(s,n) Containers(s) Images(s) Pod Labels(s)", |o, _| {
            let spec = o.pointer("/template/spec");
            let labels = label_map(o.pointer("/template/metadata/labels"));
            vec![name(o), json!(containers(spec, "name")), json!(containers(spec, "image")), json!(labels)]
        }),
        ("", "PersistentVolume") => (
            "Name(s,n) Capacity(s) Access Modes(s) Reclaim Policy(s) Status(s) Claim(s) StorageClass(s) VolumeAttributesClass(s) Reason(s) Age(s) | VolumeMode(s)",
            volume,
        ),
        ("", "PersistentVolumeClaim") => (
            "Name(s,n) Status(s) Volume(s) Capacity(s) Access Modes(s) StorageClass(s) VolumeAttributesClass(s) Age(s) | VolumeMode(s)",
            claim,
        ),
        ("", "ResourceQuota") => ("Name(s,n) Request(s) Limit(s) Age(s)", quota),
        ("", "ComponentStatus") => ("Name(s,n) Status(s) Message(s) Error(s)", |o, _| {
            let healthy = list(o, "/conditions").find(|c| c["type"] == "Healthy");
            let status = match healthy.map(|c| text(c, "/status")) {
                Some("True") => "Healthy",
                Some("False") => "Unhealthy",
                _ => "Unknown",
            };
            let of = |key: &str| healthy.map_or("", |c| text(c, key)).to_owned();
            vec![name(o), json!(status), json!(of("/message")), json!(of("/error"))]
        }),
        _ => return None,
    };
    Some(table)
}

fn keys(object: &Value, field: &str) -> usize {
    object.get(field).and_then(Value::as_object).map_or(0, serde_json::Map::len)
}

fn service(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let cluster_ip = match text(object, "/spec/clusterIPs/0") {
        "" => text_or(object, "/spec/clusterIP", NONE),
        ip => ip,
    };
    let ports: Vec<String> = list(object, "/spec/ports")
        .map(|p| match number(p, "/nodePort") {
            0 => format!("{}/{}", number(p, "/port"), text(p, "/protocol")),
            node => format!("{}:{node}/{}", number(p, "/port"), text(p, "/protocol")),
        })
        .collect();
    vec![
        name(object),
        json!(text(object, "/spec/type")),
        json!(cluster_ip),
        json!(external_ip(object)),
        json!(if ports.is_empty() { NONE.to_owned() } else { ports.join(",") }),
        age(object, now),
        json!(label_map(object.pointer("/spec/selector"))),
    ]
}

fn external_ip(object: &Value) -> String {
    let own: Vec<&str> = list(object, "/spec/externalIPs").filter_map(Value::as_str).collect();
    match text(object, "/spec/type") {
        "ClusterIP" | "NodePort" if own.is_empty() => NONE.into(),
        "ClusterIP" | "NodePort" => own.join(","),
        "LoadBalancer" => {
            let ingress = list(object, "/status/loadBalancer/ingress");
            let balanced: BTreeSet<&str> = ingress.map(|i| text_or(i, "/ip", text(i, "/hostname"))).collect();
            let all: Vec<&str> = balanced.into_iter().chain(own).collect();
            if all.is_empty() { "<pending>".into() } else { all.join(",") }
        }
        "ExternalName" => text(object, "/spec/externalName").to_owned(),
        _ => UNKNOWN.into(),
    }
}

fn with_port(ip: &str, port: i64) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

fn endpoints(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in list(object, "/subsets") {
        let addresses: Vec<&str> = list(subset, "/addresses").map(|a| text(a, "/ip")).collect();
        if list(subset, "/ports").len() == 0 {
            all.extend(addresses.iter().map(|a| (*a).to_owned()));
        }
        for port in list(subset, "/ports") {
            all.extend(addresses.iter().map(|a| with_port(a, number(port, "/port"))));
        }
    }
    let shown = if list(object, "/subsets").len() == 0 { NONE.to_owned() } else { first_three(&all, ",") };
    vec![name(object), json!(shown), age(object, now)]
}

fn node(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let mut status = match condition(object, "Ready").map(|c| text(c, "/status")) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".into(),
        None => "Unknown".into(),
    };
    if object.pointer("/spec/unschedulable").and_then(Value::as_bool) == Some(true) {
        status.push_str(",SchedulingDisabled");
    }
    let mut roles = BTreeSet::new();
    for (key, value) in meta::text_map(object, "labels") {
        if let Some(role) = key.strip_prefix("node-role.kubernetes.io/").filter(|r| !r.is_empty()) {
            roles.insert(role);
        } else if key == "kubernetes.io/role" && !value.is_empty() {
            roles.insert(value);
        }
    }
    let roles: Vec<&str> = roles.into_iter().collect();
    let address = |kind: &str| {
        list(object, "/status/addresses").find(|a| a["type"] == kind).map_or(NONE, |a| text(a, "/address")).to_owned()
    };
    let info = |field: &str| text_or(object, &format!("/status/nodeInfo/{field}"), UNKNOWN).to_owned();
    let mut kernel = info("kernelVersion");
    if !text(object, "/status/nodeInfo/architecture").is_empty() {
        kernel.push_str(&format!(" ({})", info("architecture")));
    }
    vec![
        name(object),
        json!(status),
        json!(if roles.is_empty() { NONE.to_owned() } else { roles.join(",") }),
        age(object, now),
        json!(text(object, "/status/nodeInfo/kubeletVersion")),
        json!(address("InternalIP")),
        json!(address("ExternalIP")),
        json!(info("osImage")),
        json!(kernel),
        json!(info("containerRuntimeVersion")),
    ]
}

/// Wide columns stand among the others here.
const EVENT_COLUMNS: &str =
    "Last Seen(s) Type(s) Reason(s) Object(s) Subobject(w) Source(w) Message(s) First Seen(w) Count(w) Name(w,n)";

fn event(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let pick = |paths: &[&str]| paths.iter().map(|p| text(object, p)).find(|t| !t.is_empty()).unwrap_or("").to_owned();
    let ago = |stamp: String| if stamp.is_empty() { UNKNOWN.to_owned() } else { since(&stamp, now) };
    let first = pick(&["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime"]);
    let last = pick(&[
        "/series/lastObservedTime",
        "/lastTimestamp",
        "/deprecatedLastTimestamp",
        "/firstTimestamp",
        "/deprecatedFirstTimestamp",
        "/eventTime",
    ]);
    let kind = pick(&["/involvedObject/kind", "/regarding/kind"]).to_lowercase();
    let target = match pick(&["/involvedObject/name", "/regarding/name"]).as_str() {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let component =
        pick(&["/source/component", "/deprecatedSource/component", "/reportingComponent", "/reportingController"]);
    let host = pick(&["/source/host", "/deprecatedSource/host"]);
    let source = if host.is_empty() { component } else { format!("{component}, {host}") };
    let count = ["/series/count", "/count", "/deprecatedCount"].iter().map(|p| number(object, p)).find(|n| *n > 0);
    vec![
        json!(ago(last)),
        json!(text(object, "/type")),
        json!(text(object, "/reason")),
        json!(target),
        json!(pick(&["/involvedObject/fieldPath", "/regarding/fieldPath"])),
        json!(source),
        json!(pick(&["/message", "/note"]).trim()),
        json!(ago(first)),
        json!(count.unwrap_or(1)),
        name(object),
    ]
}

fn storage_class(object: &Value) -> String {
    let annotations = object.pointer("/metadata/annotations");
    let beta = annotations.and_then(|a| a.get("volume.beta.kubernetes.io/storage-class")).and_then(Value::as_str);
    beta.unwrap_or_else(|| text(object, "/spec/storageClassName")).to_owned()
}

fn volume_phase(object: &Value) -> String {
    if meta::is_deleting(object) { "Terminating".into() } else { text(object, "/status/phase").to_owned() }
}

fn volume(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let claim = match text(object, "/spec/claimRef/name") {
        "" => String::new(),
        claim => format!("{}/{claim}", text(object, "/spec/claimRef/namespace")),
    };
    vec![
        name(object),
        json!(text(object, "/spec/capacity/storage")),
        json!(access_modes(object.pointer("/spec/accessModes"))),
        json!(text(object, "/spec/persistentVolumeReclaimPolicy")),
        json!(volume_phase(object)),
        json!(claim),
        json!(storage_class(object)),
        json!(text_or(object, "/spec/volumeAttributesClassName", UNSET)),
        json!(text(object, "/status/reason")),
        age(object, now),
        json!(text_or(object, "/spec/volumeMode", UNSET)),
    ]
}

fn claim(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let bound = !text(object, "/spec/volumeName").is_empty();
    let capacity = if bound { text(object, "/status/capacity/storage") } else { "" };
    let modes = if bound { access_modes(object.pointer("/status/accessModes")) } else { String::new() };
    vec![
        name(object),
        json!(volume_phase(object)),
        json!(text(object, "/spec/volumeName")),
        json!(capacity),
        json!(modes),
        json!(storage_class(object)),
        json!(text_or(object, "/spec/volumeAttributesClassName", UNSET)),
        age(object, now),
        json!(text_or(object, "/spec/volumeMode", UNSET)),
    ]
}

fn quota(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let hard = object.pointer("/status/hard").and_then(Value::as_object);
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in hard.into_iter().flatten() {
        let used = object.pointer("/status/used").and_then(|u| u.get(resource)).and_then(Value::as_str).unwrap_or("0");
        let entry = format!("{resource}: {used}/{}", hard.as_str().unwrap_or(""));
        if resource.starts_with("limits.") { limits.push(entry) } else { requests.push(entry) }
    }
    vec![name(object), json!(requests.join(", ")), json!(limits.join(", ")), age(object, now)]
}
