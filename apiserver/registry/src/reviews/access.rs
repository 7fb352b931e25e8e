//! SubjectAccessReview and its relatives.

use std::collections::BTreeMap;

use async_trait::async_trait;
use axum::body::Body;
use generic::{
    authz::{Attributes, Decision, Selectors},
    endpoint::{Call, Handler},
    user::User,
};
use http::Response;
use machinery::{
    ApiError, ApiResult,
    field::{ErrorList, Path},
    meta,
};
use serde_json::{Value, json};

use super::{answer, decode};

fn text(value: &Value, path: &str) -> String {
    value.pointer(path).and_then(Value::as_str).unwrap_or("").to_owned()
}

/// What a review asks about, for a given user, and what of it is not understood.
fn attributes(review: &Value, user: User) -> (Attributes, Vec<String>) {
    let resource = review.pointer("/spec/resourceAttributes").filter(|v| !v.is_null());
    match resource {
        Some(a) => {
            let (selectors, problems) = Selectors::of_review(a);
            let attributes = Attributes {
                user,
                verb: text(a, "/verb"),
                group: text(a, "/group"),
                version: text(a, "/version"),
                resource: text(a, "/resource"),
                subresource: text(a, "/subresource"),
                name: text(a, "/name"),
                namespace: text(a, "/namespace"),
                path: String::new(),
                is_resource: true,
                selectors,
            };
            (attributes, problems)
        }
        None => {
            let attributes = Attributes {
                user,
                verb: text(review, "/spec/nonResourceAttributes/verb"),
                path: text(review, "/spec/nonResourceAttributes/path"),
                ..Attributes::default()
            };
            (attributes, Vec::new())
        }
    }
}

/// Exactly one kind of attributes must be given.
fn check(call: &Call, review: &Value, needs_subject: bool) -> ApiResult<()> {
    let mut errors = ErrorList::default();
    let spec = Path::new("spec");
    let given = |key: &str| review.pointer(&format!("/spec/{key}")).is_some_and(|v| !v.is_null());
    match (given("resourceAttributes"), given("nonResourceAttributes")) {
        (true, true) => errors.invalid(
            &spec.child("nonResourceAttributes"),
            &json!(null),
            "cannot be specified in combination with resourceAttributes",
        ),
        (false, false) => errors.invalid(
            &spec.child("resourceAttributes"),
            &json!(null),
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ),
        _ => {}
    }
    for name in ["fieldSelector", "labelSelector"] {
        let at = spec.child("resourceAttributes").child(name);
        let Some(selector) = review.pointer(&format!("/spec/resourceAttributes/{name}")).filter(|s| !s.is_null())
        else {
            continue;
        };
        let raw = text(selector, "/rawSelector");
        let listed = selector.get("requirements").and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        match (raw.is_empty(), listed) {
            (false, true) => errors.invalid(
                &at.child("rawSelector"),
                &json!(raw),
                "may not specified at the same time as requirements",
            ),
            (true, false) => errors.required(
                &at.child("requirements"),
                &format!("when {name} is specified, requirements or rawSelector is required"),
            ),
            _ => {}
        }
    }
    let groups = review.pointer("/spec/groups").and_then(Value::as_array).is_some_and(|g| !g.is_empty());
    if needs_subject && text(review, "/spec/user").is_empty() && !groups {
        errors.invalid(&spec.child("user"), &json!(""), "at least one of user or group must be specified");
    }
    generic::verbs::validate::fail(&call.endpoint.gvk, "", errors)
}

async fn decide(call: &Call, review: &mut Value, (attributes, problems): &(Attributes, Vec<String>)) {
    review["status"] = match call.server.authorizer.authorize(attributes).await {
        Decision::Allow(reason) => status(true, false, reason),
        Decision::Deny(reason) => status(false, true, reason),
        Decision::NoOpinion(reason) => status(false, false, reason),
    };
    if !problems.is_empty() {
        review["status"]["evaluationError"] = json!(problems.join(", "));
    }
}

fn status(allowed: bool, denied: bool, reason: String) -> Value {
    let mut status = json!({"allowed": allowed});
    if denied {
        status["denied"] = json!(true);
    }
    if !reason.is_empty() {
        status["reason"] = json!(reason);
    }
    status
}

/// Handler of SubjectAccessReviews and LocalSubjectAccessReviews.
pub struct AccessReview {
    /// Whether it is the namespaced form.
    pub local: bool,
}

#[async_trait]
impl Handler for AccessReview {
    async fn handle(&self, call: &Call) -> ApiResult<Response<Body>> {
        let mut review = decode(call)?;
        check(call, &review, true)?;
        if self.local {
            let namespace = meta::namespace(&review);
            if text(&review, "/spec/resourceAttributes/namespace") != namespace {
                return Err(ApiError::bad_request(format!("namespace must match metadata.namespace: {namespace}")));
            }
        }
        let list = |path: &str| -> Vec<String> {
            let values = review.pointer(path).and_then(Value::as_array).into_iter().flatten();
            values.filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        let extra: BTreeMap<String, Vec<String>> =
            review.pointer("/spec/extra").and_then(|e| serde_json::from_value(e.clone()).ok()).unwrap_or_default();
        let user = User {
            name: text(&review, "/spec/user"),
            uid: text(&review, "/spec/uid"),
            groups: list("/spec/groups"),
            extra,
        };
        let attributes = attributes(&review, user);
        decide(call, &mut review, &attributes).await;
        answer(call, review)
    }
}

/// Handler of SelfSubjectAccessReviews.
pub struct SelfAccessReview;

#[async_trait]
impl Handler for SelfAccessReview {
    async fn handle(&self, call: &Call) -> ApiResult<Response<Body>> {
        let mut review = decode(call)?;
        check(call, &review, false)?;
        let attributes = attributes(&review, call.user.clone());
        decide(call, &mut review, &attributes).await;
        answer(call, review)
    }
}

/// Handler of SelfSubjectRulesReviews.
pub struct RulesReview;

#[async_trait]
impl Handler for RulesReview {
    async fn handle(&self, call: &Call) -> ApiResult<Response<Body>> {
        let mut review = decode(call)?;
        let namespace = text(&review, "/spec/namespace");
        if namespace.is_empty() {
            return Err(ApiError::bad_request("no namespace on request"));
        }
        let (rules, doubts) = call.server.authorizer.rules_of(&call.user, &namespace);
        let masters = call.user.in_group(generic::user::MASTERS);
        let (mut resource, mut other): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
        if masters {
            resource.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
            other.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
        }
        for rule in rules {
            match rule.non_resource_urls.is_empty() {
                true => resource.push(json!({
                    "verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources,
                    "resourceNames": rule.resource_names,
                })),
                false => other.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls})),
            }
        }
        for rule in &mut resource {
            if let Some(map) = rule.as_object_mut() {
                map.retain(|_, v| v.as_array().is_none_or(|l| !l.is_empty()));
            }
        }
        review["status"] = json!({
            "resourceRules": resource,
            "nonResourceRules": other,
            "incomplete": !doubts.is_empty(),
        });
        if !doubts.is_empty() {
            review["status"]["evaluationError"] = json!(doubts.join(", "));
        }
        answer(call, review)
    }
}
