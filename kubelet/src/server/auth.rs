//! Who calls, and whether they may.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use runtime::serving::Connection;
use runtime::tasks::TaskGroup;
use runtime::tls::{self, Authorities};
use rustls::pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};

use crate::api::{Ready, limited};
use crate::config::KubeletConfiguration;

const MAX_CACHED: usize = 4096;

/// Why access control cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Tokens or authorization need an apiserver.
    #[error("no client provided, cannot use webhook {0}")]
    NoClient(&'static str),
    /// The bundle.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

/// A caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// Answers that hold for a while.
struct Cache<K, V> {
    entries: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: std::hash::Hash + Eq, V: Clone> Cache<K, V> {
    fn new() -> Self {
        Self { entries: Mutex::default() }
    }

    fn get(&self, key: &K) -> Option<V> {
        let entries = self.entries.lock();
        entries.get(key).filter(|(until, _)| *until > Instant::now()).map(|(_, value)| value.clone())
    }

    fn put(&self, key: K, value: V, ttl: Duration) {
        let mut entries = self.entries.lock();
        if entries.len() >= MAX_CACHED {
            let now = Instant::now();
            entries.retain(|_, (until, _)| *until > now);
            if entries.len() >= MAX_CACHED {
                entries.clear();
            }
        }
        entries.insert(key, (Instant::now() + ttl, value));
    }
}

/// Authentication and authorization of the server.
pub struct Access {
    authorities: Option<Arc<Authorities>>,
    tokens: Option<(Client, Duration)>,
    anonymous: bool,
    reviews: Option<(Client, Duration, Duration)>,
    known_tokens: Cache<[u8; 32], Option<User>>,
    decisions: Cache<(User, String, String, String), bool>,
    /// Before that nobody can be asked, so nobody is let in who would have to be asked about.
    ready: Ready,
}

impl Access {
    /// As configured.
    pub fn new(
        config: &KubeletConfiguration,
        client: Option<&Client>,
        ready: Ready,
        tasks: &TaskGroup,
    ) -> Result<Self, AccessError> {
        let authentication = &config.authentication;
        let bundle = Path::new(&authentication.x509.client_ca_file);
        let authorities = match bundle.as_os_str().is_empty() {
            true => None,
            false => Some(tls::watch_bundle(bundle, tasks)?),
        };
        let tokens = match (authentication.webhook.enabled, client) {
            (true, Some(client)) => Some((client.clone(), authentication.webhook.cache_ttl.0)),
            _ => None,
        };
        let webhook = &config.authorization.webhook;
        let reviews = match (config.authorization.mode.as_str(), client) {
            ("AlwaysAllow", _) => None,
            (_, Some(client)) => {
                Some((client.clone(), webhook.cache_authorized_ttl.0, webhook.cache_unauthorized_ttl.0))
            }
            (_, None) => return Err(AccessError::NoClient("authorization")),
        };
        Ok(Self {
            authorities,
            tokens,
            anonymous: authentication.anonymous.enabled,
            reviews,
            known_tokens: Cache::new(),
            decisions: Cache::new(),
            ready,
        })
    }

    /// The caller, if anyone vouches for them.
    pub async fn authenticate(&self, connection: Option<&Connection>, headers: &HeaderMap) -> Option<User> {
        let certificates = connection.map(|connection| &connection.certificates[..]).unwrap_or_default();
        if let Some(user) = self.by_certificate(certificates) {
            return Some(user);
        }
        if let Some(header) = headers.get(AUTHORIZATION) {
            let token = header.to_str().ok()?.strip_prefix("Bearer ")?.trim();
            return self.by_token(token).await;
        }
        let groups = vec!["system:unauthenticated".to_owned()];
        self.anonymous.then(|| User { name: "system:anonymous".to_owned(), groups, ..User::default() })
    }

    fn by_certificate(&self, certificates: &[CertificateDer<'static>]) -> Option<User> {
        let identity = self.authorities.as_ref()?.verify(certificates, UnixTime::now()).ok()?;
        let mut groups = identity.organizations;
        groups.push("system:authenticated".to_owned());
        let name = identity.common_name;
        (!name.is_empty()).then(|| User { name, groups, ..User::default() })
    }

    async fn by_token(&self, token: &str) -> Option<User> {
        let (client, ttl) = self.tokens.as_ref()?;
        if token.is_empty() || !self.ready.is_ready() {
            return None;
        }
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.known_tokens.get(&key) {
            return known;
        }
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let api: Api<TokenReview> = Api::all(client.clone());
        let status = limited(api.create(&PostParams::default(), &review)).await.ok()?.status?;
        let user = status.user.filter(|_| status.authenticated == Some(true)).map(|user| User {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        });
        self.known_tokens.put(key, user.clone(), *ttl);
        user
    }

    /// The error is the answer's text.
    pub async fn authorize(&self, user: &User, method: &Method, path: &str, node: &str) -> Result<(), String> {
        if self.reviews.is_none() {
            return Ok(());
        }
        let verb = verb(method);
        let subresources = subresources(path);
        for subresource in subresources {
            if self.allowed(user, verb, subresource, node).await {
                return Ok(());
            }
        }
        let shown = subresources.join(" ");
        Err(format!("Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{shown}])\n", user.name))
    }

    async fn allowed(&self, user: &User, verb: &str, subresource: &str, node: &str) -> bool {
        let Some((client, allowed_ttl, denied_ttl)) = &self.reviews else { return true };
        let key = (user.clone(), verb.to_owned(), subresource.to_owned(), node.to_owned());
        if let Some(known) = self.decisions.get(&key) {
            return known;
        }
        if !self.ready.is_ready() {
            return false;
        }
        let attributes = ResourceAttributes {
            verb: Some(verb.to_owned()),
            version: Some("v1".to_owned()),
            resource: Some("nodes".to_owned()),
            subresource: Some(subresource.to_owned()),
            name: Some(node.to_owned()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: Some(user.uid.clone()).filter(|uid| !uid.is_empty()),
            groups: Some(user.groups.clone()),
            extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let api: Api<SubjectAccessReview> = Api::all(client.clone());
        let answer = limited(api.create(&PostParams::default(), &review)).await;
        let Ok(Some(status)) = answer.map(|review| review.status) else { return false };
        let allowed = status.allowed && status.denied != Some(true);
        self.decisions.put(key, allowed, if allowed { *allowed_ttl } else { *denied_ttl });
        allowed
    }
}

fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

/// Subresources of the node, any of which opens a path.
fn subresources(path: &str) -> &'static [&'static str] {
    let first = path.split('/').nth(1).unwrap_or_default();
    match first {
        "stats" => &["stats"],
        "metrics" => &["metrics"],
        "logs" => &["log"],
        "checkpoint" => &["checkpoint"],
        "statusz" => &["statusz"],
        "flagz" => &["configz"],
        "pods" | "runningpods" => &["pods", "proxy"],
        "healthz" => &["healthz", "proxy"],
        "configz" => &["configz", "proxy"],
        _ => &["proxy"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_map_to_subresources() {
        assert_eq!(subresources("/pods"), ["pods", "proxy"]);
        assert_eq!(subresources("/metrics/cadvisor"), ["metrics"]);
        assert_eq!(subresources("/exec/a/b/c"), ["proxy"]);
        assert_eq!(subresources("/healthz/ping"), ["healthz", "proxy"]);
    }

    #[tokio::test]
    async fn nobody_gets_in_without_credentials() {
        let config = KubeletConfiguration {
            authorization: crate::config::Authorization { mode: "AlwaysAllow".into(), ..Default::default() },
            ..KubeletConfiguration::default()
        };
        let access = Access::new(&config, None, Ready::now(), &TaskGroup::new("t")).unwrap();
        assert!(access.authenticate(None, &HeaderMap::new()).await.is_none());
        assert!(Access::new(&KubeletConfiguration::default(), None, Ready::now(), &TaskGroup::new("t")).is_err());
    }
}
