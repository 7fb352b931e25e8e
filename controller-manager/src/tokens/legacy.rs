//! Tokens in Secrets that were made for accounts by themselves, as it was before 1.24: what nobody has used for a year is
//! marked as invalid, and removed after another one.
//!
//! The API server tells in a ConfigMap since when it notes the use of such tokens, and notes it in a label.

use std::{sync::Arc, time::Duration};

use client::{ApiErrorExt, Scope};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount},
    jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Preconditions},
};
use runtime::clock::Clock;
use serde_json::json;

use super::{ACCOUNT_NAME, ACCOUNT_UID, TYPE};
use crate::{
    StartError,
    context::{Context, now},
    table::Started,
};

const CONTROLLER: &str = "legacy-serviceaccount-token-cleaner-controller";
const PERIOD: Duration = Duration::from_secs(24 * 3600);
const NAMESPACE: &str = "kube-system";
const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// What becomes of a token.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    Stays,
    /// It is unused: nobody may use it any more.
    Invalid,
    /// It has been invalid for long enough.
    Removed,
}

fn date(text: &str) -> Option<Date> {
    text.parse().ok()
}

fn day(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

fn before(now: Timestamp, period: Duration) -> Option<Timestamp> {
    now.checked_sub(SignedDuration::try_from(period).ok()?).ok()
}

/// Decides by what the Secret says; whether it is of an account and unused by Pods is another matter.
fn fate(secret: &Secret, now: Timestamp, period: Duration) -> Fate {
    let Some(limit) = before(now, period) else { return Fate::Stays };
    let created = secret.metadata.creation_timestamp.as_ref().map(|t| t.0);
    if secret.metadata.deletion_timestamp.is_some() || created.is_none_or(|created| created >= limit) {
        return Fate::Stays;
    }
    let label = |name: &str| secret.metadata.labels.as_ref()?.get(name).map(String::as_str);
    match label(LAST_USED).map(date) {
        // It was not used since that is noted.
        None => {}
        Some(Some(used)) if used < day(limit) => {}
        Some(_) => return Fate::Stays,
    }
    match label(INVALID_SINCE).and_then(date) {
        None => Fate::Invalid,
        Some(since) if since >= day(limit) => Fate::Stays,
        Some(_) => Fate::Removed,
    }
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let cleaner = Cleaner {
        reader: context.watching_client().await?,
        client: context.client(CONTROLLER).await?,
        clock: Arc::clone(&context.clock),
        period: context.options.accounts.legacy_service_account_token_clean_up_period,
    };
    let stop = context.tasks.token().clone();
    context.tasks.spawn(CONTROLLER, async move {
        loop {
            if let Err(error) = cleaner.clean().await {
                tracing::error!(error = error.text(), "Error evaluating legacy service account tokens");
            }
            if stop.run_until_cancelled(cleaner.clock.sleep(PERIOD)).await.is_none() {
                return;
            }
        }
    });
    Ok(Started::Running)
}

struct Cleaner {
    /// Reads what the account of the controller may not.
    reader: Client,
    client: Client,
    clock: Arc<dyn Clock>,
    period: Duration,
}

impl Cleaner {
    async fn clean(&self) -> Result<(), kube::Error> {
        let now = now(&*self.clock).0;
        if !self.is_noted(now).await? {
            return Ok(());
        }
        let params = ListParams::default().fields(&format!("type={TYPE}"));
        let secrets = Api::<Secret>::all(self.reader.clone()).list(&params).await?;
        for secret in secrets {
            let fate = fate(&secret, now, self.period);
            if fate == Fate::Stays || !self.is_generated(&secret).await? || self.is_mounted(&secret).await? {
                continue;
            }
            self.carry_out(&secret, &fate, now).await?;
        }
        Ok(())
    }

    /// Whether the use of tokens has been noted for long enough.
    async fn is_noted(&self, now: Timestamp) -> Result<bool, kube::Error> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), NAMESPACE);
        let map = maps.get_opt(TRACKING).await?;
        let since = map.and_then(|map| date(map.data?.get("since")?));
        // The latest moment of that day.
        let since = since.and_then(|date| date.tomorrow().ok()?.to_zoned(TimeZone::UTC).ok());
        let limit = before(now, self.period);
        Ok(since.zip(limit).is_some_and(|(since, limit)| since.timestamp() <= limit))
    }

    /// Whether the Secret belongs to an account that lists it, as those do that were made by themselves.
    async fn is_generated(&self, secret: &Secret) -> Result<bool, kube::Error> {
        let said = |key: &str| secret.annotations().get(key).cloned().unwrap_or_default();
        let (name, uid) = (said(ACCOUNT_NAME), said(ACCOUNT_UID));
        if name.is_empty() {
            return Ok(false);
        }
        let api: Api<ServiceAccount> = Api::namespaced(self.reader.clone(), &secret.namespace().unwrap_or_default());
        let account = api.get_opt(&name).await?.filter(|account| account.uid().unwrap_or_default() == uid);
        let listed = account.and_then(|account| account.secrets).unwrap_or_default();
        Ok(listed.iter().any(|reference| reference.name.as_deref() == Some(&*secret.name_any())))
    }

    async fn is_mounted(&self, secret: &Secret) -> Result<bool, kube::Error> {
        let pods: Api<Pod> = Api::namespaced(self.reader.clone(), &secret.namespace().unwrap_or_default());
        let pods = pods.list(&ListParams::default()).await?;
        let name = secret.name_any();
        let mounts = |pod: &Pod| {
            let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
            let mut secrets = volumes.into_iter().filter_map(|volume| volume.secret.as_ref()?.secret_name.as_deref());
            secrets.any(|mounted| mounted == name)
        };
        Ok(pods.items.iter().any(mounts))
    }

    async fn carry_out(&self, secret: &Secret, fate: &Fate, now: Timestamp) -> Result<(), kube::Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &secret.namespace().unwrap_or_default());
        let name = secret.name_any();
        tracing::info!(namespace = secret.namespace(), name, ?fate, "A legacy service account token is unused");
        if *fate == Fate::Removed {
            let preconditions = Preconditions { uid: secret.uid(), resource_version: secret.resource_version() };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            return match api.delete(&name, &params).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
                _ => Ok(()),
            };
        }
        let patch = json!({"metadata": {"uid": secret.uid(), "labels": {INVALID_SINCE: day(now).to_string()}}});
        match client::merge_patch(&api, &name, Scope::Object, &patch).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => {
                tracing::warn!(%error, "cannot mark a legacy token");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_tokens_are_marked_and_then_removed() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let secret = |created: &str, used: Option<&str>, invalid: Option<&str>| -> Secret {
            let labels: serde_json::Map<String, serde_json::Value> = [(LAST_USED, used), (INVALID_SINCE, invalid)]
                .into_iter()
                .filter_map(|(key, value)| Some((key.to_owned(), value?.into())))
                .collect();
            serde_json::from_value(json!({"metadata": {"creationTimestamp": created, "labels": labels}})).unwrap()
        };
        let (now, year) = (at("2026-06-01T12:00:00Z"), Duration::from_secs(365 * 24 * 3600));
        let (old, new) = ("2024-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
        let cases = [
            (secret(new, None, None), Fate::Stays),
            (secret(old, None, None), Fate::Invalid),
            (secret(old, Some("2026-05-01"), None), Fate::Stays),
            (secret(old, Some("2025-06-01"), None), Fate::Stays),
            (secret(old, Some("2025-05-31"), None), Fate::Invalid),
            (secret(old, Some("nonsense"), None), Fate::Stays),
            (secret(old, None, Some("nonsense")), Fate::Invalid),
            (secret(old, None, Some("2026-01-01")), Fate::Stays),
            (secret(old, None, Some("2025-05-01")), Fate::Removed),
        ];
        for (secret, expected) in cases {
            assert_eq!(fate(&secret, now, year), expected, "{:?}", secret.metadata.labels);
        }
    }
}
