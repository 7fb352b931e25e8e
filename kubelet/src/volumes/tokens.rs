//! Service account tokens of Pods, renewed before they get old.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccountTokenProjection};
use parking_lot::Mutex;
use rand::Rng;

use crate::objects::{ObjectError, Objects};
use crate::pods;

const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
const MAX_JITTER_SECONDS: i64 = 10;
const DEFAULT_SECONDS: i64 = 3600;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    account: String,
    audience: Option<String>,
    seconds: i64,
}

struct Token {
    text: String,
    issued: Timestamp,
    expires: Timestamp,
}

/// Tokens by Pod and request.
#[derive(Default)]
pub(crate) struct Tokens {
    cache: Mutex<HashMap<Key, Token>>,
}

impl Tokens {
    /// A token that is not yet due for renewal.
    pub(super) async fn get(
        &self,
        pod: &Pod,
        projection: &ServiceAccountTokenProjection,
        objects: &dyn Objects,
    ) -> Result<String, ObjectError> {
        let audience = projection.audience.as_deref().unwrap_or_default();
        let issued = self.of_audience(pod, audience, projection.expiration_seconds, objects).await?;
        Ok(issued.0)
    }

    /// A token for an audience, which may be empty, and when it expires.
    pub(crate) async fn of_audience(
        &self,
        pod: &Pod,
        audience: &str,
        seconds: Option<i64>,
        objects: &dyn Objects,
    ) -> Result<(String, Timestamp), ObjectError> {
        let seconds = seconds.unwrap_or(DEFAULT_SECONDS);
        let audience = Some(audience.to_owned()).filter(|audience| !audience.is_empty());
        let account = pods::spec(pod).service_account_name.clone().unwrap_or_default();
        let key = Key { uid: pods::uid(pod).to_owned(), account, audience, seconds };
        let now = Timestamp::now();
        let cached = self.cache.lock().get(&key).map(|token| (token.text.clone(), is_due(token, now), token.expires));
        if let Some((text, false, expires)) = &cached {
            return Ok((text.clone(), *expires));
        }
        let fresh = self.request(pod, &key, objects, now).await;
        match (fresh, cached) {
            // An old token that still works is better than none.
            (Err(error), Some((text, _, expires))) if expires > now => {
                tracing::warn!(%error, pod = pods::describe(pod), "couldn't update token, the current one is still valid");
                Ok((text, expires))
            }
            (result, _) => result,
        }
    }

    async fn request(
        &self,
        pod: &Pod,
        key: &Key,
        objects: &dyn Objects,
        now: Timestamp,
    ) -> Result<(String, Timestamp), ObjectError> {
        let bound = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(pods::name(pod).to_owned()),
            uid: Some(pods::uid(pod).to_owned()),
        };
        let spec = TokenRequestSpec {
            audiences: Some(key.audience.iter().cloned().collect()),
            bound_object_ref: Some(bound),
            expiration_seconds: Some(key.seconds),
        };
        let status = objects
            .token(pods::namespace(pod), &key.account, spec)
            .await
            .map_err(|error| ObjectError::Other(format!("failed to fetch token: {error}")))?;
        let (Some(text), Some(expires)) = (status.token, status.expiration_timestamp) else {
            return Err(ObjectError::Other("failed to fetch token: the answer holds none".to_owned()));
        };
        self.cache.lock().insert(key.clone(), Token { text: text.clone(), issued: now, expires: expires.0 });
        Ok((text, expires.0))
    }

    /// Forgets a Pod's tokens.
    pub(super) fn forget(&self, uid: &str) {
        self.cache.lock().retain(|key, _| key.uid != uid);
    }
}

/// Older than 80% of its life or a day, less a little so that Pods do not renew together.
fn is_due(token: &Token, now: Timestamp) -> bool {
    let life = token.expires.as_second() - token.issued.as_second();
    let age = now.as_second() - token.issued.as_second();
    let jitter = rand::rng().random_range(0..=MAX_JITTER_SECONDS);
    let limit = (life * 4 / 5).min(i64::try_from(MAX_AGE.as_secs()).unwrap_or(i64::MAX));
    age >= limit - jitter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renews_at_four_fifths_of_life_or_a_day() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let hour = Token { text: String::new(), issued: at(0), expires: at(3600) };
        assert!(!is_due(&hour, at(2869)));
        assert!(is_due(&hour, at(2880)));
        let year = Token { text: String::new(), issued: at(0), expires: at(365 * 86_400) };
        assert!(!is_due(&year, at(86_000)));
        assert!(is_due(&year, at(86_400)));
    }
}
