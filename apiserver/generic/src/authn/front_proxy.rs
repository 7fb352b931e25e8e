//! `X-Remote-*` headers of a trusted front proxy.

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, request::Parts};
use runtime::tls::Authorities;

use super::{
    Authenticator, AuthnError, Peer,
    x509::{self, subject_user},
};
use crate::{request::decode, user::User};

/// Authenticates requests that a front proxy with a trusted client certificate forwards.
pub struct FrontProxy {
    /// Authorities of the proxy's client certificate (`--requestheader-client-ca-file`).
    pub authorities: Arc<Authorities>,
    /// Common names allowed; empty for any (`--requestheader-allowed-names`).
    pub allowed_names: Vec<String>,
    /// Headers of the user name, tried in order.
    pub username_headers: Vec<String>,
    /// Headers of the uid.
    pub uid_headers: Vec<String>,
    /// Headers of groups.
    pub group_headers: Vec<String>,
    /// Prefixes of extra attributes.
    pub extra_prefixes: Vec<String>,
}

#[async_trait]
impl Authenticator for FrontProxy {
    async fn authenticate(&self, request: &mut Parts, peer: &Peer) -> Result<Option<User>, AuthnError> {
        let Some(name) = first(&request.headers, &self.username_headers) else { return Ok(None) };
        let Some(leaf) = peer.certificates.first() else { return Ok(None) };
        if x509::verify(&self.authorities, peer).is_err() {
            return Ok(None);
        }
        let proxy = subject_user(leaf)?;
        if !self.allowed_names.is_empty() && !self.allowed_names.contains(&proxy.name) {
            return Err(AuthnError::Invalid(format!("front proxy {:?} is not allowed", proxy.name)));
        }
        let user = User {
            name,
            uid: first(&request.headers, &self.uid_headers).unwrap_or_default(),
            groups: self.group_headers.iter().flat_map(|h| values(&request.headers, h)).collect(),
            extra: self.extra(&request.headers),
        };
        self.strip(&mut request.headers);
        Ok(Some(user))
    }
}

impl FrontProxy {
    fn extra(&self, headers: &HeaderMap) -> std::collections::BTreeMap<String, Vec<String>> {
        let mut extra = std::collections::BTreeMap::<String, Vec<String>>::new();
        for (name, value) in headers {
            let key = self.extra_prefixes.iter().find_map(|p| name.as_str().strip_prefix(&p.to_lowercase()));
            if let (Some(key), Ok(value)) = (key, value.to_str()) {
                extra.entry(decode(key).to_lowercase()).or_default().push(value.to_owned());
            }
        }
        extra
    }

    fn strip(&self, headers: &mut HeaderMap) {
        let own = |name: &HeaderName| {
            let listed = [&self.username_headers, &self.uid_headers, &self.group_headers];
            listed.iter().any(|list| list.iter().any(|h| h.eq_ignore_ascii_case(name.as_str())))
                || self.extra_prefixes.iter().any(|p| name.as_str().starts_with(&p.to_lowercase()))
        };
        let names: Vec<HeaderName> = headers.keys().filter(|name| own(name)).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

fn values(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
}

fn first(headers: &HeaderMap, names: &[String]) -> Option<String> {
    names.iter().flat_map(|name| values(headers, name)).find(|v| !v.is_empty())
}
