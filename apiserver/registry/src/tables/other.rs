//! The groups beyond core, apps, batch, autoscaling and policy.

use std::collections::BTreeSet;

use machinery::{GroupVersionKind, meta};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    Cells,
    cells::{NONE, UNSET, age, condition, first_three, is_true, list, name, number, selector, text, text_or},
};

pub(super) fn table(gvk: &GroupVersionKind) -> Option<(&'static str, Cells)> {
    network(gvk).or_else(|| storage(gvk)).or_else(|| policy(gvk))
}

fn network(gvk: &GroupVersionKind) -> Option<(&'static str, Cells)> {
    let table: (&'static str, Cells) = match gvk.kind.as_str() {
        "Ingress" => ("Name(s,n) Class(s) Hosts(s) Address(s) Ports(s) Age(s)", ingress),
        "IngressClass" => ("Name(s,n) Controller(s) Parameters(s) Age(s)", |o, now| {
            let parameters = match (text(o, "/spec/parameters/kind"), text(o, "/spec/parameters/apiGroup")) {
                ("", _) => NONE.to_owned(),
                (kind, "") => format!("{kind}/{}", text(o, "/spec/parameters/name")),
                (kind, group) => format!("{kind}.{group}/{}", text(o, "/spec/parameters/name")),
            };
            let title = with_default(o, &["ingressclass.kubernetes.io/is-default-class"]);
            vec![title, json!(text(o, "/spec/controller")), json!(parameters), age(o, now)]
        }),
        "NetworkPolicy" => ("Name(s,n) Pod-Selector(s) Age(s)", |o, now| {
            vec![name(o), json!(selector(o.pointer("/spec/podSelector"))), age(o, now)]
        }),
        "ServiceCIDR" => {
            ("Name(s,n) CIDRs(s) Age(s)", |o, now| vec![name(o), json!(joined(o, "/spec/cidrs", ",")), age(o, now)])
        }
        "IPAddress" => ("Name(s,n) ParentRef(s)", ip_address),
        "EndpointSlice" => ("Name(s,n) AddressType(s) Ports(s) Endpoints(s) Age(s)", endpoint_slice),
        "RuntimeClass" => {
            ("Name(s,n) Handler(s) Age(s)", |o, now| vec![name(o), json!(text(o, "/handler")), age(o, now)])
        }
        "PriorityClass" => ("Name(s,n) Value(i) Global-Default(b) Age(s) PreemptionPolicy(s)", |o, now| {
            let global = o.get("globalDefault").and_then(Value::as_bool).unwrap_or(false);
            vec![name(o), json!(number(o, "/value")), json!(global), age(o, now), json!(text(o, "/preemptionPolicy"))]
        }),
        "Lease" => {
            ("Name(s,n) Holder(s) Age(s)", |o, now| vec![name(o), json!(text(o, "/spec/holderIdentity")), age(o, now)])
        }
        _ => return None,
    };
    Some(table)
}

fn storage(gvk: &GroupVersionKind) -> Option<(&'static str, Cells)> {
    let table: (&'static str, Cells) = match gvk.kind.as_str() {
        "StorageClass" => (
            "Name(s,n) Provisioner(s) ReclaimPolicy(s) VolumeBindingMode(s) AllowVolumeExpansion(s) Age(s)",
            storage_class,
        ),
        "VolumeAttachment" => ("Name(s,n) Attacher(s,n) PV(s) Node(s) Attached(b) Age(s)", |o, now| {
            vec![
                name(o),
                json!(text(o, "/spec/attacher")),
                json!(text(o, "/spec/source/persistentVolumeName")),
                json!(text(o, "/spec/nodeName")),
                json!(o.pointer("/status/attached").and_then(Value::as_bool).unwrap_or(false)),
                age(o, now),
            ]
        }),
        "VolumeAttributesClass" => {
            ("Name(s,n) DriverName(s) Age(s)", |o, now| vec![name(o), json!(text(o, "/driverName")), age(o, now)])
        }
        "CSINode" => {
            ("Name(s,n) Drivers(i) Age(s)", |o, now| vec![name(o), json!(list(o, "/spec/drivers").len()), age(o, now)])
        }
        "CSIDriver" => (
            "Name(s,n) AttachRequired(b) PodInfoOnMount(b) StorageCapacity(b) TokenRequests(s) RequiresRepublish(b) Modes(s) Age(s)",
            csi_driver,
        ),
        "ResourceClaim" => ("Name(s,n) State(s) Age(s)", |o, now| {
            let mut states = Vec::new();
            if meta::is_deleting(o) {
                states.push("deleted");
            }
            if o.pointer("/status/allocation").is_some() {
                states.push("allocated");
            } else if states.is_empty() {
                states.push("pending");
            }
            if list(o, "/status/reservedFor").len() > 0 {
                states.push("reserved");
            }
            vec![name(o), json!(states.join(",")), age(o, now)]
        }),
        "ResourceClaimTemplate" | "DeviceClass" => ("Name(s,n) Age(s)", |o, now| vec![name(o), age(o, now)]),
        "ResourceSlice" => ("Name(s,n) Node(s) Driver(s) Pool(s) Age(s)", |o, now| {
            vec![
                name(o),
                json!(text_or(o, "/spec/nodeName", UNSET)),
                json!(text(o, "/spec/driver")),
                json!(text(o, "/spec/pool/name")),
                age(o, now),
            ]
        }),
        _ => return None,
    };
    Some(table)
}

fn policy(gvk: &GroupVersionKind) -> Option<(&'static str, Cells)> {
    let table: (&'static str, Cells) = match gvk.kind.as_str() {
        "RoleBinding" | "ClusterRoleBinding" => {
            ("Name(s,n) Role(s) Age(s) | Users(s) Groups(s) ServiceAccounts(s)", role_binding)
        }
        "CertificateSigningRequest" => {
            ("Name(s,n) Age(s) SignerName(s) Requestor(s) RequestedDuration(s) Condition(s)", signing_request)
        }
        "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => {
            ("Name(s,n) Webhooks(i) Age(s)", |o, now| vec![name(o), json!(list(o, "/webhooks").len()), age(o, now)])
        }
        "ValidatingAdmissionPolicy" => ("Name(s,n) Validations(i) ParamKind(s) Age(s)", |o, now| {
            vec![name(o), json!(list(o, "/spec/validations").len()), param_kind(o), age(o, now)]
        }),
        "MutatingAdmissionPolicy" => ("Name(s,n) Mutations(i) ParamKind(s) Age(s)", |o, now| {
            vec![name(o), json!(list(o, "/spec/mutations").len()), param_kind(o), age(o, now)]
        }),
        "ValidatingAdmissionPolicyBinding" | "MutatingAdmissionPolicyBinding" => {
            ("Name(s,n) PolicyName(s) ParamRef(s) Age(s)", |o, now| {
                let reference = match (text(o, "/spec/paramRef/name"), text(o, "/spec/paramRef/namespace")) {
                    ("", _) => UNSET.to_owned(),
                    (param, "") => format!("*/{param}"),
                    (param, namespace) => format!("{namespace}/{param}"),
                };
                vec![name(o), json!(text(o, "/spec/policyName")), json!(reference), age(o, now)]
            })
        }
        "FlowSchema" => {
            ("Name(s,n) PriorityLevel(s) MatchingPrecedence(s) DistinguisherMethod(s) Age(s) MissingPL(s)", |o, now| {
                vec![
                    name(o),
                    json!(text(o, "/spec/priorityLevelConfiguration/name")),
                    json!(number(o, "/spec/matchingPrecedence")),
                    json!(text_or(o, "/spec/distinguisherMethod/type", NONE)),
                    age(o, now),
                    json!(condition(o, "Dangling").map_or("?", |c| text(c, "/status"))),
                ]
            })
        }
        "PriorityLevelConfiguration" => (
            "Name(s,n) Type(s) NominalConcurrencyShares(s) Queues(s) HandSize(s) QueueLengthLimit(s) Age(s)",
            |o, now| {
                let at = |path: &str| o.pointer(path).cloned().unwrap_or_else(|| json!(NONE));
                vec![
                    name(o),
                    json!(text(o, "/spec/type")),
                    at("/spec/limited/nominalConcurrencyShares"),
                    at("/spec/limited/limitResponse/queuing/queues"),
                    at("/spec/limited/limitResponse/queuing/handSize"),
                    at("/spec/limited/limitResponse/queuing/queueLengthLimit"),
                    age(o, now),
                ]
            },
        ),
        "APIService" => ("Name(s,n) Service(s) Available(s) Age(s)", |o, now| {
            let service = match text(o, "/spec/service/name") {
                "" => "Local".to_owned(),
                service => format!("{}/{service}", text(o, "/spec/service/namespace")),
            };
            let available = match condition(o, "Available").map(|c| (text(c, "/status"), text(c, "/reason"))) {
                None => "Unknown".to_owned(),
                Some((status @ ("False" | "Unknown"), reason)) if !reason.is_empty() => format!("{status} ({reason})"),
                Some((status, _)) => status.to_owned(),
            };
            vec![name(o), json!(service), json!(available), age(o, now)]
        }),
        _ => return None,
    };
    Some(table)
}

fn joined(object: &Value, path: &str, separator: &str) -> String {
    list(object, path).filter_map(Value::as_str).collect::<Vec<_>>().join(separator)
}

fn with_default(object: &Value, annotations: &[&str]) -> Value {
    let marked = meta::text_map(object, "annotations").any(|(k, v)| annotations.contains(&k) && v == "true");
    if marked { json!(format!("{} (default)", meta::name(object))) } else { name(object) }
}

fn param_kind(object: &Value) -> Value {
    match text(object, "/spec/paramKind/kind") {
        "" => json!(UNSET),
        kind => json!(format!("{}/{kind}", text(object, "/spec/paramKind/apiVersion"))),
    }
}

fn ingress(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let hosts: Vec<&str> = list(object, "/spec/rules").map(|r| text(r, "/host")).filter(|h| !h.is_empty()).collect();
    let rules = list(object, "/spec/rules").len();
    let hosts = match hosts.len() {
        0 => "*".to_owned(),
        1..=3 => hosts.join(","),
        _ => format!("{} + {} more...", hosts[..3].join(","), rules - 3),
    };
    let addresses: BTreeSet<&str> =
        list(object, "/status/loadBalancer/ingress").map(|i| text_or(i, "/ip", text(i, "/hostname"))).collect();
    let ports = if list(object, "/spec/tls").len() > 0 { "80, 443" } else { "80" };
    vec![
        name(object),
        json!(text_or(object, "/spec/ingressClassName", NONE)),
        json!(hosts),
        json!(addresses.into_iter().collect::<Vec<_>>().join(",")),
        json!(ports),
        age(object, now),
    ]
}

fn ip_address(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let at = |key: &str| text(object, &format!("/spec/parentRef/{key}"));
    let mut parent = at("resource").to_owned();
    for (separator, key) in [(".", "group"), ("/", "namespace"), ("/", "name")] {
        if !at(key).is_empty() {
            parent.push_str(separator);
            parent.push_str(at(key));
        }
    }
    vec![name(object), json!(parent), age(object, now)]
}

fn endpoint_slice(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let ports: Vec<String> = list(object, "/ports")
        .map(|p| match p.get("port").and_then(Value::as_i64) {
            Some(port) => port.to_string(),
            None => text_or(p, "/name", "*").to_owned(),
        })
        .collect();
    let addresses: Vec<String> = list(object, "/endpoints")
        .flat_map(|e| list(e, "/addresses"))
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    let shown = |all: &[String]| if all.is_empty() { UNSET.to_owned() } else { first_three(all, ",") };
    vec![
        name(object),
        json!(text(object, "/addressType")),
        json!(shown(&ports)),
        json!(shown(&addresses)),
        age(object, now),
    ]
}

fn storage_class(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let marks = ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
    vec![
        with_default(object, &marks),
        json!(text(object, "/provisioner")),
        json!(text_or(object, "/reclaimPolicy", "Delete")),
        json!(text_or(object, "/volumeBindingMode", "Immediate")),
        json!(object.get("allowVolumeExpansion").and_then(Value::as_bool).unwrap_or(false)),
        age(object, now),
    ]
}

fn csi_driver(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let flag = |key: &str, default: bool| {
        json!(object.pointer(&format!("/spec/{key}")).and_then(Value::as_bool).unwrap_or(default))
    };
    let audiences: Vec<&str> = list(object, "/spec/tokenRequests").map(|t| text(t, "/audience")).collect();
    let tokens = if object.pointer("/spec/tokenRequests").is_none() { UNSET.to_owned() } else { audiences.join(",") };
    let modes = joined(object, "/spec/volumeLifecycleModes", ",");
    vec![
        name(object),
        flag("attachRequired", true),
        flag("podInfoOnMount", false),
        flag("storageCapacity", false),
        json!(tokens),
        flag("requiresRepublish", false),
        json!(if modes.is_empty() { NONE.to_owned() } else { modes }),
        age(object, now),
    ]
}

fn role_binding(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let of = |kind: &str| {
        let subjects = list(object, "/subjects").filter(|s| s["kind"] == kind);
        let names = subjects.map(|s| match kind {
            "ServiceAccount" => format!("{}/{}", text(s, "/namespace"), text(s, "/name")),
            _ => text(s, "/name").to_owned(),
        });
        names.collect::<Vec<_>>().join(", ")
    };
    vec![
        name(object),
        json!(format!("{}/{}", text(object, "/roleRef/kind"), text(object, "/roleRef/name"))),
        age(object, now),
        json!(of("User")),
        json!(of("Group")),
        json!(of("ServiceAccount")),
    ]
}

fn signing_request(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let has = |kind: &str| list(object, "/status/conditions").any(|c| c["type"] == kind) || is_true(object, kind);
    let mut state = match (has("Denied"), has("Approved")) {
        (true, _) => "Denied".to_owned(),
        (false, true) => "Approved".into(),
        (false, false) => "Pending".into(),
    };
    if has("Failed") {
        state.push_str(",Failed");
    }
    if !text(object, "/status/certificate").is_empty() {
        state.push_str(",Issued");
    }
    let duration = match number(object, "/spec/expirationSeconds") {
        0 => NONE.to_owned(),
        seconds => machinery::duration::human(seconds),
    };
    vec![
        name(object),
        age(object, now),
        json!(text_or(object, "/spec/signerName", NONE)),
        json!(text(object, "/spec/username")),
        json!(duration),
        json!(state),
    ]
}
