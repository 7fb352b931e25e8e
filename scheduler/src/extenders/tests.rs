use serde_json::json;

use super::*;
use crate::{cluster::NodeIx, plugins::default_preemption::Plan, plugins::testing::pod_view};

#[test]
fn answers_may_be_spelt_in_any_case() {
    for text in [
        r#"{"NodeNames": ["a"], "FailedNodes": {"b": "busy"}, "FailedAndUnresolvableNodes": {"c": "gone"}, "Error": ""}"#,
        r#"{"nodenames": ["a"], "failedNodes": {"b": "busy", "c": "x"}, "failedAndUnresolvableNodes": {"c": "gone"}}"#,
    ] {
        let answer: wire::Filtered = serde_json::from_value(lower(serde_json::from_str(text).unwrap())).unwrap();
        assert_eq!(answer.left(true), ["a"]);
        assert_eq!(answer.failed().collect::<Vec<_>>(), [("c", "gone", false), ("b", "busy", true)]);
    }
    let nodes = json!({"Nodes": {"items": [{"metadata": {"name": "n"}}]}});
    let answer: wire::Filtered = serde_json::from_value(lower(nodes)).unwrap();
    assert_eq!(answer.left(false), ["n"]);
}

#[test]
fn victims_are_those_that_the_extender_leaves() {
    let candidate = |node: usize| Candidate {
        plan: Plan { node: NodeIx::new(node), victims: vec![pod_view("a", |p| p), pod_view("b", |p| p)] },
        violations: 0,
    };
    let answer = json!({"NodeNameToMetaVictims": {"N1": {"Pods": [{"UID": "uid-b"}], "NumPDBViolations": 1}}});
    let answer: wire::Preempted = serde_json::from_value(wire::lowered_victims(answer)).unwrap();
    let left = kept(vec![("N1".into(), candidate(1)), ("n2".into(), candidate(2))], &answer);
    assert_eq!(left.len(), 1);
    let (node, candidate) = &left[0];
    assert_eq!((node.as_str(), candidate.violations, &*candidate.plan.victims[0].uid), ("N1", 1, "uid-b"));
}

#[test]
fn nodes_go_by_name_to_those_that_have_a_cache() {
    let pod = json!({"kind": "Pod"});
    let by_name = wire::arguments(&pod, &["a".into()], None);
    assert_eq!((&by_name["NodeNames"], &by_name["Nodes"]), (&json!(["a"]), &Value::Null));
    let whole = wire::arguments(&pod, &["a".into()], Some(vec![json!({"metadata": {"name": "a"}})]));
    assert_eq!((&whole["NodeNames"], &whole["Nodes"]["items"][0]["metadata"]["name"]), (&Value::Null, &json!("a")));
}
