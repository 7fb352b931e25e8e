use generic::admission::Operation;
use machinery::GroupVersionResource;
use serde_json::json;

use super::{
    config::Configuration,
    review::{answer, version},
};
use crate::admission::{
    criteria::Rule,
    matching::{Place, covers_place},
};

fn rule(value: serde_json::Value) -> Rule {
    serde_json::from_value(value).expect("a rule")
}

#[test]
fn rules_name_operations_resources_and_scopes() {
    let pods = GroupVersionResource::new("", "v1", "pods");
    let namespaces = GroupVersionResource::new("", "v1", "namespaces");
    let covers = |rule: &Rule, resource: &GroupVersionResource, namespace: &str, subresource: &str| {
        covers_place(rule, resource, Operation::Create, &Place { namespace, subresource, name: "p" })
    };
    let main = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
    assert!(covers(&rule(main.clone()), &pods, "n", ""));
    assert!(!covers(&rule(main.clone()), &pods, "n", "status"));
    let with = |field: &str, value: serde_json::Value| {
        let mut changed = main.clone();
        changed[field] = value;
        rule(changed)
    };
    assert!(!covers(&with("operations", json!(["UPDATE"])), &pods, "n", ""));
    assert!(!covers(&with("apiVersions", json!(["v2"])), &pods, "n", ""));
    assert!(covers(&with("resources", json!(["pods/*"])), &pods, "n", "exec"));
    assert!(!covers(&with("resources", json!(["*"])), &pods, "n", "exec"));
    assert!(covers(&with("resources", json!(["*/*"])), &pods, "n", "exec"));
    assert!(!covers(&with("scope", json!("Cluster")), &pods, "n", ""));
    assert!(covers(&with("resourceNames", json!(["o", "p"])), &pods, "n", ""));
    assert!(!covers(&with("resourceNames", json!(["o"])), &pods, "n", ""));
    let mut all = with("resources", json!(["*"]));
    all.scope = Some("Namespaced".into());
    assert!(!covers(&all, &namespaces, "n", ""), "a Namespace is of the cluster");
    all.scope = Some("Cluster".into());
    assert!(covers(&all, &namespaces, "n", ""));
}

#[test]
fn answers_are_checked() {
    let review = |response: serde_json::Value| json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
    let told = |response: serde_json::Value, mutating: bool| answer(&review(response), "v1", "u", mutating);
    assert!(told(json!({"uid": "u", "allowed": true}), false).expect("allowed").denied.is_none());
    let other = told(json!({"uid": "x", "allowed": true}), false).expect_err("another question");
    assert_eq!(other, "received invalid webhook response: expected response.uid=\"u\", got \"x\"");
    let patch = json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch"});
    assert_eq!(told(patch.clone(), true).expect("patched").patch, Some(json!([])));
    assert!(told(patch, false).is_err(), "a validating webhook may not patch");
    assert!(told(json!({"uid": "u", "allowed": true, "patch": "W10="}), true).is_err());
    let denials = [
        (json!({"uid": "u"}), 400, "without explanation"),
        (json!({"uid": "u", "status": {"message": "no", "code": 200}}), 400, ": no"),
        (json!({"uid": "u", "status": {"reason": "Gone", "code": 410}}), 410, ": Gone"),
        (json!({"uid": "u", "status": {"message": "why not"}}), 400, ": why not"),
    ];
    for (response, code, end) in denials {
        let denied = told(response, false).expect("an answer").denied.expect("a denial").error("w.x.y");
        let text = format!(
            "admission webhook \"w.x.y\" denied the request{}{end}",
            if end.starts_with(':') { "" } else { " " }
        );
        assert_eq!((denied.status().code, denied.status().message.as_str()), (code, text.as_str()));
    }
}

#[test]
fn configurations_are_read() {
    let configuration: Configuration = serde_json::from_value(json!({"metadata": {"name": "c"}, "webhooks": [{
        "name": "w", "rules": null, "admissionReviewVersions": ["v2", "v1beta1", "v1"], "failurePolicy": "Ignore",
        "objectSelector": {"matchLabels": {"a": "b"}}, "sideEffects": "None", "clientConfig": {"url": "https://x"}}]}))
    .expect("a configuration");
    let webhook = &configuration.webhooks[0];
    assert_eq!(version(webhook), Some("v1beta1"));
    assert!(webhook.fails_open() && webhook.takes_dry_runs() && !webhook.wants_again());
    assert_eq!(webhook.timeout().as_secs(), 10);
    assert!(webhook.object_selector.matches(&json!({"metadata": {"labels": {"a": "b"}}})));
    assert!(!webhook.object_selector.matches(&json!({"metadata": {}})));
}
