//! ServiceAccount tokens: signing keys, claims, and checking tokens against the live objects they are bound to.

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use machinery::meta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_parser::{pem::Pem, prelude::FromDer, public_key::PublicKey, x509::SubjectPublicKeyInfo};

use super::{AuthnError, CREDENTIAL_ID, TokenAuthenticator, TokenIdentity};
use crate::{
    resource::{Resource, decode_cached},
    user::User,
};

/// Seconds that a deleted object's tokens live on.
const DELETION_LEEWAY: i64 = 60;

/// A key that is not usable for tokens.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key itself.
    #[error("service account key: {0}")]
    Key(String),
    /// Who signs in place of this server.
    #[error("{0}")]
    Signer(String),
}

/// Signs tokens.
#[async_trait]
pub trait TokenSigner: Send + Sync {
    /// Signs claims.
    async fn sign(&self, claims: &Claims) -> Result<String, KeyError>;
}

/// Knows the keys that tokens are verified with.
#[async_trait]
pub trait TokenKeys: Send + Sync {
    /// The keys, with that of an id if there is one.
    async fn keys(&self, id: &str) -> Arc<Vec<VerifyingKey>>;

    /// What everybody is told of them.
    fn published(&self) -> PublishedKeys;
}

/// The keys that others verify tokens with.
pub struct PublishedKeys {
    /// The keys.
    pub keys: Vec<VerifyingKey>,
    /// Time for which they may be kept, seconds.
    pub max_age: u64,
}

/// Keys that do not change.
pub struct FixedKeys(Arc<Vec<VerifyingKey>>);

impl FixedKeys {
    /// These.
    pub fn new(keys: Vec<VerifyingKey>) -> Self {
        Self(Arc::new(keys))
    }
}

/// Time for which keys may be kept that do not change, seconds.
const FIXED_MAX_AGE: u64 = 3600;

#[async_trait]
impl TokenKeys for FixedKeys {
    async fn keys(&self, _id: &str) -> Arc<Vec<VerifyingKey>> {
        Arc::clone(&self.0)
    }

    fn published(&self) -> PublishedKeys {
        PublishedKeys { keys: self.0.to_vec(), max_age: FIXED_MAX_AGE }
    }
}

/// One public key that tokens may be signed with.
#[derive(Clone)]
pub struct VerifyingKey {
    id: String,
    algorithm: Algorithm,
    key: DecodingKey,
    jwk: Value,
}

/// The key that new tokens are signed with.
pub struct SigningKey {
    id: String,
    algorithm: Algorithm,
    key: EncodingKey,
}

fn key_id(spki: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(spki))
}

impl VerifyingKey {
    /// From the DER of a SubjectPublicKeyInfo: RSA, or EC on P-256 or P-384.
    pub fn from_spki(spki: &[u8]) -> Result<Self, KeyError> {
        let bad = |e: &str| KeyError::Key(e.to_owned());
        let (_, info) = SubjectPublicKeyInfo::from_der(spki).map_err(|e| bad(&e.to_string()))?;
        let id = key_id(spki);
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match info.parsed().map_err(|e| bad(&e.to_string()))? {
            PublicKey::RSA(rsa) => {
                let strip = |bytes: &[u8]| bytes.iter().copied().skip_while(|b| *b == 0).collect::<Vec<u8>>();
                let (n, e) = (strip(rsa.modulus), strip(rsa.exponent));
                let jwk =
                    json!({"use": "sig", "kty": "RSA", "kid": id, "alg": "RS256", "n": encode(&n), "e": encode(&e)});
                let key = DecodingKey::from_rsa_raw_components(&n, &e);
                Ok(Self { id, algorithm: Algorithm::RS256, key, jwk })
            }
            PublicKey::EC(point) => {
                let data = point.data();
                let (algorithm, alg, curve, size) = match data.len() {
                    65 => (Algorithm::ES256, "ES256", "P-256", 32),
                    97 => (Algorithm::ES384, "ES384", "P-384", 48),
                    _ => return Err(bad("unsupported curve")),
                };
                let (x, y) = (encode(&data[1..=size]), encode(&data[1 + size..]));
                let key = DecodingKey::from_ec_components(&x, &y).map_err(|e| bad(&e.to_string()))?;
                let jwk = json!({"use": "sig", "kty": "EC", "kid": id, "alg": alg, "crv": curve, "x": x, "y": y});
                Ok(Self { id, algorithm, key, jwk })
            }
            _ => Err(bad("unsupported key type")),
        }
    }

    /// The key under another id than that of its own.
    #[must_use]
    pub fn named(mut self, id: String) -> Self {
        self.jwk["kid"] = json!(id);
        self.id = id;
        self
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The JSON Web Key.
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// Name of the algorithm, such as `RS256`.
    pub fn algorithm_name(&self) -> &str {
        self.jwk.get("alg").and_then(Value::as_str).unwrap_or("")
    }

    /// All public keys of a PEM text: public keys, certificates, or private keys (their public half).
    pub fn from_pem(text: &[u8]) -> Result<Vec<Self>, KeyError> {
        let mut keys = Vec::new();
        for block in Pem::iter_from_buffer(text) {
            let block = block.map_err(|e| KeyError::Key(e.to_string()))?;
            let spki = match block.label.as_str() {
                "PUBLIC KEY" => block.contents,
                "CERTIFICATE" => {
                    let certificate = block.parse_x509().map_err(|e| KeyError::Key(e.to_string()))?;
                    certificate.public_key().raw.to_vec()
                }
                "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => {
                    super::keys::public_key_of(&block.label, &block.contents)
                        .map_err(|e| KeyError::Key(e.to_string()))?
                }
                _ => continue,
            };
            keys.push(Self::from_spki(&spki)?);
        }
        if keys.is_empty() { Err(KeyError::Key("no key found".into())) } else { Ok(keys) }
    }
}

impl SigningKey {
    /// From a PEM private key (PKCS#1, PKCS#8 or SEC1).
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let public = VerifyingKey::from_pem(text)?;
        let public = public.into_iter().next().ok_or_else(|| KeyError::Key("no key found".into()))?;
        let key = match public.algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(text).map_err(|e| KeyError::Key(e.to_string()))?,
            _ => {
                let pair = runtime::tls::pkcs8::key_pair(text).map_err(|e| KeyError::Key(e.to_string()))?;
                EncodingKey::from_ec_der(pair.serialized_der())
            }
        };
        Ok(Self { id: public.id, algorithm: public.algorithm, key })
    }
}

#[async_trait]
impl TokenSigner for SigningKey {
    async fn sign(&self, claims: &Claims) -> Result<String, KeyError> {
        let mut header = Header::new(self.algorithm);
        header.typ = None;
        header.kid = Some(self.id.clone());
        jsonwebtoken::encode(&header, claims, &self.key).map_err(|e| KeyError::Key(e.to_string()))
    }
}

/// A name and uid in the claims.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ref {
    /// Name.
    pub name: String,
    /// Uid.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// The private claims under `kubernetes.io`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Private {
    /// Namespace of the ServiceAccount.
    pub namespace: String,
    /// Node of the bound Pod, or the bound Node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Ref>,
    /// Bound Pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Ref>,
    /// Bound Secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Ref>,
    /// The ServiceAccount.
    pub serviceaccount: Ref,
    /// When clients should have a new token, Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

/// Claims of a bound token (times in Unix seconds), or of a legacy Secret token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// Audiences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aud: Vec<String>,
    /// Expiry; absent in legacy tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    /// Issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iat: Option<i64>,
    /// Issuer.
    pub iss: String,
    /// Token id.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// Bindings.
    #[serde(rename = "kubernetes.io", skip_serializing_if = "Option::is_none")]
    pub private: Option<Private>,
    /// Not before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// Subject, `system:serviceaccount:<namespace>:<name>`.
    pub sub: String,
    /// Legacy claims.
    #[serde(rename = "kubernetes.io/serviceaccount/namespace", skip_serializing_if = "String::is_empty")]
    pub legacy_namespace: String,
    /// Legacy claims.
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name", skip_serializing_if = "String::is_empty")]
    pub legacy_secret: String,
    /// Legacy claims.
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name", skip_serializing_if = "String::is_empty")]
    pub legacy_name: String,
    /// Legacy claims.
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid", skip_serializing_if = "String::is_empty")]
    pub legacy_uid: String,
}

/// Issuer of legacy Secret tokens.
const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

/// Checks ServiceAccount tokens.
pub struct ServiceAccountTokens {
    /// Keys that are trusted.
    pub keys: Arc<dyn TokenKeys>,
    /// Issuers that are accepted; the first signs.
    pub issuers: Vec<String>,
    /// Audiences of the API itself.
    pub audiences: Vec<String>,
    /// ServiceAccounts.
    pub service_accounts: Arc<Resource>,
    /// Pods.
    pub pods: Arc<Resource>,
    /// Secrets.
    pub secrets: Arc<Resource>,
    /// Nodes.
    pub nodes: Arc<Resource>,
    /// Whether what a token was made for must still be there.
    pub lookup: bool,
}

#[async_trait]
impl TokenAuthenticator for ServiceAccountTokens {
    async fn authenticate_token(&self, token: &str, audiences: &[String]) -> Result<Option<TokenIdentity>, AuthnError> {
        if !self.is_ours(token) {
            return Ok(None);
        }
        let claims = self.verify(token).await?;
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        let matched: Vec<String> = match claims.iss == LEGACY_ISSUER {
            true => wanted.iter().filter(|a| self.audiences.contains(a)).cloned().collect(),
            false => wanted.iter().filter(|a| claims.aud.contains(a)).cloned().collect(),
        };
        if matched.is_empty() {
            return Err(AuthnError::Invalid(format!(
                "token audiences {:?} is invalid for the target audiences {wanted:?}",
                claims.aud
            )));
        }
        let user = self.user(&claims).await?;
        Ok(Some(TokenIdentity { user, audiences: matched }))
    }
}

impl ServiceAccountTokens {
    /// Whether the unverified token names one of our issuers.
    fn is_ours(&self, token: &str) -> bool {
        let Some(payload) = token.split('.').nth(1) else { return false };
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(payload) else { return false };
        let issuer = serde_json::from_slice::<Value>(&bytes).ok();
        let issuer = issuer.as_ref().and_then(|v| v.get("iss")).and_then(Value::as_str).unwrap_or("");
        issuer == LEGACY_ISSUER || self.issuers.iter().any(|i| i == issuer)
    }

    async fn verify(&self, token: &str) -> Result<Claims, AuthnError> {
        let invalid = |e: String| AuthnError::Invalid(format!("service account token: {e}"));
        let header = jsonwebtoken::decode_header(token).map_err(|e| invalid(e.to_string()))?;
        let mut last = "no key matches".to_owned();
        let keys = self.keys.keys(header.kid.as_deref().unwrap_or_default()).await;
        for key in keys.iter() {
            if header.alg != key.algorithm || header.kid.as_ref().is_some_and(|kid| *kid != key.id) {
                continue;
            }
            let mut validation = Validation::new(key.algorithm);
            validation.validate_aud = false;
            validation.validate_nbf = true;
            validation.required_spec_claims.clear();
            match jsonwebtoken::decode::<Claims>(token, &key.key, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) => last = error.to_string(),
            }
        }
        Err(invalid(last))
    }

    async fn alive(&self, resource: &Resource, namespace: &str, wanted: &Ref) -> Result<(), AuthnError> {
        if self.lookup { alive(resource, namespace, wanted).await } else { Ok(()) }
    }

    async fn user(&self, claims: &Claims) -> Result<User, AuthnError> {
        let legacy;
        let private = match &claims.private {
            Some(private) => private,
            None => {
                legacy = Private {
                    namespace: claims.legacy_namespace.clone(),
                    secret: Some(Ref { name: claims.legacy_secret.clone(), uid: String::new() }),
                    serviceaccount: Ref { name: claims.legacy_name.clone(), uid: claims.legacy_uid.clone() },
                    ..Private::default()
                };
                &legacy
            }
        };
        let namespace = private.namespace.as_str();
        let account = &private.serviceaccount;
        if claims.sub != format!("system:serviceaccount:{namespace}:{}", account.name) {
            return Err(AuthnError::Invalid("service account token: subject does not match claims".into()));
        }
        self.alive(&self.service_accounts, namespace, account).await?;
        let mut user = User {
            name: claims.sub.clone(),
            uid: account.uid.clone(),
            groups: vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")],
            ..User::default()
        };
        let mut extra = |key: &str, value: &str| {
            user.extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        };
        if let Some(secret) = &private.secret {
            self.alive(&self.secrets, namespace, secret).await?;
        }
        if let Some(pod) = &private.pod {
            self.alive(&self.pods, namespace, pod).await?;
            extra("pod-name", &pod.name);
            extra("pod-uid", &pod.uid);
        }
        if let Some(node) = &private.node {
            if private.pod.is_none() {
                self.alive(&self.nodes, "", node).await?;
            }
            extra("node-name", &node.name);
            extra("node-uid", &node.uid);
        }
        if !claims.jti.is_empty() {
            user.extra.insert(CREDENTIAL_ID.into(), vec![format!("JTI={}", claims.jti)]);
        }
        Ok(user)
    }
}

/// Checks that a bound object still is the one the token was made for.
async fn alive(resource: &Resource, namespace: &str, wanted: &Ref) -> Result<(), AuthnError> {
    let gone = || AuthnError::Invalid(format!("token is bound to a {} that is gone", resource.gvk.kind));
    let found = match resource.get_settled(namespace, &wanted.name).await {
        Ok(found) => found,
        Err(error) if error.is_not_found() => return Err(gone()),
        Err(error) => return Err(AuthnError::Unavailable(error.to_string())),
    };
    if !wanted.uid.is_empty() && found.index.uid() != wanted.uid {
        return Err(gone());
    }
    let object = decode_cached(&found).map_err(|e| AuthnError::Unavailable(e.to_string()))?.object;
    if let Some(deleted) = crate::verbs::context::Moment::parse(meta::text(&object, "deletionTimestamp"))
        && deleted.at.unix_timestamp() + DELETION_LEEWAY < OffsetDateTime::now_utc().unix_timestamp()
    {
        return Err(gone());
    }
    Ok(())
}
