//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: what servers outside say to a request.
//!
//! ```text
//!  configuration --> [config]   typed, followed in the watch cache
//!  request       --> [super::matching] rules, selectors, which version the webhook is sent
//!                --> [super::expressions] conditions that must hold
//!                --> [review]   AdmissionReview out and in
//!                --> [call]     one webhook: failure policy, denial, patch
//! ```

mod call;
mod config;
mod metrics;
mod review;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt, stream::FuturesUnordered};
use generic::{
    admission::{AdmissionRequest, Plugin},
    projection::Projection,
    resource::Resource,
};
use machinery::ApiResult;
use registry::connect::webhook::Caller;
use serde_json::Value;

pub(crate) use config::Configuration;
pub(crate) use metrics::WebhookMetrics;

use super::matching::{Matched, is_reviewed, matched};

/// What both plugins need.
pub(super) struct Webhooks {
    pub(super) configurations: Arc<Projection<Configuration>>,
    pub(super) namespaces: Arc<Resource>,
    pub(super) caller: Arc<Caller>,
    pub(super) metrics: WebhookMetrics,
    /// Whether these may change objects.
    pub(super) mutate: bool,
}

impl Webhooks {
    /// Whether a webhook is to be asked about a request.
    async fn matched(
        &self,
        webhook: &config::Webhook,
        request: &AdmissionRequest,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> ApiResult<Option<Matched>> {
        matched(&webhook.criteria(), &self.namespaces, request, object, old).await
    }

    /// The configurations in the order in which they are asked: by name.
    fn configurations(&self, request: &AdmissionRequest, object: Option<&Value>) -> ApiResult<Vec<Arc<Configuration>>> {
        if !self.configurations.is_synced() {
            return Err(request.reject(object, "not yet ready to handle request"));
        }
        Ok(self.configurations.all())
    }
}

/// Webhooks that may change objects.
pub(super) struct MutatingWebhooks(pub(super) Webhooks);

#[async_trait]
impl Plugin for MutatingWebhooks {
    fn name(&self) -> &'static str {
        "MutatingAdmissionWebhook"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        is_reviewed(request)
    }

    async fn admit(
        &self,
        request: &AdmissionRequest,
        mut object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> ApiResult<()> {
        for configuration in self.0.configurations(request, object.as_deref())? {
            for webhook in &configuration.webhooks {
                let Some(matched) = self.0.matched(webhook, request, object.as_deref(), old).await? else { continue };
                let id = format!("{}/{}", configuration.metadata.name, webhook.name);
                if !request.reinvocation.asks(&id, object.as_deref().unwrap_or(&Value::Null)) {
                    continue;
                }
                let changed = self.0.call(webhook, &matched, request, object.as_deref(), old).await?;
                if let (Some(changed), Some(object)) = (changed, object.as_deref_mut())
                    && changed != *object
                {
                    request.reinvocation.changed();
                    *object = changed;
                }
                if webhook.wants_again() {
                    request.reinvocation.left(&id, object.as_deref().unwrap_or(&Value::Null));
                }
            }
        }
        Ok(())
    }
}

/// Webhooks that only refuse.
pub(super) struct ValidatingWebhooks(pub(super) Webhooks);

#[async_trait]
impl Plugin for ValidatingWebhooks {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        is_reviewed(request)
    }

    async fn validate(&self, request: &AdmissionRequest, object: Option<&Value>, old: Option<&Value>) -> ApiResult<()> {
        let configurations = self.0.configurations(request, object)?;
        let mut matched: Vec<(&config::Webhook, Matched)> = Vec::new();
        for webhook in configurations.iter().flat_map(|configuration| &configuration.webhooks) {
            if let Some(found) = self.0.matched(webhook, request, object, old).await? {
                matched.push((webhook, found));
            }
        }
        let mut calls: FuturesUnordered<_> =
            matched.iter().map(|(webhook, matched)| self.0.call(webhook, matched, request, object, old)).collect();
        while let Some(answer) = calls.next().await {
            answer?;
        }
        Ok(())
    }
}
