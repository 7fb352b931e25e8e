//! Pods and Pod templates.

use serde_json::Value;

use super::{
    Facts,
    container::{Containers, containers, resources},
    events::{self, annotations, labels, lines},
    page::{Page, put},
    read::{controller, list, number, or, selector, text},
    volume::volumes,
};

const PHASES_OF_THE_END: [&str; 2] = ["Succeeded", "Failed"];

/// A Pod.
pub(crate) fn pod(page: &mut Page, pod: &Value, facts: &Facts) {
    head(page, pod);
    let spec = &pod["spec"];
    let status = &pod["status"];
    let sections = [
        ("Init Containers", "initContainers", "initContainerStatuses"),
        ("Containers", "containers", "containerStatuses"),
        ("Ephemeral Containers", "ephemeralContainers", "ephemeralContainerStatuses"),
    ];
    for (title, field, statuses) in sections {
        if field == "containers" || !list(&spec[field]).is_empty() {
            let statuses = &status[statuses];
            containers(page, &Containers { title, containers: &spec[field], statuses, pod: Some(pod) });
        }
    }
    let conditions = list(&status["conditions"]);
    let gates = list(&spec["readinessGates"]);
    if !gates.is_empty() {
        put!(page, 0, "Readiness Gates:");
        put!(page, 1, "Type\tStatus");
    }
    for gate in gates {
        let met = conditions.iter().find(|condition| condition["type"] == gate["conditionType"]);
        put!(page, 1, "{} \t{} ", text(&gate["conditionType"]), met.map_or("<none>", |c| text(&c["status"])));
    }
    if !conditions.is_empty() {
        put!(page, 0, "Conditions:");
        put!(page, 1, "Type\tStatus");
    }
    for condition in conditions {
        put!(page, 1, "{} \t{} ", text(&condition["type"]), text(&condition["status"]));
    }
    volumes(page, &spec["volumes"], false);
    let qos = text(&status["qosClass"]);
    let qos = match spec.as_object() {
        Some(spec) if qos.is_empty() => semantics::qos::class(spec),
        _ => qos,
    };
    put!(page, 0, "QoS Class:\t{qos}");
    labels(page, 0, "Node-Selectors", &spec["nodeSelector"]);
    tolerations(page, 0, spec);
    spread(page, 0, spec);
    events::events(page, facts.events());
}

fn head(page: &mut Page, pod: &Value) {
    let (meta, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    put!(page, 0, "Name:\t{}", text(&meta["name"]));
    put!(page, 0, "Namespace:\t{}", text(&meta["namespace"]));
    if !spec["priority"].is_null() {
        put!(page, 0, "Priority:\t{}", number(&spec["priority"]));
    }
    let named = [
        ("Priority Class Name", "priorityClassName"),
        ("Runtime Class Name", "runtimeClassName"),
        ("Service Account", "serviceAccountName"),
    ];
    for (title, field) in named {
        if !text(&spec[field]).is_empty() {
            put!(page, 0, "{title}:\t{}", text(&spec[field]));
        }
    }
    match text(&spec["nodeName"]) {
        "" => put!(page, 0, "Node:\t<none>"),
        node => put!(page, 0, "Node:\t{node}/{}", text(&status["hostIP"])),
    }
    if !status["startTime"].is_null() {
        let at = page.clock.time(text(&status["startTime"]));
        put!(page, 0, "Start Time:\t{at}");
    }
    events::metadata(page, pod);
    let phase = text(&status["phase"]);
    let deleted = text(&meta["deletionTimestamp"]);
    if deleted.is_empty() || PHASES_OF_THE_END.contains(&phase) {
        put!(page, 0, "Status:\t{phase}");
    } else {
        let lasts = page.clock.since(deleted);
        put!(page, 0, "Status:\tTerminating (lasts {lasts})");
        put!(page, 0, "Termination Grace Period:\t{}s", number(&meta["deletionGracePeriodSeconds"]));
    }
    for (title, field) in [("Reason", "reason"), ("Message", "message")] {
        if !text(&status[field]).is_empty() {
            put!(page, 0, "{title}:\t{}", text(&status[field]));
        }
    }
    let profile = &spec["securityContext"]["seccompProfile"];
    if !profile.is_null() {
        put!(page, 0, "SeccompProfile:\t{}", text(&profile["type"]));
        if text(&profile["type"]) == "Localhost" {
            put!(page, 0, "LocalhostProfile:\t{}", text(&profile["localhostProfile"]));
        }
    }
    put!(page, 0, "IP:\t{}", text(&status["podIP"]));
    addresses(page, &status["podIPs"]);
    if let Some(owner) = controller(pod) {
        put!(page, 0, "Controlled By:\t{owner}");
    }
    if !text(&status["nominatedNodeName"]).is_empty() {
        put!(page, 0, "NominatedNodeName:\t{}", text(&status["nominatedNodeName"]));
    }
    if !spec["resources"].is_null() {
        put!(page, 0, "Resources:");
        resources(page, 1, &spec["resources"]);
    }
}

fn addresses(page: &mut Page, ips: &Value) {
    if list(ips).is_empty() {
        put!(page, 0, "IPs:\t<none>");
        return;
    }
    put!(page, 0, "IPs:");
    for ip in list(ips) {
        put!(page, 1, "IP:\t{}", text(&ip["ip"]));
    }
}

fn tolerations(page: &mut Page, level: usize, spec: &Value) {
    let mut tolerations: Vec<&Value> = list(&spec["tolerations"]).iter().collect();
    tolerations.sort_by_key(|toleration| text(&toleration["key"]));
    let rows: Vec<String> = tolerations.iter().map(|toleration| self::toleration(toleration)).collect();
    lines(page, level, "Tolerations", &rows);
}

fn toleration(toleration: &Value) -> String {
    let (key, value, effect) = (text(&toleration["key"]), text(&toleration["value"]), text(&toleration["effect"]));
    let mut out = key.to_owned();
    if !value.is_empty() {
        out.push('=');
        out.push_str(value);
    }
    if !effect.is_empty() {
        out.push(':');
        out.push_str(effect);
    }
    if text(&toleration["operator"]) == "Exists" && value.is_empty() {
        out.push_str(if key.is_empty() && effect.is_empty() { "op=Exists" } else { " op=Exists" });
    }
    if !toleration["tolerationSeconds"].is_null() {
        out.push_str(&format!(" for {}s", number(&toleration["tolerationSeconds"])));
    }
    out
}

fn spread(page: &mut Page, level: usize, spec: &Value) {
    let mut constraints: Vec<&Value> = list(&spec["topologySpreadConstraints"]).iter().collect();
    if constraints.is_empty() {
        return;
    }
    constraints.sort_by_key(|constraint| text(&constraint["topologyKey"]));
    let rows: Vec<String> = constraints
        .iter()
        .map(|constraint| {
            let labels = &constraint["labelSelector"];
            let labels = if labels.is_null() { String::new() } else { format!(" for selector {}", selector(labels)) };
            format!(
                "{}:{} when max skew {} is exceeded{labels}",
                text(&constraint["topologyKey"]),
                text(&constraint["whenUnsatisfiable"]),
                number(&constraint["maxSkew"]),
            )
        })
        .collect();
    lines(page, level, "Topology Spread Constraints", &rows);
}

/// The template of a workload.
pub(crate) fn template(page: &mut Page, template: &Value) {
    put!(page, 0, "Pod Template:");
    template_body(page, template);
}

/// The template below its heading.
pub(crate) fn template_body(page: &mut Page, template: &Value) {
    if template.is_null() {
        put!(page, 1, "<unset>");
        return;
    }
    let (meta, spec) = (&template["metadata"], &template["spec"]);
    labels(page, 1, "Labels", &meta["labels"]);
    if meta["annotations"].as_object().is_some_and(|a| !a.is_empty()) {
        annotations(page, 1, &meta["annotations"]);
    }
    if !text(&spec["serviceAccountName"]).is_empty() {
        put!(page, 1, "Service Account:\t{}", text(&spec["serviceAccountName"]));
    }
    for (title, field) in [("Init Containers", "initContainers"), ("Containers", "containers")] {
        if field == "containers" || !list(&spec[field]).is_empty() {
            containers(page, &Containers { title, containers: &spec[field], statuses: &Value::Null, pod: None });
        }
    }
    volumes(page, &spec["volumes"], true);
    spread(page, 1, spec);
    if !text(&spec["priorityClassName"]).is_empty() {
        put!(page, 1, "Priority Class Name:\t{}", or(text(&spec["priorityClassName"]), ""));
    }
    labels(page, 1, "Node-Selectors", &spec["nodeSelector"]);
    tolerations(page, 1, spec);
}
