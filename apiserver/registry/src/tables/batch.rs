//! `batch`, `autoscaling`, `policy`.

use machinery::{GroupVersionKind, meta, time::parse};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    Cells,
    cells::{NONE, UNKNOWN, UNSET, age, containers, is_true, list, name, number, selector, since, text},
};

pub(super) fn table(gvk: &GroupVersionKind) -> Option<(&'static str, Cells)> {
    let table: (&'static str, Cells) = match (gvk.group.as_str(), gvk.kind.as_str()) {
        ("batch", "Job") => {
            ("Name(s,n) Status(s) Completions(s) Duration(s) Age(s) | Containers(s) Images(s) Selector(s)", job)
        }
        ("batch", "CronJob") => (
            "Name(s,n) Schedule(s) Timezone(s) Suspend(b) Active(i) Last Schedule(s) Age(s) | Containers(s) Images(s) Selector(s)",
            cron_job,
        ),
        ("autoscaling", "HorizontalPodAutoscaler") => {
            ("Name(s,n) Reference(s) Targets(s) MinPods(s) MaxPods(s) Replicas(s) Age(s)", autoscaler)
        }
        ("policy", "PodDisruptionBudget") => {
            ("Name(s,n) Min Available(s) Max Unavailable(s) Allowed Disruptions(i) Age(s)", budget)
        }
        _ => return None,
    };
    Some(table)
}

fn job(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let succeeded = number(object, "/status/succeeded");
    let parallelism = number(object, "/spec/parallelism");
    let completions = match object.pointer("/spec/completions").and_then(Value::as_i64) {
        Some(n) => format!("{succeeded}/{n}"),
        None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        None => format!("{succeeded}/1"),
    };
    let duration = match (parse(text(object, "/status/startTime")), parse(text(object, "/status/completionTime"))) {
        (Ok(start), Ok(end)) => machinery::duration::human((end - start).whole_seconds()),
        (Ok(start), Err(_)) => machinery::duration::human((now - start).whole_seconds()),
        _ => String::new(),
    };
    let status = if is_true(object, "Complete") {
        "Complete"
    } else if is_true(object, "Failed") {
        "Failed"
    } else if meta::is_deleting(object) {
        "Terminating"
    } else {
        ["Suspended", "FailureTarget", "SuccessCriteriaMet"]
            .into_iter()
            .find(|c| is_true(object, c))
            .unwrap_or("Running")
    };
    let spec = object.pointer("/spec/template/spec");
    vec![
        name(object),
        json!(status),
        json!(completions),
        json!(duration),
        age(object, now),
        json!(containers(spec, "name")),
        json!(containers(spec, "image")),
        json!(selector(object.pointer("/spec/selector"))),
    ]
}

fn cron_job(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let suspend = match object.pointer("/spec/suspend").and_then(Value::as_bool) {
        Some(true) => "True",
        Some(false) => "False",
        None => UNSET,
    };
    let last = match text(object, "/status/lastScheduleTime") {
        "" => NONE.to_owned(),
        stamp => since(stamp, now),
    };
    let zone = object.pointer("/spec/timeZone").and_then(Value::as_str).unwrap_or(NONE);
    let spec = object.pointer("/spec/jobTemplate/spec/template/spec");
    vec![
        name(object),
        json!(text(object, "/spec/schedule")),
        json!(zone),
        json!(suspend),
        json!(list(object, "/status/active").len()),
        json!(last),
        age(object, now),
        json!(containers(spec, "name")),
        json!(containers(spec, "image")),
        json!(selector(object.pointer("/spec/jobTemplate/spec/selector"))),
    ]
}

fn autoscaler(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let reference =
        format!("{}/{}", text(object, "/spec/scaleTargetRef/kind"), text(object, "/spec/scaleTargetRef/name"));
    let minimum = object.pointer("/spec/minReplicas").map_or_else(|| UNSET.to_owned(), Value::to_string);
    vec![
        name(object),
        json!(reference),
        json!(targets(object)),
        json!(minimum),
        json!(number(object, "/spec/maxReplicas")),
        json!(number(object, "/status/currentReplicas")),
        age(object, now),
    ]
}

fn targets(object: &Value) -> String {
    if let Some(target) = object.pointer("/spec/targetCPUUtilizationPercentage").and_then(Value::as_i64) {
        let current = object.pointer("/status/currentCPUUtilizationPercentage").and_then(Value::as_i64);
        let current = current.map_or_else(|| UNKNOWN.to_owned(), |c| format!("{c}%"));
        return format!("cpu: {current}/{target}%");
    }
    let current: Vec<&Value> = list(object, "/status/currentMetrics").collect();
    let all: Vec<String> =
        list(object, "/spec/metrics").enumerate().map(|(at, m)| target(m, current.get(at).copied())).collect();
    match all.len() {
        0 => NONE.into(),
        1 | 2 => all.join(", "),
        n => format!("{} + {} more...", all[..2].join(", "), n - 2),
    }
}

fn target(metric: &Value, current: Option<&Value>) -> String {
    let kind = text(metric, "/type");
    let field = format!("{}{}", kind.get(..1).unwrap_or("").to_lowercase(), kind.get(1..).unwrap_or(""));
    let now = |key: &str| current.and_then(|c| c.pointer(&format!("/{field}/current/{key}"))).cloned();
    let want = |key: &str| metric.pointer(&format!("/{field}/target/{key}")).cloned();
    let plain = |value: Option<Value>| {
        value.map_or_else(|| UNKNOWN.to_owned(), |v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))
    };
    match kind {
        "Resource" | "ContainerResource" => {
            let resource = text(metric, &format!("/{field}/name")).to_owned();
            if want("averageValue").is_some() {
                return format!("{resource}: {}/{}", plain(now("averageValue")), plain(want("averageValue")));
            }
            let current = now("averageUtilization").map_or_else(|| UNKNOWN.to_owned(), |v| format!("{v}%"));
            let wanted = want("averageUtilization").map_or_else(|| "<auto>".to_owned(), |v| format!("{v}%"));
            format!("{resource}: {current}/{wanted}")
        }
        "Pods" => format!("{}/{}", plain(now("averageValue")), plain(want("averageValue"))),
        _ if want("averageValue").is_some() => {
            format!("{}/{} (avg)", plain(now("averageValue")), plain(want("averageValue")))
        }
        _ => format!("{}/{}", plain(now("value")), plain(want("value"))),
    }
}

fn budget(object: &Value, now: OffsetDateTime) -> Vec<Value> {
    let bound = |path: &str| match object.pointer(path) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(n)) => n.to_string(),
        _ => "N/A".into(),
    };
    vec![
        name(object),
        json!(bound("/spec/minAvailable")),
        json!(bound("/spec/maxUnavailable")),
        json!(number(object, "/status/disruptionsAllowed")),
        age(object, now),
    ]
}
