//! Bootstrap tokens: their form and the Secrets that hold them.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    config::{BootstrapToken, Period},
    error::{Context, Result, fail},
    host::Host,
};

/// Stands for a token in printed defaults.
pub const PLACEHOLDER: &str = "abcdef.0123456789abcdef";
/// Form of a token.
pub const PATTERN: &str = r"\A([a-z0-9]{6})\.([a-z0-9]{16})\z";
/// Form of a token's id.
pub const ID_PATTERN: &str = r"\A([a-z0-9]{6})\z";
/// Form of a token's group.
pub const GROUP_PATTERN: &str = r"\Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z";
/// What tokens are good for.
pub const USAGES: [&str; 2] = ["signing", "authentication"];
/// Type of the Secrets.
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";

/// A token in its parts.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Public part.
    pub id: String,
    /// Secret part.
    pub secret: String,
}

impl Token {
    /// Reads `id.secret`.
    pub fn parse(text: &str) -> Result<Self> {
        match text.split_once('.') {
            Some((id, secret)) if is_word(id, 6) && is_word(secret, 16) => {
                Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
            }
            _ => fail!("the bootstrap token {text:?} was not of the form {PATTERN:?}"),
        }
    }
}

/// Whether a text has the form of an id.
pub fn is_id(text: &str) -> bool {
    is_word(text, 6)
}

fn is_word(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// Whether a text has the form of a token's group.
pub fn is_group(text: &str) -> bool {
    text.strip_prefix("system:bootstrappers:").is_some_and(|rest| {
        (1..=256).contains(&rest.len())
            && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b':' || b == b'-')
            && rest.bytes().last().is_some_and(|b| b.is_ascii_alphanumeric())
    })
}

/// A new token.
pub fn generate(host: &dyn Host) -> String {
    format!("{}.{}", host.random_text(6), host.random_text(16))
}

/// Name of the Secret of a token.
pub fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

/// The Secret of a token.
pub fn to_secret(token: &BootstrapToken, now: OffsetDateTime) -> Result<Value> {
    let parts = Token::parse(&token.token)?;
    let mut data = BTreeMap::from([("token-id", parts.id.clone()), ("token-secret", parts.secret)]);
    if !token.description.is_empty() {
        data.insert("description", token.description.clone());
    }
    let expires = match (&token.expires, token.ttl) {
        (Some(at), _) => Some(at.clone()),
        (None, Some(ttl)) if ttl.0 > Duration::ZERO => Some(machinery::time::format(now + ttl.0)),
        (None, _) => None,
    };
    if let Some(at) = expires {
        data.insert("expiration", at);
    }
    let keys = [("signing", "usage-bootstrap-signing"), ("authentication", "usage-bootstrap-authentication")];
    for (usage, key) in keys {
        if token.usages.iter().any(|u| u == usage) {
            data.insert(key, "true".into());
        }
    }
    if !token.groups.is_empty() {
        data.insert("auth-extra-groups", token.groups.join(","));
    }
    let data: BTreeMap<_, _> = data.into_iter().map(|(key, value)| (key, STANDARD.encode(value))).collect();
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret_name(&parts.id), "namespace": "kube-system"},
        "type": SECRET_TYPE,
        "data": data,
    }))
}

/// Reads the token of a Secret.
pub fn from_secret(secret: &Value) -> Result<BootstrapToken> {
    let name = machinery::meta::name(secret);
    let get = |key: &str| -> Option<String> {
        let encoded = secret.get("data")?.get(key)?.as_str()?;
        String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
    };
    let (Some(id), Some(word)) = (get("token-id"), get("token-secret")) else {
        return fail!("bootstrap Token Secret {name:?} has no token-id or token-secret data");
    };
    if name != secret_name(&id) {
        return fail!(
            "bootstrap token name is not of the form 'bootstrap-token-{{token-id}}'. Actual: {name:?}. Expected: {:?}",
            secret_name(&id)
        );
    }
    let parts = Token::parse(&format!("{id}.{word}")).context("bootstrap Token Secret has an invalid format")?;
    let mut usages: Vec<String> = USAGES
        .iter()
        .filter(|usage| get(&format!("usage-bootstrap-{usage}")).as_deref() == Some("true"))
        .map(|usage| (*usage).to_owned())
        .collect();
    usages.sort();
    let groups = get("auth-extra-groups").filter(|g| !g.is_empty());
    Ok(BootstrapToken {
        token: format!("{}.{}", parts.id, parts.secret),
        description: get("description").unwrap_or_default(),
        ttl: None::<Period>,
        expires: get("expiration").filter(|e| !e.is_empty()),
        usages,
        groups: groups.map(|g| g.split(',').map(ToOwned::to_owned).collect()).unwrap_or_default(),
    })
}
