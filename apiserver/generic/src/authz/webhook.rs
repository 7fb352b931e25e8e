//! Access that another server decides on: SubjectAccessReviews are posted to it.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use async_trait::async_trait;
use cel::{Budget, Program, Type, Val};
use client::answers::Answers;
use prometheus::{HistogramVec, IntCounterVec, Registry};
use rules::rbac::PolicyRule;
use runtime::{
    clock::Clock,
    metrics::{Stability, counter_vec, histogram_vec},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Attributes, Authorizer, Decision, config::WebhookConfig};
use crate::{
    authn::webhook::ask_again,
    remote::{Remote, RemoteError},
    user::User,
};

/// Work that the conditions of one webhook may do, steps.
const BUDGET: u64 = 2_500_000;
/// Questions longer than that are asked each time.
const LONGEST_KEPT: usize = 10_000;

/// The spec of a review as conditions see it.
pub(super) static REQUEST: LazyLock<Type> = LazyLock::new(|| {
    let texts = |names: &[&str]| -> Vec<(String, Type)> {
        names.iter().map(|name| ((*name).to_owned(), Type::String)).collect()
    };
    let mut resource = texts(&["namespace", "verb", "group", "version", "resource", "subresource", "name"]);
    resource.push(("fieldSelector".into(), Type::Dyn));
    resource.push(("labelSelector".into(), Type::Dyn));
    let mut fields = texts(&["user", "uid"]);
    fields.push(("groups".into(), Type::list(Type::String)));
    fields.push(("extra".into(), Type::map(Type::list(Type::String))));
    fields.push(("resourceAttributes".into(), Type::object(resource)));
    fields.push(("nonResourceAttributes".into(), Type::object(texts(&["path", "verb"]))));
    Type::object(fields)
});

/// What all webhooks count.
#[derive(Clone)]
pub struct WebhookMetrics {
    evaluations: IntCounterVec,
    seconds: HistogramVec,
    fail_open: IntCounterVec,
    exclusions: IntCounterVec,
    condition_errors: IntCounterVec,
}

impl WebhookMetrics {
    /// Registers the metrics.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |end: &str, help: &str, labels: &[&str]| {
            counter_vec(registry, Stability::Alpha, &format!("apiserver_authorization_{end}"), help, labels)
        };
        let buckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        Ok(Self {
            evaluations: counter(
                "webhook_evaluations_total",
                "Round-trips to authorization webhooks.",
                &["name", "result"],
            )?,
            seconds: histogram_vec(
                registry,
                Stability::Alpha,
                "apiserver_authorization_webhook_duration_seconds",
                "Request latency in seconds.",
                &["name", "result"],
                &buckets,
            )?,
            fail_open: counter(
                "webhook_evaluations_fail_open_total",
                "NoOpinion results due to webhook timeout or error.",
                &["name", "result"],
            )?,
            exclusions: counter(
                "match_condition_exclusions_total",
                "Total number of exclusions when an authorization webhook is skipped because match conditions exclude it.",
                &["type", "name"],
            )?,
            condition_errors: counter(
                "match_condition_evaluation_errors_total",
                "Total number of errors when an authorization webhook encounters a match condition error.",
                &["type", "name"],
            )?,
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Review {
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    allowed: bool,
    denied: bool,
    reason: String,
}

/// An authorizer that asks a webhook.
pub struct AccessWebhook {
    name: String,
    remote: Remote,
    version: String,
    timeout: Duration,
    allowed_ttl: Duration,
    other_ttl: Duration,
    denies_on_failure: bool,
    conditions: Vec<(String, Program)>,
    known: Answers<String, Decision>,
    clock: Arc<dyn Clock>,
    metrics: WebhookMetrics,
}

impl AccessWebhook {
    /// As the configuration says, which has been validated.
    pub fn new(
        name: &str,
        config: &WebhookConfig,
        remote: Remote,
        clock: Arc<dyn Clock>,
        metrics: WebhookMetrics,
    ) -> Result<Self, String> {
        let compile = |text: &String| super::config::compile(text).map(|program| (text.clone(), program));
        let kept = |keep: bool, ttl: Duration| if keep { ttl } else { Duration::ZERO };
        Ok(Self {
            name: name.to_owned(),
            remote,
            version: config.subject_access_review_version.clone(),
            timeout: config.timeout,
            allowed_ttl: kept(config.cache_authorized_requests, config.authorized_ttl),
            other_ttl: kept(config.cache_unauthorized_requests, config.unauthorized_ttl),
            denies_on_failure: config.failure_policy == "Deny",
            conditions: config.match_conditions.iter().map(|c| compile(&c.expression)).collect::<Result<_, _>>()?,
            known: Answers::new(),
            clock,
            metrics,
        })
    }

    /// Whether the webhook is to be asked.
    fn matches(&self, spec: &Value) -> Result<bool, String> {
        let mut budget = Budget::new(BUDGET);
        let mut errors = Vec::new();
        for (text, program) in &self.conditions {
            match program.run(&[("request", Val::of(spec, &REQUEST))], &mut budget) {
                Ok(Val::Bool(true)) => {}
                Ok(Val::Bool(false)) => return Ok(false),
                Ok(_) => errors.push(format!("cel evaluation error: expression '{text}' is no bool")),
                Err(error) => errors.push(format!("cel evaluation error: expression '{text}': {error}")),
            }
        }
        if errors.is_empty() { Ok(true) } else { Err(errors.join(", ")) }
    }

    fn failed(&self, why: &str) -> Decision {
        tracing::error!(webhook = %self.name, err = why, "Failed to make webhook authorizer request");
        match self.denies_on_failure {
            true => Decision::Deny(String::new()),
            false => Decision::NoOpinion(String::new()),
        }
    }

    async fn ask(&self, spec: &Value) -> Result<Decision, RemoteError> {
        let body = json!({
            "apiVersion": format!("authorization.k8s.io/{}", self.version), "kind": "SubjectAccessReview",
            "metadata": {"creationTimestamp": null}, "spec": self.versioned(spec), "status": {"allowed": false},
        });
        let asked = tokio::time::timeout(self.timeout, ask_again(|| self.remote.post(&body, self.timeout))).await;
        let late = || RemoteError::Config("context deadline exceeded".into());
        let answer = asked.map_err(|_| late())??;
        let wrong = |why: String| RemoteError::Config(why);
        let status = serde_json::from_value::<Review>(answer).map_err(|error| wrong(error.to_string()))?.status;
        match (status.allowed, status.denied) {
            (true, true) => Err(wrong("webhook subject access review returned both allow and deny response".into())),
            (true, false) => Ok(Decision::Allow(status.reason)),
            (false, true) => Ok(Decision::Deny(status.reason)),
            (false, false) => Ok(Decision::NoOpinion(status.reason)),
        }
    }

    /// The old version says `group` where the new one says `groups`.
    fn versioned(&self, spec: &Value) -> Value {
        let mut spec = spec.clone();
        if self.version == "v1beta1"
            && let Some(fields) = spec.as_object_mut()
            && let Some(groups) = fields.remove("groups")
        {
            fields.insert("group".into(), groups);
        }
        spec
    }
}

/// The spec of a review about the attributes.
fn spec(attributes: &Attributes) -> Value {
    let a = attributes;
    let mut spec = json!({"user": a.user.name});
    if !a.user.uid.is_empty() {
        spec["uid"] = json!(a.user.uid);
    }
    if !a.user.groups.is_empty() {
        spec["groups"] = json!(a.user.groups);
    }
    if !a.user.extra.is_empty() {
        spec["extra"] = json!(a.user.extra);
    }
    if !a.is_resource {
        spec["nonResourceAttributes"] = json!({"path": a.path, "verb": a.verb});
        return spec;
    }
    let mut resource = serde_json::Map::new();
    for (field, text) in [
        ("namespace", &a.namespace),
        ("verb", &a.verb),
        ("group", &a.group),
        ("version", &a.version),
        ("resource", &a.resource),
        ("subresource", &a.subresource),
        ("name", &a.name),
    ] {
        if !text.is_empty() {
            resource.insert(field.to_owned(), json!(text));
        }
    }
    a.selectors.write(&mut resource);
    spec["resourceAttributes"] = Value::Object(resource);
    spec
}

#[async_trait]
impl Authorizer for AccessWebhook {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        let spec = spec(attributes);
        let labels = &["Webhook", self.name.as_str()];
        match self.matches(&spec) {
            Ok(true) => {}
            Ok(false) => {
                self.metrics.exclusions.with_label_values(labels).inc();
                return Decision::NoOpinion(String::new());
            }
            Err(why) => {
                self.metrics.condition_errors.with_label_values(labels).inc();
                return self.failed(&why);
            }
        }
        let key = spec.to_string();
        let began = self.clock.elapsed();
        if let Some(known) = self.known.get(&key, began) {
            return known;
        }
        let outcome = self.ask(&spec).await;
        let now = self.clock.elapsed();
        let result = match &outcome {
            Ok(_) => "success",
            Err(error) if error.to_string().ends_with("context deadline exceeded") => "timeout",
            Err(_) => "error",
        };
        let labels = &[self.name.as_str(), result];
        self.metrics.evaluations.with_label_values(labels).inc();
        self.metrics.seconds.with_label_values(labels).observe(now.saturating_sub(began).as_secs_f64());
        match outcome {
            Ok(decision) => {
                let ttl = if matches!(decision, Decision::Allow(_)) { self.allowed_ttl } else { self.other_ttl };
                if key.len() < LONGEST_KEPT {
                    self.known.put(key, decision.clone(), now, ttl);
                }
                decision
            }
            Err(error) => {
                if !self.denies_on_failure {
                    self.metrics.fail_open.with_label_values(labels).inc();
                }
                self.failed(&error.to_string())
            }
        }
    }

    fn rules_of(&self, _user: &User, _namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        (Vec::new(), vec!["webhook authorizer does not support user rule resolution".into()])
    }
}
