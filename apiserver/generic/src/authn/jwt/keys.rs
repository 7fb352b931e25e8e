//! The keys of an issuer: found by its configuration, and read again when a token names one that is not known.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use jsonwebtoken::{DecodingKey, jwk::JwkSet};
use runtime::clock::Clock;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::remote::{Remote, RemoteError};

/// Time for one answer of the issuer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Keys are not read more often than that, whatever tokens name.
const PAUSE: Duration = Duration::from_secs(5);
/// Keys of one issuer at most.
const MOST_KEYS: usize = 256;
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// One key.
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) key: DecodingKey,
}

/// Where keys come from.
pub(super) struct Keys {
    issuer: String,
    discovery: String,
    authorities: Option<String>,
    known: ArcSwapOption<Vec<Key>>,
    /// When they were read last; held while they are read, so that this is done once at a time.
    read: Mutex<Option<Duration>>,
    clock: Arc<dyn Clock>,
}

impl Keys {
    pub(super) fn new(issuer: &str, discovery: Option<&str>, authorities: &str, clock: Arc<dyn Clock>) -> Self {
        let below = || format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'));
        Self {
            issuer: issuer.to_owned(),
            discovery: discovery.filter(|url| !url.is_empty()).map_or_else(below, str::to_owned),
            authorities: (!authorities.is_empty()).then(|| authorities.to_owned()),
            known: ArcSwapOption::empty(),
            read: Mutex::new(None),
            clock,
        }
    }

    /// The keys that a token may be signed with. Reads them if none has the id that the token names.
    pub(super) async fn find(&self, id: Option<&str>) -> Result<Arc<Vec<Key>>, String> {
        let has = |keys: &Arc<Vec<Key>>| match id {
            Some(id) => keys.iter().any(|key| key.id.as_deref() == Some(id)),
            None => true,
        };
        let known = self.known.load_full();
        if let Some(keys) = known.filter(has) {
            return Ok(keys);
        }
        let mut read = self.read.lock().await;
        let known = self.known.load_full();
        let now = self.clock.elapsed();
        let is_fresh = read.is_some_and(|at| now < at + PAUSE);
        if let Some(keys) = known.clone().filter(|keys| is_fresh || has(keys)) {
            return Ok(keys);
        }
        if is_fresh {
            return Err("authenticator not initialized".into());
        }
        *read = Some(now);
        match self.read().await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                self.known.store(Some(Arc::clone(&keys)));
                Ok(keys)
            }
            Err(error) => known.ok_or_else(|| format!("authenticator not initialized: {error}")),
        }
    }

    async fn read(&self) -> Result<Vec<Key>, RemoteError> {
        let authorities = self.authorities.as_deref();
        let wrong = |why: String| RemoteError::Config(why);
        let about = Remote::of_url(&self.discovery, authorities)?.get(DEADLINE).await?;
        let text = |key: &str| about.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("issuer") != self.issuer {
            return Err(wrong(format!(
                "oidc: issuer did not match the issuer returned by provider, expected {:?} got {:?}",
                self.issuer,
                text("issuer")
            )));
        }
        if !text("jwks_uri").starts_with("https://") {
            return Err(wrong(format!("jwks_uri {:?} is no https URL", text("jwks_uri"))));
        }
        let set = Remote::of_url(text("jwks_uri"), authorities)?.get(DEADLINE).await?;
        let set: JwkSet = serde_json::from_value(set).map_err(|error| wrong(format!("keys: {error}")))?;
        let usable = |jwk: &jsonwebtoken::jwk::Jwk| {
            let key = DecodingKey::from_jwk(jwk).ok()?;
            // A shared secret is no proof of the issuer.
            let is_shared = matches!(jwk.algorithm, jsonwebtoken::jwk::AlgorithmParameters::OctetKey(_));
            (!is_shared).then(|| Key { id: jwk.common.key_id.clone(), key })
        };
        Ok(set.keys.iter().filter_map(usable).take(MOST_KEYS).collect())
    }
}
