//! PodSecurity: Pods keep to the standards that their namespace asks for.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use generic::{
    admission::{AdmissionRequest, Operation, Plugin},
    resource::{Resource, decode_cached},
};
use machinery::{ApiError, ApiResult, field::ErrorList, meta};
use prometheus::{IntCounterVec, Registry};
use rules::pod_security::{Policy, Standard, describe, evaluate};
use runtime::metrics::{Stability, counter_vec};
use serde_json::Value;
use storage::cache::Freshness;

use super::{configuration::PodSecuritySettings, privileged::pod_spec_place};

/// Existing Pods that are checked when a namespace raises its standard, and the time for that.
const EXISTING: usize = 3000;
const EXISTING_TIME: Duration = Duration::from_secs(1);

/// Note in the audit log of what is not checked.
const EXEMPT: &str = "pod-security.kubernetes.io/exempt";

/// The plugin.
pub(super) struct PodSecurity {
    pub(super) namespaces: Arc<Resource>,
    pub(super) pods: Arc<Resource>,
    pub(super) settings: PodSecuritySettings,
    pub(super) metrics: PodSecurityMetrics,
}

/// `pod_security_*`.
#[derive(Clone)]
pub(super) struct PodSecurityMetrics {
    evaluations: IntCounterVec,
    exemptions: IntCounterVec,
    errors: IntCounterVec,
}

impl PodSecurityMetrics {
    /// Registers the metrics.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let asked = ["request_operation", "resource", "subresource"];
        let evaluated = ["decision", "policy_level", "policy_version", "mode"].into_iter().chain(asked);
        let failed = ["fatal"].into_iter().chain(asked);
        Ok(Self {
            evaluations: counter_vec(
                registry,
                Stability::Alpha,
                "pod_security_evaluations_total",
                "Number of policy evaluations that occurred, not counting ignored or exempt requests.",
                &evaluated.collect::<Vec<_>>(),
            )?,
            exemptions: counter_vec(
                registry,
                Stability::Alpha,
                "pod_security_exemptions_total",
                "Number of exempt requests, not counting ignored or out of scope requests.",
                &asked,
            )?,
            errors: counter_vec(
                registry,
                Stability::Alpha,
                "pod_security_errors_total",
                "Number of errors preventing normal evaluation. Non-fatal errors may result in the latest restricted \
                 profile being used for evaluation.",
                &failed.collect::<Vec<_>>(),
            )?,
        })
    }

    fn evaluated(&self, request: &AdmissionRequest, mode: &str, standard: Standard, allowed: bool) {
        let told = standard.to_string();
        let (level, version) = told.split_once(':').unwrap_or((told.as_str(), ""));
        // Versions that are not there yet would make series without end.
        let version = if standard.is_privileged() { "latest" } else { version };
        let decision = if allowed { "allow" } else { "deny" };
        let [operation, resource, part] = asked(request);
        let labels = [decision, level, version, mode, operation, resource, part];
        self.evaluations.with_label_values(&labels).inc();
    }

    fn exempted(&self, request: &AdmissionRequest) {
        self.exemptions.with_label_values(&asked(request)).inc();
    }

    fn failed(&self, request: &AdmissionRequest) {
        let [operation, resource, part] = asked(request);
        self.errors.with_label_values(&["true", operation, resource, part]).inc();
    }
}

/// What a request is about, as metrics label it.
fn asked(request: &AdmissionRequest) -> [&str; 3] {
    let operation = if request.operation == Operation::Create { "create" } else { "update" };
    let resource = match (request.resource.group.as_str(), request.resource.resource.as_str()) {
        ("", "pods") => "pod",
        ("", "namespaces") => "namespace",
        _ => "controller",
    };
    [operation, resource, request.subresource.as_str()]
}

#[async_trait]
impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        let part = request.subresource.as_str();
        writes
            && match (request.resource.group.as_str(), request.resource.resource.as_str()) {
                ("", "namespaces") => part.is_empty(),
                ("", "pods") => matches!(part, "" | "ephemeralcontainers" | "resize"),
                (group, resource) => part.is_empty() && pod_spec_place(group, resource).is_some(),
            }
    }

    async fn validate(&self, request: &AdmissionRequest, object: Option<&Value>, old: Option<&Value>) -> ApiResult<()> {
        let Some(object) = object else { return Ok(()) };
        if request.is("", "namespaces") {
            return self.namespace(request, object, old).await;
        }
        let pods = request.is("", "pods");
        if pods && old.is_some_and(|old| !is_significant(old, object)) {
            return Ok(());
        }
        if let Some(why) = self.exempts(request) {
            request.audit.add(EXEMPT, why);
            self.metrics.exempted(request);
            return Ok(());
        }
        let namespace = self.namespaces.get_settled("", &request.namespace).await;
        let namespace = namespace.inspect_err(|_| self.metrics.failed(request))?;
        let (policy, _) = Policy::with_defaults(&self.settings.defaults, |key| namespace.index.label(key));
        let Some((metadata, spec)) = template(request, object) else { return Ok(()) };
        let class = spec["runtimeClassName"].as_str().unwrap_or_default();
        if self.settings.exemptions.runtime_classes.iter().any(|exempt| exempt == class) {
            request.audit.add(EXEMPT, "runtimeClass");
            self.metrics.exempted(request);
            return Ok(());
        }
        let violations = |standard: Standard| describe(&evaluate(standard, metadata, spec));
        let audited = violations(policy.audit);
        self.metrics.evaluated(request, "audit", policy.audit, audited.is_empty());
        if !audited.is_empty() {
            let note = format!("would violate PodSecurity \"{}\": {audited}", policy.audit);
            request.audit.add("pod-security.kubernetes.io/audit-violations", note);
        }
        if pods {
            request.audit.add("pod-security.kubernetes.io/enforce-policy", policy.enforce.to_string());
            let enforced = violations(policy.enforce);
            self.metrics.evaluated(request, "enforce", policy.enforce, enforced.is_empty());
            if !enforced.is_empty() {
                let why = format!("violates PodSecurity \"{}\": {enforced}", policy.enforce);
                return Err(request.reject(Some(object), &why));
            }
        }
        let warned = violations(policy.warn);
        self.metrics.evaluated(request, "warn", policy.warn, warned.is_empty());
        if !warned.is_empty() {
            request.warnings.add(format!("would violate PodSecurity \"{}\": {warned}", policy.warn));
        }
        Ok(())
    }
}

/// What a Namespace that is being written asks for.
fn policy_of(defaults: &Policy, namespace: &Value) -> (Policy, ErrorList) {
    let labels = &namespace["metadata"]["labels"];
    Policy::with_defaults(defaults, |key| labels.get(key).and_then(Value::as_str))
}

/// Metadata and spec of the Pod, or of the template of one.
fn template<'a>(request: &AdmissionRequest, object: &'a Value) -> Option<(&'a Value, &'a Value)> {
    if request.is("", "pods") {
        return Some((&object["metadata"], &object["spec"]));
    }
    let place = pod_spec_place(&request.resource.group, &request.resource.resource)?;
    let template = place[..place.len() - 1].iter().fold(object, |value, step| &value[*step]);
    Some((&template["metadata"], &template["spec"])).filter(|(_, spec)| spec.is_object())
}

/// Whether an update of a Pod may have brought a violation: another image, or another number of containers.
fn is_significant(old: &Value, new: &Value) -> bool {
    ["initContainers", "containers", "ephemeralContainers"].iter().any(|list| {
        let images = |pod: &Value| -> Vec<Value> {
            pod["spec"][*list].as_array().into_iter().flatten().map(|c| c["image"].clone()).collect()
        };
        images(old) != images(new)
    })
}

impl PodSecurity {
    /// Why a request is not checked, if it is not.
    fn exempts(&self, request: &AdmissionRequest) -> Option<&'static str> {
        let exempt = &self.settings.exemptions;
        if exempt.namespaces.contains(&request.namespace) {
            return Some("namespace");
        }
        exempt.usernames.contains(&request.user.name).then_some("user")
    }

    async fn namespace(&self, request: &AdmissionRequest, new: &Value, old: Option<&Value>) -> ApiResult<()> {
        let defaults = &self.settings.defaults;
        let (policy, errors) = policy_of(defaults, new);
        let before = old.map(|old| policy_of(defaults, old));
        if !errors.is_empty() && before.as_ref().is_none_or(|(_, errors)| errors.is_empty()) {
            return Err(ApiError::invalid(&request.kind.group_kind(), meta::name(new), errors.into_causes()));
        }
        let Some((before, _)) = before else { return Ok(()) };
        let (enforce, before) = (policy.enforce, before.enforce);
        if self.settings.exemptions.namespaces.iter().any(|exempt| exempt == meta::name(new)) {
            return Ok(());
        }
        let relaxed = enforce.version == before.version && enforce.level <= before.level;
        if enforce == before || enforce.is_privileged() || relaxed {
            return Ok(());
        }
        let warnings = self.existing(meta::name(new), enforce).await?;
        request.warnings.extend(warnings);
        Ok(())
    }

    /// Warnings of the Pods that a namespace has already and that violate its new standard.
    async fn existing(&self, namespace: &str, standard: Standard) -> ApiResult<Vec<String>> {
        let prefix = self.pods.key_prefix(namespace)?;
        let snapshot = self.pods.cache().list(&prefix, Freshness::Any).await;
        let snapshot = snapshot.map_err(|error| self.pods.store_error(error))?;
        let end = Instant::now() + EXISTING_TIME;
        let (mut total, mut checked) = (0, 0);
        let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
        for (_, cached) in snapshot.range(None) {
            total += 1;
            if checked >= EXISTING || Instant::now() > end {
                continue;
            }
            checked += 1;
            let pod = decode_cached(cached)?.object;
            let violations = evaluate(standard, &pod["metadata"], &pod["spec"]);
            if violations.is_empty() {
                continue;
            }
            let reasons: Vec<String> = violations.into_iter().map(|v| v.reason).collect();
            let entry = found.entry(reasons.join(", ")).or_insert_with(|| (meta::name(&pod).to_owned(), 0));
            entry.1 += 1;
        }
        Ok(warnings(namespace, standard, &found, checked, total))
    }
}

fn warnings(
    namespace: &str,
    standard: Standard,
    found: &BTreeMap<String, (String, usize)>,
    checked: usize,
    total: usize,
) -> Vec<String> {
    let mut warnings = Vec::new();
    if checked < total {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {checked} of {total} existing pods"
        ));
    }
    if found.is_empty() {
        return warnings;
    }
    warnings.push(format!(
        "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{standard}\""
    ));
    let mut pods: Vec<String> = found
        .iter()
        .map(|(reasons, (pod, count))| match count {
            1 => format!("{pod}: {reasons}"),
            2 => format!("{pod} (and 1 other pod): {reasons}"),
            n => format!("{pod} (and {} other pods): {reasons}", n - 1),
        })
        .collect();
    pods.sort();
    warnings.extend(pods);
    warnings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_images_and_containers_matter_on_update() {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": "x"}]}});
        assert!(!is_significant(&pod, &json!({"metadata": {"labels": {"a": "b"}}, "spec": pod["spec"]})));
        assert!(is_significant(&pod, &json!({"spec": {"containers": [{"name": "a", "image": "y"}]}})));
        let debugged =
            json!({"spec": {"containers": pod["spec"]["containers"], "ephemeralContainers": [{"image": "d"}]}});
        assert!(is_significant(&pod, &debugged));
    }

    #[test]
    fn existing_pods_are_grouped_by_what_is_wrong() {
        let standard = Standard { level: rules::pod_security::Level::Baseline, ..Standard::DEFAULT };
        let found = BTreeMap::from([
            ("privileged".to_owned(), ("b".to_owned(), 3)),
            ("hostPort".to_owned(), ("a".to_owned(), 2)),
            ("host namespaces".to_owned(), ("c".to_owned(), 1)),
        ]);
        assert_eq!(
            warnings("n", standard, &found, 3000, 3001),
            [
                "new PodSecurity enforce level only checked against the first 3000 of 3001 existing pods",
                "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:latest\"",
                "a (and 1 other pod): hostPort",
                "b (and 2 other pods): privileged",
                "c: host namespaces",
            ]
        );
    }
}
