//! Webhook configurations as admission needs them.

use std::time::Duration;

use registry::connect::webhook::ClientConfig;
use rules::policy::{Asks, Scope, Yields};
use serde::{Deserialize, Deserializer};

use crate::admission::{
    criteria::{Criteria, Metadata, Rule, Selector, or_empty},
    expressions::Expression,
};

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
    #[serde(deserialize_with = "conditions")]
    pub(crate) match_conditions: Vec<Expression>,
}

/// What must hold of a request for a webhook to be asked about it.
fn conditions<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Expression>, D::Error> {
    #[derive(Deserialize)]
    struct Condition {
        expression: String,
    }
    let given: Vec<Condition> = or_empty(deserializer)?;
    let scope = Scope::of_webhook();
    let compile = |one: Condition| Expression::compile(one.expression, &scope, Yields::Bool, Asks::Authorizer);
    Ok(given.into_iter().map(compile).collect())
}

impl Webhook {
    /// What it is asked about.
    pub(crate) fn criteria(&self) -> Criteria<'_> {
        Criteria {
            rules: Some(&self.rules),
            excluded: &[],
            match_policy: self.match_policy.as_deref(),
            namespaces: &self.namespace_selector,
            objects: &self.object_selector,
        }
    }

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
