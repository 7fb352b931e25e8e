//! Bearer tokens that another server knows: TokenReviews are posted to it.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use client::answers::Answers;
use runtime::clock::Clock;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{AuthnError, TokenAuthenticator, TokenIdentity};
use crate::{
    remote::{Remote, RemoteError, again},
    user::User,
};

/// Time for one answer.
const DEADLINE: Duration = Duration::from_secs(30);
/// Pause before the second try of a call that fails.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Review {
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    authenticated: bool,
    user: UserInfo,
    audiences: Vec<String>,
    error: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct UserInfo {
    username: String,
    uid: String,
    groups: Vec<String>,
    extra: std::collections::BTreeMap<String, Vec<String>>,
}

/// Asks a webhook about tokens. Answers are kept for a while, by the hash of the token.
pub struct TokenWebhook {
    remote: Remote,
    version: String,
    audiences: Vec<String>,
    ttl: Duration,
    known: Answers<[u8; 32], Option<TokenIdentity>>,
    clock: Arc<dyn Clock>,
}

impl TokenWebhook {
    /// Asks `remote` in `authentication.k8s.io/<version>` about tokens for `audiences`.
    pub fn new(remote: Remote, version: &str, audiences: &[String], ttl: Duration, clock: Arc<dyn Clock>) -> Self {
        let (version, audiences) = (version.to_owned(), audiences.to_vec());
        Self { remote, version, audiences, ttl, known: Answers::new(), clock }
    }

    async fn ask(&self, token: &str, wanted: &[String]) -> Result<Status, RemoteError> {
        let body = json!({
            "apiVersion": format!("authentication.k8s.io/{}", self.version), "kind": "TokenReview",
            "metadata": {"creationTimestamp": null},
            "spec": {"token": token, "audiences": wanted}, "status": {"user": {}},
        });
        let answer = ask_again(|| self.remote.post(&body, DEADLINE)).await?;
        let decode = |error: serde_json::Error| RemoteError::Config(format!("TokenReview: {error}"));
        Ok(serde_json::from_value::<Review>(answer).map_err(decode)?.status)
    }
}

/// Asks again what failed for a reason that may pass. What was late once is not waited for again.
pub(crate) async fn ask_again<T, F>(call: impl FnMut() -> F) -> Result<T, RemoteError>
where
    F: Future<Output = Result<T, RemoteError>>,
{
    again(PAUSE, |error| error.may_pass() && !error.is_late(), call).await
}

#[async_trait]
impl TokenAuthenticator for TokenWebhook {
    async fn authenticate_token(&self, token: &str, audiences: &[String]) -> Result<Option<TokenIdentity>, AuthnError> {
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        let mut hash = Sha256::new();
        hash.update(token.as_bytes());
        for audience in wanted {
            hash.update([0]);
            hash.update(audience.as_bytes());
        }
        let key: [u8; 32] = hash.finalize().into();
        if let Some(known) = self.known.get(&key, self.clock.elapsed()) {
            return Ok(known);
        }
        let status = self.ask(token, wanted).await.map_err(|error| AuthnError::Unavailable(error.to_string()))?;
        if !status.authenticated && !status.error.is_empty() {
            return Err(AuthnError::Invalid(status.error));
        }
        // A webhook that knows no audiences answers for the API.
        let for_us = status.audiences.iter().any(|audience| wanted.contains(audience))
            || (status.audiences.is_empty() && wanted.iter().any(|audience| self.audiences.contains(audience)));
        let UserInfo { username, uid, groups, extra } = status.user;
        let identity = (status.authenticated && (for_us || wanted.is_empty())).then(|| TokenIdentity {
            user: User { name: username, uid, groups, extra },
            audiences: status.audiences.into_iter().filter(|audience| wanted.contains(audience)).collect(),
        });
        self.known.put(key, identity.clone(), self.clock.elapsed(), self.ttl);
        Ok(identity)
    }
}
