//! Bootstrap tokens: `<id>.<secret>` kept in Secrets `kube-system/bootstrap-token-<id>`.

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use sha2::{Digest, Sha256};
use storage::cache::Freshness;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{AuthnError, TokenAuthenticator, TokenIdentity};
use crate::{resource::Resource, user::User};

const DEFAULT_GROUP: &str = "system:bootstrappers";

/// Authenticates bootstrap tokens against the stored Secrets.
pub struct BootstrapTokens {
    /// The Secrets resource.
    pub secrets: Arc<Resource>,
}

/// Splits a token into id and secret if it has the form `[a-z0-9]{6}.[a-z0-9]{16}`.
fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

#[async_trait]
impl TokenAuthenticator for BootstrapTokens {
    async fn authenticate_token(
        &self,
        token: &str,
        _audiences: &[String],
    ) -> Result<Option<TokenIdentity>, AuthnError> {
        let Some((id, secret)) = split(token) else { return Ok(None) };
        let name = format!("bootstrap-token-{id}");
        let found = match self.secrets.get("kube-system", &name, Freshness::Any).await {
            Ok(found) => found,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(AuthnError::Unavailable(error.to_string())),
        };
        let object: Value = serde_json::from_slice(&found.json).map_err(|e| AuthnError::Unavailable(e.to_string()))?;
        Ok(check(&object, id, secret).map(|user| TokenIdentity { user, audiences: Vec::new() }))
    }
}

fn check(object: &Value, id: &str, secret: &str) -> Option<User> {
    let data = |key: &str| -> String {
        let encoded = object.get("data").and_then(|d| d.get(key)).and_then(Value::as_str).unwrap_or("");
        STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
    };
    let right_kind = object.get("type").and_then(Value::as_str) == Some("bootstrap.kubernetes.io/token");
    let usable = right_kind
        && !machinery::meta::is_deleting(object)
        && data("token-id") == id
        && Sha256::digest(data("token-secret")) == Sha256::digest(secret)
        && data("usage-bootstrap-authentication") == "true"
        && !expired(&data("expiration"));
    if !usable {
        return None;
    }
    let mut groups = vec![DEFAULT_GROUP.to_owned()];
    let extra = data("auth-extra-groups");
    for group in extra.split(',').map(str::trim).filter(|g| !g.is_empty()) {
        if !group.starts_with("system:bootstrappers:") {
            return None;
        }
        groups.push(group.to_owned());
    }
    Some(User { name: format!("system:bootstrap:{id}"), groups, ..User::default() })
}

/// An unreadable expiration counts as passed.
fn expired(expiration: &str) -> bool {
    !expiration.is_empty()
        && OffsetDateTime::parse(expiration, &Rfc3339).map_or(true, |at| at <= OffsetDateTime::now_utc())
}
