//! PodTolerationRestriction: namespaces say what their Pods tolerate, and what they may.

use std::sync::Arc;

use async_trait::async_trait;
use generic::{
    admission::{AdmissionRequest, Operation, Plugin},
    resource::Resource,
};
use machinery::{ApiError, ApiResult, Reason};
use serde::Deserialize;
use serde_json::{Value, json};

use super::namespaced::annotation;

const DEFAULTS: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";

/// What holds in namespaces that say nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TolerationsFile {
    default: Vec<Value>,
    whitelist: Vec<Value>,
}

impl TolerationsFile {
    /// All that is wrong.
    pub(super) fn problems(&self) -> Vec<String> {
        let lists = [
            ("podtolerationrestriction.default", &self.default),
            ("podtolerationrestriction.whitelist", &self.whitelist),
        ];
        let problems = lists.iter().flat_map(|(name, list)| rules::validation::tolerations(list, name).into_causes());
        problems.map(|problem| format!("{}: {}", problem.field, problem.message)).collect()
    }
}

/// The plugin.
pub(super) struct PodTolerationRestriction {
    pub(super) namespaces: Arc<Resource>,
    pub(super) settings: TolerationsFile,
}

fn text<'a>(toleration: &'a Value, field: &str) -> &'a str {
    toleration.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn same(one: &Value, other: &Value) -> bool {
    let fields = ["key", "operator", "value", "effect"];
    fields.iter().all(|field| text(one, field) == text(other, field)) && seconds(one) == seconds(other)
}

fn seconds(toleration: &Value) -> Option<i64> {
    toleration.get("tolerationSeconds").and_then(Value::as_i64)
}

/// Whether `wide` tolerates all that `narrow` does.
fn covers(wide: &Value, narrow: &Value) -> bool {
    if same(wide, narrow) {
        return true;
    }
    let all_keys = text(wide, "key").is_empty() && text(wide, "operator") == "Exists";
    if text(wide, "key") != text(narrow, "key") && !all_keys {
        return false;
    }
    if text(wide, "effect") != text(narrow, "effect") && !text(wide, "effect").is_empty() {
        return false;
    }
    if text(wide, "effect") == "NoExecute"
        && let Some(longest) = seconds(wide)
        && seconds(narrow).is_none_or(|seconds| seconds > longest)
    {
        return false;
    }
    match text(wide, "operator") {
        "" | "Equal" => text(narrow, "operator") == "Equal" && text(wide, "value") == text(narrow, "value"),
        operator => operator == "Exists",
    }
}

/// All tolerations but those that others cover; of equals the first stays.
fn merge(first: &[Value], second: &[Value]) -> Vec<Value> {
    let all: Vec<&Value> = first.iter().chain(second).collect();
    let mut merged: Vec<Value> = Vec::new();
    for (at, toleration) in all.iter().enumerate() {
        let before = merged.iter().any(|other| covers(other, toleration));
        let after = || all[at + 1..].iter().any(|other| !same(other, toleration) && covers(other, toleration));
        if !before && !after() {
            merged.push((*toleration).clone());
        }
    }
    merged
}

fn of_pod(pod: &Value) -> Vec<Value> {
    pod.pointer("/spec/tolerations").and_then(Value::as_array).cloned().unwrap_or_default()
}

impl PodTolerationRestriction {
    /// What an annotation of the namespace says; nothing where there is none.
    async fn annotated(&self, request: &AdmissionRequest, name: &str) -> ApiResult<Option<Vec<Value>>> {
        let Some(found) = annotation(&self.namespaces, &request.namespace, name).await? else { return Ok(None) };
        if found.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let decoded: Result<Option<Vec<Value>>, _> = serde_json::from_str(&found);
        let list = decoded.map_err(|error| ApiError::new(500, Reason::Unknown, error.to_string()))?;
        Ok(Some(list.unwrap_or_default()))
    }
}

#[async_trait]
impl Plugin for PodTolerationRestriction {
    fn name(&self) -> &'static str {
        "PodTolerationRestriction"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update)
            && request.is("", "pods")
            && request.subresource.is_empty()
    }

    async fn admit(
        &self,
        request: &AdmissionRequest,
        object: Option<&mut Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let Some(pod) = object else { return Ok(()) };
        let mut wanted = Vec::new();
        if request.operation == Operation::Create {
            let of_namespace = self.annotated(request, DEFAULTS).await?;
            wanted = of_namespace.unwrap_or_else(|| self.settings.default.clone());
        }
        wanted = merge(&wanted, &of_pod(pod));
        let spec = pod.get("spec").and_then(Value::as_object);
        if spec.is_some_and(|spec| semantics::qos::class(spec) != "BestEffort") {
            let pressure =
                json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"});
            wanted = merge(&wanted, &[pressure]);
        }
        if !wanted.is_empty() {
            pod["spec"]["tolerations"] = Value::Array(wanted);
        }
        self.validate(request, Some(pod), None).await
    }

    async fn validate(
        &self,
        request: &AdmissionRequest,
        object: Option<&Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let own = object.map(of_pod).unwrap_or_default();
        if own.is_empty() {
            return Ok(());
        }
        let (allowed, scope) = match self.annotated(request, ALLOWED).await? {
            Some(list) => (list, "namespace"),
            None => (self.settings.whitelist.clone(), "cluster"),
        };
        if allowed.is_empty() || own.iter().all(|one| allowed.iter().any(|other| covers(other, one))) {
            return Ok(());
        }
        let why = format!(
            "pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} whitelist"
        );
        Err(ApiError::new(500, Reason::Unknown, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(text: &str) -> Value {
        let mut parts = text.split(' ');
        let mut next = || parts.next().unwrap_or_default().to_owned();
        let (key, operator, value, effect, seconds) = (next(), next(), next(), next(), next());
        let mut toleration = json!({"key": key, "operator": operator, "value": value, "effect": effect});
        if let Ok(seconds) = seconds.parse::<i64>() {
            toleration["tolerationSeconds"] = json!(seconds);
        }
        toleration
    }

    #[test]
    fn wide_tolerations_cover_narrow_ones() {
        for (wide, narrow, does) in [
            ("a Equal b NoSchedule", "a Equal b NoSchedule", true),
            ("a Exists  NoSchedule", "a Equal b NoSchedule", true),
            ("a Exists  ", "a Equal b NoExecute", true),
            (" Exists  ", "a Equal b NoSchedule", true),
            ("a Equal b ", "a Equal c NoSchedule", false),
            ("a Equal b NoSchedule", "a Equal b NoExecute", false),
            ("b Exists  ", "a Exists  ", false),
            ("a Exists  NoExecute 10", "a Exists  NoExecute 5", true),
            ("a Exists  NoExecute 10", "a Exists  NoExecute 20", false),
            ("a Exists  NoExecute 10", "a Exists  NoExecute", false),
            ("a  b ", "a  b NoSchedule", false),
            ("a Gt 1 ", "a Gt 2 ", false),
        ] {
            assert_eq!(covers(&toleration(wide), &toleration(narrow)), does, "{wide} / {narrow}");
        }
    }

    #[test]
    fn what_others_cover_is_left_out() {
        let of = |texts: &[&str]| texts.iter().map(|text| toleration(text)).collect::<Vec<_>>();
        let merged = merge(&of(&["a Equal b NoSchedule", "c Exists  "]), &of(&["a Exists  ", "c Exists  "]));
        assert_eq!(merged, of(&["c Exists  ", "a Exists  "]));
    }
}
