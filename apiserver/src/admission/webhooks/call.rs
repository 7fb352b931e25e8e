//! One webhook is asked.

use generic::admission::AdmissionRequest;
use machinery::{ApiError, ApiResult, patch};
use serde_json::Value;

use super::{Webhooks, conditions, config::Webhook, matching::Matched, review};

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
        match self.ask(webhook, matched, request, object, old).await {
            Ok(changed) => Ok(changed),
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
        let sent = sent(object, matched, request).await?;
        let sent_old = self::sent(old, matched, request).await?;
        let uid = uuid::Uuid::new_v4().to_string();
        let question = review::question(version, &uid, request, matched, &sent, &sent_old);
        let about = &question["request"];
        if !conditions::hold(&webhook.match_conditions, &sent, &sent_old, about).map_err(Failure::Undecided)? {
            return Ok(None);
        }
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
        let patched = patch::json::apply(&sent, &patch).map_err(|error| Failure::NotAsked(error.to_string()))?;
        received(patched, matched, request).await.map(Some).map_err(Failure::Denied)
    }
}

/// How a call ended without a yes.
enum Failure {
    /// The webhook said no.
    Denied(ApiError),
    /// It cannot be said whether it is to be asked.
    Undecided(String),
    /// It could not be asked, or answered nonsense.
    NotAsked(String),
}

/// An object in the version that the webhook is sent.
async fn sent(object: Option<&Value>, matched: &Matched, request: &AdmissionRequest) -> Result<Value, Failure> {
    let Some(object) = object else { return Ok(Value::Null) };
    let failed = |error: ApiError| Failure::NotAsked(error.to_string());
    let (asked, wanted) = (&request.endpoint, &matched.endpoint);
    match (asked.custom(), wanted.custom()) {
        (Some(_), Some(_)) if matched.is_asked(request) => Ok(object.clone()),
        (Some(from), Some(_)) => {
            let stored = from.unload(object.clone()).await.map_err(failed)?;
            wanted.served(stored).await.map_err(failed)
        }
        _ => wanted.served(object.clone()).await.map_err(failed),
    }
}

/// What the webhook made of an object, in the version that writes work on, with its defaults.
async fn received(object: Value, matched: &Matched, request: &AdmissionRequest) -> ApiResult<Value> {
    let (asked, sent) = (&request.endpoint, &matched.endpoint);
    let mut object = match (asked.custom(), sent.custom()) {
        (Some(to), Some(from)) => {
            let mut object = object;
            if !matched.is_asked(request) {
                object = asked.served(from.unload(object).await?).await?;
            }
            to.check(&mut object);
            to.strategy().defaults(&mut object);
            return Ok(object);
        }
        _ => match sent.conversion {
            Some(conversion) => conversion.to_stored(object),
            None => object,
        },
    };
    if let Some(resource) = asked.resource.as_ref().filter(|resource| resource.gvk == request.kind) {
        resource.strategy.defaults(&mut object);
    }
    Ok(object)
}
