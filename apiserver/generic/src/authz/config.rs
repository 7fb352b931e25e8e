//! `AuthorizationConfiguration` of `apiserver.config.k8s.io`, and what may be wrong with it.

use std::{collections::HashSet, path::PathBuf, time::Duration};

use cel::{Program, Type};
use machinery::field::{ErrorList, Path};
use serde::Deserialize;
use serde_json::json;

/// apiVersions of the file.
pub const VERSIONS: [&str; 3] =
    ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];
/// Its kind.
pub const KIND: &str = "AuthorizationConfiguration";
/// Types of authorizers.
const TYPES: [&str; 6] = ["ABAC", "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The file.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct AuthorizationConfiguration {
    /// Authorizers in the order in which they are asked.
    pub authorizers: Vec<AuthorizerConfig>,
}

/// An authorizer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct AuthorizerConfig {
    /// `Node`, `RBAC`, `ABAC` (with the policies of `--authorization-policy-file`), `Webhook`, `AlwaysAllow`,
    /// `AlwaysDeny`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name, for logs and metrics.
    pub name: String,
    /// A webhook.
    pub webhook: Option<WebhookConfig>,
}

/// A webhook.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct WebhookConfig {
    /// How long "allowed" holds.
    #[serde(rename = "authorizedTTL", deserialize_with = "duration")]
    pub authorized_ttl: Duration,
    /// Whether it holds at all.
    pub cache_authorized_requests: bool,
    /// How long other answers hold.
    #[serde(rename = "unauthorizedTTL", deserialize_with = "duration")]
    pub unauthorized_ttl: Duration,
    /// Whether they hold at all.
    pub cache_unauthorized_requests: bool,
    /// Time for an answer.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// Version of the reviews that are posted.
    pub subject_access_review_version: String,
    /// Version of the reviews that conditions see.
    pub match_condition_subject_access_review_version: String,
    /// What a failure means: `NoOpinion` or `Deny`.
    pub failure_policy: String,
    /// Where it is.
    pub connection_info: ConnectionInfo,
    /// What must hold for it to be asked.
    pub match_conditions: Vec<MatchCondition>,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            authorized_ttl: Duration::from_secs(300),
            cache_authorized_requests: true,
            unauthorized_ttl: Duration::from_secs(30),
            cache_unauthorized_requests: true,
            timeout: Duration::ZERO,
            subject_access_review_version: String::new(),
            match_condition_subject_access_review_version: String::new(),
            failure_policy: String::new(),
            connection_info: ConnectionInfo::default(),
            match_conditions: Vec::new(),
        }
    }
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    use serde::de::Error;
    let text = String::deserialize(deserializer)?;
    let parsed = machinery::duration::parse(&text).map_err(D::Error::custom)?;
    Duration::try_from(parsed).map_err(|_| D::Error::custom(format!("negative duration {text}")))
}

/// Where a webhook is.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct ConnectionInfo {
    /// `KubeConfigFile`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The file.
    pub kube_config_file: Option<PathBuf>,
}

/// A condition.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct MatchCondition {
    /// It sees the review's spec as `request`.
    pub expression: String,
}

impl AuthorizationConfiguration {
    /// All that is wrong.
    pub fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::default();
        let root = Path::new("authorizers");
        if self.authorizers.is_empty() {
            errors.required(&root, "at least one authorization mode must be defined");
        }
        let (mut types, mut names) = (HashSet::new(), HashSet::new());
        for (at, authorizer) in self.authorizers.iter().enumerate() {
            let path = root.index(at);
            let (kind, name) = (&authorizer.kind, &authorizer.name);
            if kind.is_empty() {
                errors.required(&path.child("type"), "");
            } else if !TYPES.contains(&kind.as_str()) {
                errors.not_supported(&path.child("type"), &json!(kind), &TYPES);
            } else if kind != "Webhook" && !types.insert(kind) {
                errors.duplicate(&path.child("type"), &json!(kind));
            }
            if name.is_empty() {
                errors.required(&path.child("name"), "");
            } else if !names.insert(name) {
                errors.duplicate(&path.child("name"), &json!(name));
            } else {
                errors.invalid_all(&path.child("name"), &json!(name), machinery::names::dns1123_subdomain(name));
            }
            let path = path.child("webhook");
            match (&authorizer.webhook, kind == "Webhook") {
                (None, true) => errors.required(&path, "required when type=Webhook"),
                (Some(_), false) => {
                    errors.invalid(&path, &json!("non-null"), "may only be specified when type=Webhook")
                }
                (Some(webhook), true) => webhook.validate(&path, &mut errors),
                (None, false) => {}
            }
        }
        errors
    }
}

impl WebhookConfig {
    fn validate(&self, path: &Path, errors: &mut ErrorList) {
        let timeout = path.child("timeout");
        if self.timeout.is_zero() {
            errors.required(&timeout, "");
        } else if self.timeout > LONGEST_TIMEOUT {
            errors.invalid(&timeout, &json!(runtime::flags::format_duration(self.timeout)), "must be <= 30s");
        }
        for (field, ttl) in [("authorizedTTL", self.authorized_ttl), ("unauthorizedTTL", self.unauthorized_ttl)] {
            if ttl.is_zero() {
                errors.required(&path.child(field), "");
            }
        }
        let mut named = |field: &str, value: &str, supported: &[&str]| match value {
            "" => errors.required(&path.child(field), ""),
            value if !supported.contains(&value) => {
                errors.not_supported(&path.child(field), &json!(value), supported);
            }
            _ => {}
        };
        named("subjectAccessReviewVersion", &self.subject_access_review_version, &["v1", "v1beta1"]);
        if !self.match_conditions.is_empty() {
            let version = &self.match_condition_subject_access_review_version;
            named("matchConditionSubjectAccessReviewVersion", version, &["v1"]);
        }
        named("failurePolicy", &self.failure_policy, &["NoOpinion", "Deny"]);
        self.connection_info.validate(&path.child("connectionInfo"), errors);
        for (at, condition) in self.match_conditions.iter().enumerate() {
            let path = path.child("matchConditions").index(at).child("expression");
            if let Err(why) = compile(&condition.expression) {
                errors.invalid(&path, &json!(condition.expression), &why);
            }
        }
    }
}

impl ConnectionInfo {
    fn validate(&self, path: &Path, errors: &mut ErrorList) {
        let file_path = path.child("kubeConfigFile");
        match (self.kind.as_str(), &self.kube_config_file) {
            ("", _) => errors.required(&path.child("type"), ""),
            ("KubeConfigFile", None) => errors.required(&file_path, ""),
            ("KubeConfigFile", Some(file)) if !file.is_absolute() => {
                errors.invalid(&file_path, &json!(file), "must be an absolute path");
            }
            ("KubeConfigFile", Some(file)) => match std::fs::metadata(file) {
                Ok(found) if found.is_file() => {}
                Ok(_) => errors.invalid(&file_path, &json!(file), "must be a regular file"),
                Err(error) => errors.invalid(&file_path, &json!(file), &format!("error loading file: {error}")),
            },
            // The API server is no Pod that could reach itself by its ServiceAccount.
            (kind, _) => errors.not_supported(&path.child("type"), &json!(kind), &["KubeConfigFile"]),
        }
    }
}

/// Compiles a condition.
pub(super) fn compile(expression: &str) -> Result<Program, String> {
    let program = Program::compile(expression, &[("request", &super::webhook::REQUEST)]);
    let program = program.map_err(|error| format!("compilation failed: {error}"))?;
    match program.result() {
        Type::Bool | Type::Dyn => Ok(program),
        _ => Err("must evaluate to bool".into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn told(authorizers: Value) -> Vec<String> {
        let config: AuthorizationConfiguration =
            serde_json::from_value(json!({"authorizers": authorizers})).expect("a configuration");
        config.validate().iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert!(told(json!([]))[0].contains("at least one authorization mode must be defined"));
        assert!(told(json!([{"type": "Node", "name": "n"}, {"type": "RBAC", "name": "r"}])).is_empty());
        let webhook = |more: Value| {
            let mut webhook = json!({"timeout": "3s", "failurePolicy": "Deny", "subjectAccessReviewVersion": "v1",
                "matchConditionSubjectAccessReviewVersion": "v1",
                "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": "/dev/null"}});
            for (key, value) in more.as_object().into_iter().flatten() {
                webhook[key] = value.clone();
            }
            told(json!([{"type": "Webhook", "name": "w", "webhook": webhook}]))
        };
        assert_eq!(webhook(json!({})).len(), 1, "/dev/null is no regular file");
        for (more, wanted) in [
            (json!({"timeout": "31s"}), "must be <= 30s"),
            (json!({"failurePolicy": "Ignore"}), "supported values: \"NoOpinion\", \"Deny\""),
            (json!({"connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": "a"}}), "must be an absolute path"),
            (json!({"matchConditions": [{"expression": "request.user"}]}), "must evaluate to bool"),
            (json!({"matchConditions": [{"expression": "request.nothing == 1"}]}), "compilation failed"),
        ] {
            assert!(webhook(more).iter().any(|text| text.contains(wanted)), "{wanted}");
        }
        for (authorizers, wanted) in [
            (json!([{"type": "Oracle", "name": "a"}]), "Unsupported value"),
            (json!([{"type": "RBAC", "name": "a"}, {"type": "RBAC", "name": "b"}]), "Duplicate value"),
            (json!([{"type": "RBAC", "name": "a"}, {"type": "Node", "name": "a"}]), "Duplicate value"),
            (json!([{"type": "RBAC"}]), "Required value"),
            (json!([{"type": "Webhook", "name": "w"}]), "required when type=Webhook"),
        ] {
            assert!(told(authorizers).iter().any(|text| text.contains(wanted)), "{wanted}");
        }
    }
}
