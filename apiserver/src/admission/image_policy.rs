//! ImagePolicyWebhook: a server outside decides which images may run.

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use client::answers::Answers;
use generic::{
    admission::{AdmissionRequest, Operation, Plugin},
    remote::{Remote, RemoteError, again},
};
use machinery::{ApiResult, meta};
use runtime::{clock::Clock, flags::format_duration};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Prefix of what the audit log is told.
const AUDIT_PREFIX: &str = "imagepolicywebhook.image-policy.k8s.io/";
/// What annotations of Pods have in their names that are shown to the server.
const SHOWN: &str = ".image-policy.k8s.io/";
/// Time for one answer.
const DEADLINE: Duration = Duration::from_secs(30);
/// Longest review whose answer is kept.
const LONGEST_KEPT: usize = 64 << 10;
const DEFAULT: i64 = 0;
const DISABLED: i64 = -1;

/// What the operator sets, as it stands in the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ImagePolicyFile {
    kube_config_file: PathBuf,
    #[serde(rename = "allowTTL")]
    allow_ttl: i64,
    #[serde(rename = "denyTTL")]
    deny_ttl: i64,
    retry_backoff: i64,
    default_allow: bool,
}

/// What the operator sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ImagePolicySettings {
    kubeconfig: PathBuf,
    allow_ttl: Duration,
    deny_ttl: Duration,
    pause: Duration,
    allows_on_failure: bool,
}

/// A time of the file in `unit`s: -1 is none, 0 the default.
fn time(units: i64, unit: Duration, [min, max, default]: [Duration; 3]) -> Result<Duration, String> {
    match units {
        DISABLED => return Ok(Duration::ZERO),
        DEFAULT => return Ok(default),
        _ => {}
    }
    let value = u32::try_from(units).ok().map(|units| unit.saturating_mul(units));
    match value {
        Some(value) if value > min && value <= max => Ok(value),
        other => {
            let shown = other.map_or_else(|| units.to_string(), format_duration);
            let (min, max) = (format_duration(min), format_duration(max));
            Err(format!("valid value is between {min} and {max}, got {shown}"))
        }
    }
}

impl ImagePolicyFile {
    /// The settings; files are found from `directory`.
    pub(super) fn settings(self, directory: &std::path::Path) -> Result<ImagePolicySettings, String> {
        const SECOND: Duration = Duration::from_secs(1);
        const MINUTE: Duration = Duration::from_secs(60);
        let pauses = [Duration::from_nanos(1), 5 * MINUTE, Duration::from_millis(500)];
        Ok(ImagePolicySettings {
            kubeconfig: directory.join(self.kube_config_file),
            pause: time(self.retry_backoff, Duration::from_millis(1), pauses)?,
            allow_ttl: time(self.allow_ttl, SECOND, [SECOND, 30 * MINUTE, 5 * MINUTE])?,
            deny_ttl: time(self.deny_ttl, SECOND, [SECOND, 30 * MINUTE, 30 * SECOND])?,
            allows_on_failure: self.default_allow,
        })
    }
}

/// What the server says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    allowed: bool,
    reason: String,
    audit_annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Review {
    status: Status,
}

/// Asks the server. Answers are kept for a while.
pub(super) struct ImageReviewer {
    remote: Remote,
    settings: ImagePolicySettings,
    known: Answers<String, Status>,
    clock: Arc<dyn Clock>,
}

impl ImageReviewer {
    /// Asks the server of the kubeconfig file.
    pub(super) async fn new(settings: ImagePolicySettings, clock: Arc<dyn Clock>) -> Result<Self, RemoteError> {
        let remote = Remote::of_kubeconfig(&settings.kubeconfig).await?;
        Ok(Self { remote, settings, known: Answers::new(), clock })
    }

    async fn ask(&self, spec: &Value) -> Result<Status, RemoteError> {
        let key = spec.to_string();
        if let Some(known) = self.known.get(&key, self.clock.elapsed()) {
            return Ok(known);
        }
        let body = json!({
            "apiVersion": "imagepolicy.k8s.io/v1alpha1", "kind": "ImageReview",
            "metadata": {"creationTimestamp": null}, "spec": spec, "status": {"allowed": false},
        });
        let call = || self.remote.post(&body, DEADLINE);
        let answer = again(self.settings.pause, RemoteError::may_pass, call).await?;
        let decode = |error: serde_json::Error| RemoteError::Config(format!("ImageReview: {error}"));
        let status = serde_json::from_value::<Review>(answer).map_err(decode)?.status;
        let ttl = if status.allowed { self.settings.allow_ttl } else { self.settings.deny_ttl };
        if key.len() < LONGEST_KEPT {
            self.known.put(key, status.clone(), self.clock.elapsed(), ttl);
        }
        Ok(status)
    }
}

/// The plugin.
pub(super) struct ImagePolicyWebhook {
    pub(super) reviewer: Arc<ImageReviewer>,
}

/// What the server is asked about.
fn spec(pod: &Value, namespace: &str, ephemeral: bool) -> Value {
    let lists: &[&str] = if ephemeral { &["ephemeralContainers"] } else { &["containers", "initContainers"] };
    let containers = lists.iter().flat_map(|list| pod["spec"][*list].as_array().into_iter().flatten());
    let images: Vec<Value> = containers.map(|container| json!({"image": container["image"]})).collect();
    let annotations: Map<String, Value> = meta::text_map(pod, "annotations")
        .filter(|(key, _)| key.contains(SHOWN))
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect();
    let mut spec = json!({"containers": images, "namespace": namespace});
    if !annotations.is_empty() {
        spec["annotations"] = Value::Object(annotations);
    }
    spec
}

#[async_trait]
impl Plugin for ImagePolicyWebhook {
    fn name(&self) -> &'static str {
        "ImagePolicyWebhook"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update)
            && request.is("", "pods")
            && matches!(request.subresource.as_str(), "" | "ephemeralcontainers")
    }

    async fn validate(
        &self,
        request: &AdmissionRequest,
        object: Option<&Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let Some(pod) = object else { return Ok(()) };
        let status = match self.reviewer.ask(&spec(pod, &request.namespace, !request.subresource.is_empty())).await {
            Ok(status) => status,
            Err(error) => {
                tracing::info!(v = 2, "error contacting webhook backend: {error}");
                if self.reviewer.settings.allows_on_failure {
                    request.audit.add(format!("{AUDIT_PREFIX}failed-open"), "true");
                    tracing::info!(v = 2, "resource allowed in spite of webhook backend failure");
                    return Ok(());
                }
                tracing::info!(v = 2, "resource not allowed due to webhook backend failure ");
                return Err(request.reject(object, &error.to_string()));
            }
        };
        for (key, value) in &status.audit_annotations {
            request.audit.add(format!("{AUDIT_PREFIX}{key}"), value);
        }
        match (status.allowed, status.reason.as_str()) {
            (true, _) => Ok(()),
            (false, "") => Err(request.reject(object, "one or more images rejected by webhook backend")),
            (false, why) => {
                let why = format!("image policy webhook backend denied one or more images: {why}");
                Err(request.reject(object, &why))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_bounds() {
        let of = |allow_ttl, deny_ttl, retry_backoff| {
            let file = ImagePolicyFile { allow_ttl, deny_ttl, retry_backoff, ..ImagePolicyFile::default() };
            file.settings("/etc".as_ref()).map(|s| [s.allow_ttl, s.deny_ttl, s.pause].map(|time| time.as_millis()))
        };
        assert_eq!(of(0, 0, 0), Ok([300_000, 30_000, 500]));
        assert_eq!(of(-1, 60, 1), Ok([0, 60_000, 1]));
        assert_eq!(of(1801, 0, 0), Err("valid value is between 1s and 30m0s, got 30m1s".into()));
        assert_eq!(of(0, 1, 0), Err("valid value is between 1s and 30m0s, got 1s".into()));
        assert_eq!(of(0, 0, 300_001), Err("valid value is between 1ns and 5m0s, got 5m0.001s".into()));
        assert!(of(-2, 0, 0).is_err());
    }

    #[test]
    fn the_server_is_shown_images_and_what_is_meant_for_it() {
        let pod = json!({
            "metadata": {"annotations": {"team.image-policy.k8s.io/ticket": "1", "other": "2"}},
            "spec": {"containers": [{"image": "a"}], "initContainers": [{"image": "b"}],
                "ephemeralContainers": [{"image": "c"}]},
        });
        let annotations = json!({"team.image-policy.k8s.io/ticket": "1"});
        assert_eq!(
            spec(&pod, "ns", false),
            json!({"containers": [{"image": "a"}, {"image": "b"}], "namespace": "ns", "annotations": annotations})
        );
        assert_eq!(spec(&pod, "ns", true)["containers"], json!([{"image": "c"}]));
    }
}
