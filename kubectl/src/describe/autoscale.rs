//! HorizontalPodAutoscalers and PodDisruptionBudgets.

use serde_json::Value;

use super::{
    Facts, events,
    page::{Page, put},
    read::{list, number, or, quantity, scalar, selector, text},
};

const UNKNOWN: &str = "<unknown>";

/// A HorizontalPodAutoscaler.
pub(crate) fn autoscaler(page: &mut Page, object: &Value, facts: &Facts) {
    let (meta, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    put!(page, 0, "Name:\t{}", text(&meta["name"]));
    put!(page, 0, "Namespace:\t{}", text(&meta["namespace"]));
    events::metadata(page, object);
    let created = page.clock.time(text(&meta["creationTimestamp"]));
    put!(page, 0, "CreationTimestamp:\t{created}");
    let target = &spec["scaleTargetRef"];
    put!(page, 0, "Reference:\t{}/{}", text(&target["kind"]), text(&target["name"]));
    put!(page, 0, "Metrics:\t( current / target )");
    let current = list(&status["currentMetrics"]);
    for (at, metric) in list(&spec["metrics"]).iter().enumerate() {
        put!(page, 1, "{}", self::metric(metric, current.get(at).unwrap_or(&Value::Null)));
    }
    let least = spec["minReplicas"].as_i64().map_or("<unset>".to_owned(), |n| n.to_string());
    put!(page, 0, "Min replicas:\t{least}");
    put!(page, 0, "Max replicas:\t{}", number(&spec["maxReplicas"]));
    if !spec["behavior"].is_null() {
        put!(page, 0, "Behavior:");
        direction(page, "Scale Up", &spec["behavior"]["scaleUp"]);
        direction(page, "Scale Down", &spec["behavior"]["scaleDown"]);
    }
    put!(
        page,
        0,
        "{} pods:\t{} current / {} desired",
        text(&target["kind"]),
        number(&status["currentReplicas"]),
        number(&status["desiredReplicas"]),
    );
    let columns = [("Type", "type"), ("Status", "status"), ("Reason", "reason"), ("Message", "message")];
    events::conditions(page, "Conditions", &columns, &status["conditions"], false);
    events::events(page, facts.events());
}

fn metric(metric: &Value, current: &Value) -> String {
    let kind = text(&metric["type"]);
    let field = match kind {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        other => return format!("<unknown metric type {other:?}>"),
    };
    let (source, now) = (&metric[field], &current[field]["current"]);
    let target = &source["target"];
    let name = or(text(&source["metric"]["name"]), text(&source["name"]));
    let average = !target["averageValue"].is_null();
    let shown = |value: &Value| if value.is_null() { UNKNOWN.to_owned() } else { quantity(value) };
    let value_field = if average { "averageValue" } else { "value" };
    let of = match kind {
        "Pods" => {
            return format!("{name:?} on pods:\t{} / {}", shown(&now["averageValue"]), shown(&target["averageValue"]));
        }
        "External" => format!("{name:?}"),
        "Object" => {
            let object = &source["describedObject"];
            format!("{name:?} on {}/{}", text(&object["kind"]), text(&object["name"]))
        }
        kind => return resource(kind == "ContainerResource", source, now),
    };
    let what = if average { "average value" } else { "value" };
    format!("{of} (target {what}):\t{} / {}", shown(&now[value_field]), shown(&target[value_field]))
}

fn resource(of_container: bool, source: &Value, now: &Value) -> String {
    let target = &source["target"];
    let mut title = format!("resource {}", text(&source["name"]));
    if of_container {
        title.push_str(&format!(" of container {:?}", text(&source["container"])));
    }
    title.push_str(" on pods");
    if !target["averageValue"].is_null() {
        let current = if now["averageValue"].is_null() { UNKNOWN.into() } else { quantity(&now["averageValue"]) };
        return format!("{title}:\t{current} / {}", quantity(&target["averageValue"]));
    }
    let current = match now["averageUtilization"].as_i64() {
        Some(percent) => format!("{percent}% ({})", quantity(&now["averageValue"])),
        None => UNKNOWN.into(),
    };
    let target = target["averageUtilization"].as_i64().map_or("<auto>".to_owned(), |n| format!("{n}%"));
    format!("{title}  (as a percentage of request):\t{current} / {target}")
}

fn direction(page: &mut Page, title: &str, rules: &Value) {
    if rules.is_null() {
        return;
    }
    put!(page, 1, "{title}:");
    if let Some(seconds) = rules["stabilizationWindowSeconds"].as_i64() {
        put!(page, 2, "Stabilization Window: {seconds} seconds");
    }
    let policies = list(&rules["policies"]);
    if policies.is_empty() {
        return;
    }
    if !rules["selectPolicy"].is_null() {
        put!(page, 2, "Select Policy: {}", text(&rules["selectPolicy"]));
    } else {
        put!(page, 2, "Select Policy: Max");
    }
    put!(page, 2, "Policies:");
    for policy in policies {
        put!(
            page,
            3,
            "- Type: {}\tValue: {}\tPeriod: {} seconds",
            text(&policy["type"]),
            number(&policy["value"]),
            number(&policy["periodSeconds"]),
        );
    }
}

/// A PodDisruptionBudget.
pub(crate) fn disruption_budget(page: &mut Page, object: &Value, facts: &Facts) {
    let (meta, spec, status) = (&object["metadata"], &object["spec"], &object["status"]);
    put!(page, 0, "Name:\t{}", text(&meta["name"]));
    put!(page, 0, "Namespace:\t{}", text(&meta["namespace"]));
    if !spec["minAvailable"].is_null() {
        put!(page, 0, "Min available:\t{}", scalar(&spec["minAvailable"]));
    } else if !spec["maxUnavailable"].is_null() {
        put!(page, 0, "Max unavailable:\t{}", scalar(&spec["maxUnavailable"]));
    }
    match spec["selector"].is_null() {
        true => put!(page, 0, "Selector:\t<unset>"),
        false => put!(page, 0, "Selector:\t{}", selector(&spec["selector"])),
    }
    put!(page, 0, "Status:");
    let rows = [
        ("Allowed disruptions", "disruptionsAllowed"),
        ("Current", "currentHealthy"),
        ("Desired", "desiredHealthy"),
        ("Total", "expectedPods"),
    ];
    for (title, field) in rows {
        put!(page, 2, "{title}:\t{}", number(&status[field]));
    }
    events::events(page, facts.events());
}
