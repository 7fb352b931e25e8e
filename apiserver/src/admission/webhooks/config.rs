//! Webhook configurations as admission needs them.

use std::time::Duration;

use machinery::selector::LabelSelector;
use registry::connect::webhook::ClientConfig;
use rules::validation::match_condition;
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

/// Time of a webhook that names none, seconds.
const TIMEOUT: u64 = 10;

/// A `MutatingWebhookConfiguration` or `ValidatingWebhookConfiguration`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Configuration {
    pub(crate) metadata: Metadata,
    #[serde(deserialize_with = "or_empty")]
    pub(crate) webhooks: Vec<Webhook>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Metadata {
    pub(crate) name: String,
}

/// One webhook.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Webhook {
    pub(crate) name: String,
    pub(crate) client_config: ClientConfig,
    #[serde(deserialize_with = "or_empty")]
    pub(crate) rules: Vec<Rule>,
    pub(crate) failure_policy: Option<String>,
    pub(crate) match_policy: Option<String>,
    pub(crate) namespace_selector: Selector,
    pub(crate) object_selector: Selector,
    pub(crate) side_effects: Option<String>,
    pub(crate) timeout_seconds: Option<u64>,
    #[serde(deserialize_with = "or_empty")]
    pub(crate) admission_review_versions: Vec<String>,
    pub(crate) reinvocation_policy: Option<String>,
    #[serde(deserialize_with = "or_empty")]
    pub(crate) match_conditions: Vec<Condition>,
}

/// What a webhook is asked about.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rule {
    #[serde(deserialize_with = "or_empty")]
    pub(crate) operations: Vec<String>,
    #[serde(deserialize_with = "or_empty")]
    pub(crate) api_groups: Vec<String>,
    #[serde(deserialize_with = "or_empty")]
    pub(crate) api_versions: Vec<String>,
    #[serde(deserialize_with = "or_empty")]
    pub(crate) resources: Vec<String>,
    pub(crate) scope: Option<String>,
}

/// What must hold of a request for a webhook to be asked about it.
#[derive(Debug, Deserialize)]
pub(crate) struct Condition {
    pub(crate) expression: Expression,
}

/// A compiled expression, or what is wrong with it: one that was stored long ago may not compile any more.
#[derive(Debug)]
pub(crate) struct Expression {
    pub(crate) text: String,
    pub(crate) program: Result<cel::Program, String>,
}

impl<'de> Deserialize<'de> for Expression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let program = match_condition(&text);
        Ok(Self { text, program })
    }
}

/// A label selector; everything if absent.
#[derive(Debug, Default)]
pub(crate) struct Selector(pub(crate) Option<LabelSelector>);

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Option::<Value>::deserialize(deserializer)?;
        let parsed = value.filter(|value| !value.is_null()).map(|value| LabelSelector::from_object(&value));
        parsed.transpose().map(Self).map_err(D::Error::custom)
    }
}

impl Selector {
    pub(crate) fn is_everything(&self) -> bool {
        self.0.as_ref().is_none_or(LabelSelector::is_everything)
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.matches_labels(|key| object.pointer("/metadata/labels").and_then(|labels| labels.get(key)?.as_str()))
    }

    pub(crate) fn matches_labels<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.as_ref().is_none_or(|selector| selector.matches(label))
    }
}

fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Webhook {
    /// Time for one call.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.unwrap_or(TIMEOUT))
    }

    /// Whether requests go on when the webhook cannot be asked.
    pub(crate) fn fails_open(&self) -> bool {
        self.failure_policy.as_deref() == Some("Ignore")
    }

    /// Whether it is asked again when others have changed the object after it.
    pub(crate) fn wants_again(&self) -> bool {
        self.reinvocation_policy.as_deref() == Some("IfNeeded")
    }

    /// Whether it may be asked although nothing will be stored.
    pub(crate) fn takes_dry_runs(&self) -> bool {
        matches!(self.side_effects.as_deref(), Some("None" | "NoneOnDryRun"))
    }
}
