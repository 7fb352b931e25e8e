//! One webhook is asked.

use std::time::Instant;

use generic::admission::AdmissionRequest;
use machinery::{ApiError, ApiResult, patch};
use serde_json::Value;

use super::{Webhooks, config::Webhook, metrics::Called, review};
use crate::admission::{
    expressions::{Evaluation, Subject},
    matching::Matched,
};

impl Webhooks {
    /// Asks a webhook. The object as it changed it, if it did.
    pub(super) async fn call(
        &self,
        webhook: &Webhook,
        matched: &Matched,
        request: &AdmissionRequest,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> ApiResult<Option<Value>> {
        let start = Instant::now();
        let outcome = self.ask(webhook, matched, request, object, old).await;
        if matches!(outcome, Err(Failure::Excluded)) {
            return Ok(None);
        }
        let took = start.elapsed();
        request.waited.add(took);
        let open = webhook.fails_open();
        let (rejected, failed_open) = match &outcome {
            Ok(_) | Err(Failure::Excluded) => (None, false),
            Err(Failure::Denied(error)) => (Some(("no_error", error.status().code)), false),
            Err(_) if open => (None, true),
            Err(Failure::Undecided(_)) => (Some(("apiserver_internal_error", 403)), false),
            Err(Failure::NotAsked(_)) => (Some(("calling_webhook_error", 500)), false),
        };
        let called = Called { webhook: &webhook.name, mutates: self.mutate, took, rejected, failed_open };
        self.metrics.observe(request, &called);
        match outcome {
            Ok(changed) => Ok(changed),
            Err(Failure::Excluded) => Ok(None),
            Err(Failure::Denied(error)) => Err(error),
            Err(Failure::Undecided(why)) if webhook.fails_open() => {
                tracing::warn!(webhook = webhook.name, err = why, "Failed evaluating match conditions, failing open");
                Ok(None)
            }
            Err(Failure::Undecided(why)) => Err(request.reject(object, &why)),
            Err(Failure::NotAsked(why)) if webhook.fails_open() => {
                tracing::warn!(webhook = webhook.name, err = why, "Failed calling webhook, failing open");
                Ok(None)
            }
            Err(Failure::NotAsked(why)) => {
                tracing::warn!(webhook = webhook.name, err = why, "Failed calling webhook, failing closed");
                Err(ApiError::internal(format!("failed calling webhook {:?}: {why}", webhook.name)))
            }
        }
    }

    async fn ask(
        &self,
        webhook: &Webhook,
        matched: &Matched,
        request: &AdmissionRequest,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<Option<Value>, Failure> {
        let version = review::version(webhook)
            .ok_or_else(|| Failure::NotAsked("webhook does not accept known AdmissionReview versions".into()))?;
        let failed = |error: ApiError| Failure::NotAsked(error.to_string());
        let subject = Subject {
            object: matched.sent(object, request).await.map_err(failed)?,
            old: matched.sent(old, request).await.map_err(failed)?,
            about: matched.about(request),
            namespace: Value::Null,
        };
        let holds = Evaluation::of_webhook(&subject, request).hold(&webhook.match_conditions).await;
        if !holds.map_err(Failure::Undecided)? {
            return Err(Failure::Excluded);
        }
        let uid = uuid::Uuid::new_v4().to_string();
        let question = review::question(version, &uid, &subject);
        if request.dry_run && !webhook.takes_dry_runs() {
            let text = format!("admission webhook {:?} does not support dry run", webhook.name);
            return Err(Failure::Denied(ApiError::bad_request(text)));
        }
        let answer = self.caller.call(&webhook.client_config, &question, webhook.timeout()).await;
        let answer = answer.map_err(|error| Failure::NotAsked(format!("failed to call webhook: {error}")))?;
        let mutating = object.is_some();
        let verdict = review::answer(&answer, version, &uid, mutating).map_err(Failure::NotAsked)?;
        request.warnings.extend(verdict.warnings);
        for (key, note) in verdict.notes {
            request.audit.add(format!("{}/{key}", webhook.name), note);
        }
        if let Some(denied) = verdict.denied {
            return Err(Failure::Denied(denied.error(&webhook.name)));
        }
        let Some(patch) = verdict.patch else { return Ok(None) };
        let patched =
            patch::json::apply(&subject.object, &patch).map_err(|error| Failure::NotAsked(error.to_string()))?;
        matched.received(patched, request).await.map(Some).map_err(Failure::Denied)
    }
}

/// How a call ended without a yes.
enum Failure {
    /// The webhook said no.
    Denied(ApiError),
    /// It is not to be asked.
    Excluded,
    /// It cannot be said whether it is to be asked.
    Undecided(String),
    /// It could not be asked, or answered nonsense.
    NotAsked(String),
}
