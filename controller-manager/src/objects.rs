//! Owners, selectors and Pods, as all workload controllers see them.

use machinery::{meta, selector::LabelSelector, time::format};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::rest::Rest;

/// The text at a JSON pointer, or `""`.
pub fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or("")
}

/// The integer at a JSON pointer, or 0.
pub fn number(object: &Value, path: &str) -> i64 {
    object.pointer(path).and_then(Value::as_i64).unwrap_or(0)
}

/// Now, as RFC 3339.
pub fn now() -> String {
    format(OffsetDateTime::now_utc())
}

/// Uid of the controlling owner, or `""`.
pub fn controller_of(object: &Value) -> &str {
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    owners.into_iter().flatten().find(|o| o["controller"] == true).map_or("", |o| text(o, "/uid"))
}

/// An ownerReference that makes `owner` the controller.
pub fn controller_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta::name(owner), "uid": meta::uid(owner),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// Whether labels of an object match a selector.
pub fn selects(selector: &LabelSelector, object: &Value) -> bool {
    let labels = object.pointer("/metadata/labels");
    selector.matches(|key| labels.and_then(|l| l.get(key)).and_then(Value::as_str))
}

/// Whether a Pod is neither finished nor going.
pub fn is_active(pod: &Value) -> bool {
    !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") && !meta::is_deleting(pod)
}

/// The condition of a type.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object.pointer("/status/conditions").and_then(Value::as_array)?.iter().find(|c| c["type"] == kind)
}

/// Whether a Pod is ready.
pub fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some_and(|c| c["status"] == "True")
}

/// Seconds until a ready Pod is available; 0 when it is, `None` while it is not ready.
pub fn available_in(pod: &Value, min_ready: i64, now: OffsetDateTime) -> Option<i64> {
    let ready = condition(pod, "Ready").filter(|c| c["status"] == "True")?;
    if min_ready == 0 {
        return Some(0);
    }
    let since = machinery::time::parse(text(ready, "/lastTransitionTime")).ok()?;
    Some((min_ready - (now - since).whole_seconds()).max(0))
}

/// What an event is about and who writes it.
pub struct Event<'a> {
    /// The object.
    pub about: &'a Value,
    /// `Normal` or `Warning`.
    pub kind: &'a str,
    /// Machine-readable reason.
    pub reason: &'a str,
    /// Text for people.
    pub message: String,
    /// The component.
    pub component: &'a str,
}

/// Writes an event. A failure is logged: events tell, they do not decide.
pub async fn record(rest: &Rest, event: Event<'_>) {
    let about = event.about;
    let namespace = match meta::namespace(about) {
        "" => "default",
        namespace => namespace,
    };
    let stamp = now();
    let object = json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"generateName": format!("{}.", meta::name(about)), "namespace": namespace},
        "involvedObject": {
            "apiVersion": about["apiVersion"], "kind": about["kind"], "name": meta::name(about),
            "namespace": meta::namespace(about), "uid": meta::uid(about),
            "resourceVersion": meta::resource_version(about),
        },
        "type": event.kind, "reason": event.reason, "message": event.message,
        "source": {"component": event.component}, "reportingComponent": event.component,
        "firstTimestamp": stamp, "lastTimestamp": stamp, "count": 1,
    });
    if let Err(error) = rest.create(&format!("/api/v1/namespaces/{namespace}/events"), &object).await {
        tracing::debug!(%error, reason = event.reason, "event is not written");
    }
}
