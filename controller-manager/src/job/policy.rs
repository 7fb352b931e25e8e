//! What a failed Pod means to its Job, and which indexes are enough: pure.

use ::controller::Cached;
use k8s_openapi::api::batch::v1::{
    JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, SuccessPolicyRule,
};

use super::indexes::Indexes;
use crate::views::PodView;

/// What a failure is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It counts.
    Count,
    /// It does not.
    Ignore,
    /// It counts, and the index is not tried again.
    FailIndex,
    /// It counts, and the Job has failed: why.
    FailJob(String),
}

/// Judges a failed Pod by the Job's policy.
pub(super) fn judge(spec: &JobSpec, pod: &Cached<PodView>) -> Verdict {
    let rules = spec.pod_failure_policy.as_ref().map(|p| p.rules.as_slice()).unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        let matched = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            (Some(codes), _) => by_code(codes, pod).map(|(container, code)| {
                format!("Container {container} for pod {} failed with exit code {code}", pod.key)
            }),
            (None, Some(patterns)) => {
                by_condition(patterns, pod).map(|kind| format!("Pod {} has condition {kind}", pod.key))
            }
            (None, None) => None,
        };
        let Some(text) = matched else { continue };
        return match rule.action.as_str() {
            "Ignore" => Verdict::Ignore,
            "FailIndex" if spec.backoff_limit_per_index.is_some() => Verdict::FailIndex,
            "FailJob" => Verdict::FailJob(format!("{text} matching FailJob rule at index {index}")),
            _ => Verdict::Count,
        };
    }
    Verdict::Count
}

fn by_code<'a>(wanted: &PodFailurePolicyOnExitCodesRequirement, pod: &'a PodView) -> Option<(&'a str, i32)> {
    let named = |container: &str| wanted.container_name.as_ref().is_none_or(|n| n == container);
    let fits = |code: i32| match wanted.operator.as_str() {
        "In" => wanted.values.contains(&code),
        "NotIn" => !wanted.values.contains(&code),
        _ => false,
    };
    let mut ended = pod.exits.iter().filter(|e| e.code != 0 && named(&e.container));
    ended.find(|e| fits(e.code)).map(|e| (e.container.as_str(), e.code))
}

fn by_condition<'a>(patterns: &'a [PodFailurePolicyOnPodConditionsPattern], pod: &PodView) -> Option<&'a str> {
    let holds = |p: &&PodFailurePolicyOnPodConditionsPattern| {
        pod.condition(&p.type_).is_some_and(|c| c.status == p.status.as_deref().unwrap_or("True"))
    };
    patterns.iter().find(holds).map(|p| p.type_.as_str())
}

/// The first rule of the success policy that is met.
pub(super) fn success(rules: &[SuccessPolicyRule], succeeded: &Indexes, completions: i32) -> Option<String> {
    if succeeded.len() == 0 {
        return None;
    }
    let met = |rule: &SuccessPolicyRule| match &rule.succeeded_indexes {
        Some(text) => {
            let wanted = Indexes::parse(text, completions);
            let done = wanted.0.iter().filter(|i| succeeded.has(**i)).count();
            let done = i32::try_from(done).unwrap_or(i32::MAX);
            rule.succeeded_count.map_or(done == wanted.len(), |least| done >= least)
        }
        None => rule.succeeded_count.is_some_and(|least| succeeded.len() >= least),
    };
    rules.iter().position(met).map(|index| format!("Matched rules at index {index}"))
}

#[cfg(test)]
mod tests {
    use ::controller::ObjectKey;
    use serde_json::{Value, json};

    use super::*;
    use crate::views::{Condition, ExitView};

    fn pod() -> Cached<PodView> {
        let exit = |container: &str, code| ExitView { container: container.into(), code, finished: None };
        let condition = Condition {
            kind: "DisruptionTarget".into(),
            status: "True".into(),
            reason: String::new(),
            message: String::new(),
            since: None,
        };
        let view =
            PodView { exits: vec![exit("a", 0), exit("b", 42)], conditions: vec![condition], ..PodView::default() };
        Cached { key: ObjectKey::new("ns", "p"), uid: "u".into(), resource_version: "1".into(), view }
    }

    fn verdict(rules: Value, per_index: bool) -> Verdict {
        let mut spec = json!({"template": {}, "podFailurePolicy": {"rules": rules}});
        if per_index {
            spec["backoffLimitPerIndex"] = json!(1);
        }
        judge(&serde_json::from_value(spec).unwrap(), &pod())
    }

    #[test]
    fn the_first_match_decides() {
        let codes = |operator: &str, values: Value, action: &str| json!({"action": action, "onExitCodes": {"operator": operator, "values": values}});
        let condition = json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]});
        let fail = "Container b for pod ns/p failed with exit code 42 matching FailJob rule at index 0";
        assert_eq!(verdict(json!([codes("In", json!([42]), "FailJob")]), false), Verdict::FailJob(fail.into()));
        assert_eq!(verdict(json!([codes("NotIn", json!([42]), "FailJob"), condition]), false), Verdict::Ignore);
        assert_eq!(verdict(json!([codes("In", json!([42]), "FailIndex")]), true), Verdict::FailIndex);
        assert_eq!(verdict(json!([codes("In", json!([42]), "FailIndex")]), false), Verdict::Count);
        assert_eq!(verdict(json!([codes("In", json!([1]), "FailJob")]), false), Verdict::Count);
    }

    #[test]
    fn enough_indexes() {
        let rules = |v: Value| -> Vec<SuccessPolicyRule> { serde_json::from_value(v).unwrap() };
        let of = |text: &str| Indexes::parse(text, 10);
        let both = rules(json!([{"succeededIndexes": "0-2", "succeededCount": 2}]));
        assert_eq!(success(&both, &of("0,5"), 10), None);
        assert_eq!(success(&both, &of("0,2"), 10).as_deref(), Some("Matched rules at index 0"));
        let second = rules(json!([{"succeededIndexes": "0,9"}, {"succeededCount": 1}]));
        assert_eq!(success(&second, &of("3"), 10).as_deref(), Some("Matched rules at index 1"));
        assert_eq!(success(&second, &of(""), 10), None);
    }
}
