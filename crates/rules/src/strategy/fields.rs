//! Fields that field selectors may name, per kind.

use super::SelectableField;

const fn field(label: &'static str, path: &'static [&'static str]) -> SelectableField {
    SelectableField { label, path, fallback: None, absent: "" }
}

const POD: &[SelectableField] = &[
    field("spec.nodeName", &["spec", "nodeName"]),
    field("spec.restartPolicy", &["spec", "restartPolicy"]),
    field("spec.schedulerName", &["spec", "schedulerName"]),
    field("spec.serviceAccountName", &["spec", "serviceAccountName"]),
    SelectableField { absent: "false", ..field("spec.hostNetwork", &["spec", "hostNetwork"]) },
    field("status.phase", &["status", "phase"]),
    field("status.podIP", &["status", "podIP"]),
    field("status.podIPs", &["status", "\u{0}"]),
    field("status.nominatedNodeName", &["status", "nominatedNodeName"]),
];

const EVENT: &[SelectableField] = &[
    field("involvedObject.kind", &["involvedObject", "kind"]),
    field("involvedObject.namespace", &["involvedObject", "namespace"]),
    field("involvedObject.name", &["involvedObject", "name"]),
    field("involvedObject.uid", &["involvedObject", "uid"]),
    field("involvedObject.apiVersion", &["involvedObject", "apiVersion"]),
    field("involvedObject.resourceVersion", &["involvedObject", "resourceVersion"]),
    field("involvedObject.fieldPath", &["involvedObject", "fieldPath"]),
    field("reason", &["reason"]),
    field("reportingComponent", &["reportingComponent"]),
    SelectableField { fallback: Some(&["reportingComponent"]), ..field("source", &["source", "component"]) },
    field("type", &["type"]),
];

/// The selectable fields of a kind.
pub(super) fn of(kind: &str) -> &'static [SelectableField] {
    match kind {
        "Pod" => POD,
        "Event" => EVENT,
        "Node" => {
            const { &[SelectableField { absent: "false", ..field("spec.unschedulable", &["spec", "unschedulable"]) }] }
        }
        "Namespace" => const { &[field("status.phase", &["status", "phase"])] },
        "Secret" => const { &[field("type", &["type"])] },
        "Service" => {
            const { &[field("spec.clusterIP", &["spec", "clusterIP"]), field("spec.type", &["spec", "type"])] }
        }
        "ReplicationController" => {
            const { &[SelectableField { absent: "0", ..field("status.replicas", &["status", "replicas"]) }] }
        }
        "Job" => const { &[SelectableField { absent: "0", ..field("status.successful", &["status", "succeeded"]) }] },
        "CertificateSigningRequest" => const { &[field("spec.signerName", &["spec", "signerName"])] },
        "ResourceSlice" => {
            const { &[field("spec.nodeName", &["spec", "nodeName"]), field("spec.driver", &["spec", "driver"])] }
        }
        _ => &[],
    }
}
