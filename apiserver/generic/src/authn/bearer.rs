//! `Authorization: Bearer`, and the token in a WebSocket subprotocol.

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header, request::Parts};

use super::{Authenticator, AuthnError, Peer, TokenAuthenticator, TokenIdentity};
use crate::user::User;

const PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Asks token authenticators in order; the first that knows the token decides.
pub struct Bearer(pub Vec<Arc<dyn TokenAuthenticator>>);

impl Bearer {
    /// Resolves a token. `Ok(None)`: nobody knows it. What one refuses another may accept.
    pub async fn resolve(&self, token: &str, audiences: &[String]) -> Result<Option<TokenIdentity>, AuthnError> {
        let mut refusals = Vec::new();
        for authenticator in &self.0 {
            match authenticator.authenticate_token(token, audiences).await {
                Ok(Some(identity)) => return Ok(Some(identity)),
                Ok(None) => {}
                Err(error) => refusals.push(error),
            }
        }
        match refusals.len() {
            0 => Ok(None),
            1 => Err(refusals.remove(0)),
            _ => {
                let all: Vec<String> = refusals.iter().map(ToString::to_string).collect();
                Err(AuthnError::Invalid(format!("[{}]", all.join(", "))))
            }
        }
    }
}

#[async_trait]
impl Authenticator for Bearer {
    async fn authenticate(&self, request: &mut Parts, _peer: &Peer) -> Result<Option<User>, AuthnError> {
        let token = match from_header(&request.headers) {
            Some(token) => Some(token),
            None => take_from_protocol(&mut request.headers),
        };
        let Some(token) = token else { return Ok(None) };
        match self.resolve(&token, &[]).await? {
            Some(identity) => Ok(Some(identity.user)),
            None => Err(AuthnError::Invalid("unknown bearer token".into())),
        }
    }
}

fn from_header(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}

/// Takes the token out of `Sec-WebSocket-Protocol`; the other protocols stay.
fn take_from_protocol(headers: &mut HeaderMap) -> Option<String> {
    let text = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?.to_owned();
    let (tokens, others): (Vec<&str>, Vec<&str>) =
        text.split(',').map(str::trim).partition(|p| p.starts_with(PROTOCOL));
    let encoded = tokens.first()?.strip_prefix(PROTOCOL)?;
    let token = String::from_utf8(URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?).ok()?;
    if let Ok(rest) = HeaderValue::from_str(&others.join(", ")) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, rest);
    }
    Some(token)
}
