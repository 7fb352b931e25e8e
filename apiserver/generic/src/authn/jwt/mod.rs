//! JSON web tokens of other issuers: OpenID Connect and structured authentication.

mod claims;
pub mod config;
mod keys;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Validation};
use machinery::field::{ErrorList, Path};
use runtime::clock::Clock;
use serde_json::{Map, Value};

use self::{
    claims::Claims,
    config::{AuthenticationConfiguration, JwtAuthenticator},
    keys::{Key, Keys},
};
use super::{AuthnError, TokenAuthenticator, TokenIdentity};

/// Longer tokens are not looked at.
const LONGEST: usize = 256 << 10;
/// Clocks of issuers may be this many seconds ahead.
const NOT_BEFORE_LEEWAY: i64 = 300;
/// Algorithms with keys that issuers keep for themselves.
const ALGORITHMS: [(&str, Algorithm); 8] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
];

/// Accepts tokens of the configured issuers. The issuers can be replaced.
pub struct JwtAuthenticators {
    issuers: ArcSwap<Vec<Issuer>>,
    /// Audiences of the API.
    audiences: Vec<String>,
}

struct Issuer {
    url: String,
    audiences: Vec<String>,
    algorithms: Vec<Algorithm>,
    keys: Keys,
    claims: Claims,
}

/// Algorithms by their names; an error names what is none.
pub fn algorithms(names: &[String]) -> Result<Vec<Algorithm>, String> {
    let find = |name: &String| {
        let found = ALGORITHMS.iter().find(|(known, _)| known == name);
        found.map(|(_, algorithm)| *algorithm).ok_or_else(|| format!("oidc: unsupported signing alg: {name:?}"))
    };
    names.iter().map(find).collect()
}

fn compile(
    config: &AuthenticationConfiguration,
    reserved: &[String],
    algorithms: &[Algorithm],
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Issuer>, ErrorList> {
    let mut errors = config.validate(reserved);
    let mut issuers = Vec::new();
    for (at, jwt) in config.jwt.iter().enumerate() {
        let Some(claims) = Claims::compile(jwt, &Path::new("jwt").index(at), &mut errors) else { continue };
        let JwtAuthenticator { issuer, .. } = jwt;
        issuers.push(Issuer {
            url: issuer.url.clone(),
            audiences: issuer.audiences.clone(),
            algorithms: algorithms.to_vec(),
            keys: Keys::new(
                &issuer.url,
                issuer.discovery_url.as_deref(),
                &issuer.certificate_authority,
                Arc::clone(clock),
            ),
            claims,
        });
    }
    if errors.is_empty() { Ok(issuers) } else { Err(errors) }
}

impl JwtAuthenticators {
    /// With the issuers of a configuration. `reserved` are issuers of the server itself, `algorithms` (all if empty)
    /// those that tokens may be signed by.
    pub fn new(
        config: &AuthenticationConfiguration,
        reserved: &[String],
        algorithms: &[Algorithm],
        audiences: &[String],
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, ErrorList> {
        let this = Self { issuers: ArcSwap::default(), audiences: audiences.to_vec() };
        this.replace(config, reserved, algorithms, clock)?;
        Ok(this)
    }

    /// Other issuers from now on.
    pub fn replace(
        &self,
        config: &AuthenticationConfiguration,
        reserved: &[String],
        algorithms: &[Algorithm],
        clock: &Arc<dyn Clock>,
    ) -> Result<(), ErrorList> {
        let all: Vec<Algorithm> = ALGORITHMS.iter().map(|(_, algorithm)| *algorithm).collect();
        let algorithms = if algorithms.is_empty() { &all } else { algorithms };
        self.issuers.store(Arc::new(compile(config, reserved, algorithms, clock)?));
        Ok(())
    }
}

/// The claims that a token makes, true or not.
fn unverified(token: &str) -> Option<Map<String, Value>> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// Audiences of claims: a text or a list.
fn audiences(claims: &Map<String, Value>) -> BTreeSet<String> {
    match claims.get("aud") {
        Some(Value::String(one)) => BTreeSet::from([one.clone()]),
        Some(Value::Array(list)) => list.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => BTreeSet::new(),
    }
}

impl Issuer {
    async fn verify(&self, token: &str) -> Result<Map<String, Value>, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| format!("malformed jwt: {error}"))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(format!("id token signed with unsupported algorithm {:?}", header.alg));
        }
        let keys = self.keys.find(header.kid.as_deref()).await?;
        let named = |key: &&Key| header.kid.is_none() || key.id.is_none() || key.id == header.kid;
        let mut validation = Validation::new(header.alg);
        validation.validate_aud = false;
        validation.leeway = 0;
        validation.required_spec_claims = ["exp".to_owned()].into();
        let mut last = "failed to verify id token signature".to_owned();
        for key in keys.iter().filter(named) {
            match jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &validation) {
                Ok(data) => return self.check(data.claims),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    fn check(&self, claims: Map<String, Value>) -> Result<Map<String, Value>, String> {
        if claims.get("iss").and_then(Value::as_str) != Some(self.url.as_str()) {
            return Err("id token issued by a different provider".into());
        }
        let not_before = claims.get("nbf").and_then(Value::as_f64).map_or(0, |seconds| seconds as i64);
        if not_before > time::OffsetDateTime::now_utc().unix_timestamp() + NOT_BEFORE_LEEWAY {
            return Err("current time is before the nbf (not before) time".into());
        }
        let has = audiences(&claims);
        match self.audiences.iter().any(|audience| has.contains(audience)) {
            true => Ok(claims),
            false => Err(format!("expected audience in {:?} got {has:?}", self.audiences)),
        }
    }
}

#[async_trait]
impl TokenAuthenticator for JwtAuthenticators {
    async fn authenticate_token(&self, token: &str, wanted: &[String]) -> Result<Option<TokenIdentity>, AuthnError> {
        if token.len() > LONGEST {
            return Ok(None);
        }
        let Some(claims) = unverified(token) else { return Ok(None) };
        let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
        let issuers = self.issuers.load_full();
        let Some(issuer) = issuers.iter().find(|known| known.url == issuer) else { return Ok(None) };
        let verified = issuer.verify(token).await;
        let verified = verified.map_err(|why| AuthnError::Invalid(format!("oidc: verify token: {why}")))?;
        let user = issuer.claims.user(&verified).map_err(|why| AuthnError::Invalid(format!("oidc: {why}")))?;
        // What the issuer is configured for is the API.
        let matched: Vec<String> = wanted.iter().filter(|a| self.audiences.contains(a)).cloned().collect();
        Ok(Some(TokenIdentity { user, audiences: matched }))
    }
}
