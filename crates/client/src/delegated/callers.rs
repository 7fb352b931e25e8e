//! Who calls.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderMap, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client, api::PostParams};
use prometheus::Histogram;
use runtime::{
    Runtime,
    clock::Clock,
    flags::DelegatedAuthArgs,
    metrics,
    tls::{self, Authorities},
};
use rustls::pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};

use super::{
    AuthMetrics, DelegatedError, TokenMetrics,
    lookup::{self, ClusterTrust},
};
use crate::{ApiErrorExt, answers::Answers};

/// Time for one review.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest token that is looked at.
const MAX_TOKEN: usize = 64 * 1024;
const AUTHENTICATED: &str = "system:authenticated";

/// A caller of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Caller {
    /// User name.
    pub name: String,
    /// UID of the user, if there is one.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What else the authenticator says.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Caller {
    /// One who shows no credentials.
    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".into(), groups: vec!["system:unauthenticated".into()], ..Self::default() }
    }
}

/// Outcome of authentication.
pub(super) enum Authenticated {
    As(Caller),
    /// There are no credentials that this process can judge.
    Nobody,
    /// The credentials are wrong.
    Refused,
}

/// How an authenticating proxy tells whom it speaks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProxyRules {
    pub(super) allowed_names: Vec<String>,
    pub(super) username: Vec<String>,
    pub(super) uid: Vec<String>,
    pub(super) group: Vec<String>,
    pub(super) extra_prefixes: Vec<String>,
}

/// Authorities from a file or from the cluster.
enum Trust {
    File(Arc<Authorities>),
    Cluster,
}

pub(super) struct Callers {
    client_trust: Trust,
    proxy_trust: Trust,
    rules: ProxyRules,
    cluster: ClusterTrust,
    tokens: Option<Tokens>,
    expirations: Histogram,
}

struct Tokens {
    client: Client,
    ttl: Duration,
    known: Answers<[u8; 32], Option<Caller>>,
    clock: Arc<dyn Clock>,
    metrics: AuthMetrics,
    cache: TokenMetrics,
}

impl Callers {
    pub(super) async fn new(
        args: &DelegatedAuthArgs,
        client: Option<Client>,
        runtime: &Runtime,
    ) -> Result<Self, DelegatedError> {
        let trust = |path: &Option<PathBuf>| match path.as_deref().filter(|p| !p.as_os_str().is_empty()) {
            Some(path) => tls::watch_bundle(path, &runtime.tasks).map(Trust::File),
            None => Ok(Trust::Cluster),
        };
        let (client_trust, proxy_trust) = (trust(&args.client_ca_file)?, trust(&args.requestheader_client_ca_file)?);
        let cluster = match client.clone().filter(|_| !args.authentication_skip_lookup) {
            None => ClusterTrust::default(),
            Some(client) => lookup::start(client, args.authentication_tolerate_lookup_failure, runtime).await?,
        };
        let tokens = match client {
            None => None,
            Some(client) => Some(Tokens {
                client,
                ttl: args.authentication_token_webhook_cache_ttl,
                known: Answers::new(),
                clock: Arc::clone(&runtime.clock),
                metrics: AuthMetrics::new(&runtime.registry, "authn")?,
                cache: TokenMetrics::new(&runtime.registry)?,
            }),
        };
        let rules = ProxyRules {
            allowed_names: args.requestheader_allowed_names.clone(),
            username: args.requestheader_username_headers.clone(),
            uid: args.requestheader_uid_headers.clone(),
            group: args.requestheader_group_headers.clone(),
            extra_prefixes: args.requestheader_extra_headers_prefix.clone(),
        };
        let expirations = metrics::certificate_expirations(&runtime.registry)?;
        Ok(Self { client_trust, proxy_trust, rules, cluster, tokens, expirations })
    }

    /// A proxy's word counts before a certificate, a certificate before a token.
    pub(super) async fn identify(
        &self,
        certificates: &[CertificateDer<'static>],
        headers: &HeaderMap,
    ) -> Authenticated {
        if !certificates.is_empty() {
            if let Some(caller) = self.by_proxy(certificates, headers) {
                return Authenticated::As(caller);
            }
            if let Some(caller) = self.by_certificate(certificates) {
                return Authenticated::As(caller);
            }
        }
        let bearer = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(bearer_token);
        match (bearer, &self.tokens) {
            (Some(token), Some(tokens)) => match tokens.review(token).await {
                Some(caller) => Authenticated::As(caller),
                None => Authenticated::Refused,
            },
            _ => Authenticated::Nobody,
        }
    }

    fn by_certificate(&self, certificates: &[CertificateDer<'static>]) -> Option<Caller> {
        let authorities = match &self.client_trust {
            Trust::File(authorities) => Some(Arc::clone(authorities)),
            Trust::Cluster => self.cluster.clients(),
        }?;
        let now = UnixTime::now();
        let identity = authorities.verify(certificates, now).ok()?;
        let left = identity.not_after.saturating_sub(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        // Seconds stay far below the range in which f64 is exact.
        self.expirations.observe(left as f64);
        let mut groups = identity.organizations;
        groups.push(AUTHENTICATED.into());
        (!identity.common_name.is_empty()).then(|| Caller { name: identity.common_name, groups, ..Caller::default() })
    }

    fn by_proxy(&self, certificates: &[CertificateDer<'static>], headers: &HeaderMap) -> Option<Caller> {
        let (authorities, rules) = match &self.proxy_trust {
            Trust::File(authorities) => (Arc::clone(authorities), self.rules.clone()),
            Trust::Cluster => self.cluster.proxies()?,
        };
        let proxy = authorities.verify(certificates, UnixTime::now()).ok()?;
        if !rules.allowed_names.is_empty() && !rules.allowed_names.contains(&proxy.common_name) {
            return None;
        }
        spoken_for(&rules, headers)
    }
}

/// Whom a proxy speaks for.
fn spoken_for(rules: &ProxyRules, headers: &HeaderMap) -> Option<Caller> {
    let values = |name: &String| -> Vec<String> {
        headers.get_all(name.as_str()).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned).collect()
    };
    let first = |names: &[String]| names.iter().flat_map(values).find(|v| !v.is_empty());
    let mut caller = Caller {
        name: first(&rules.username)?,
        uid: first(&rules.uid).unwrap_or_default(),
        groups: rules.group.iter().flat_map(values).collect(),
        extra: BTreeMap::new(),
    };
    if !caller.groups.iter().any(|g| g == AUTHENTICATED) {
        caller.groups.push(AUTHENTICATED.into());
    }
    for (name, value) in headers {
        let key = rules.extra_prefixes.iter().find_map(|p| name.as_str().strip_prefix(&p.to_lowercase()));
        if let (Some(key), Ok(value)) = (key, value.to_str()) {
            caller.extra.entry(key.to_lowercase()).or_default().push(value.to_owned());
        }
    }
    Some(caller)
}

/// The token of a bearer authorization.
fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= MAX_TOKEN).then_some(token)
}

impl Tokens {
    /// Whose token it is. An answer that cannot be had is a no, and not remembered.
    async fn review(&self, token: &str) -> Option<Caller> {
        let key: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let known = self.known.get(&key, self.clock.elapsed());
        self.cache.asked(known.is_some());
        if let Some(known) = known {
            return known;
        }
        let _fetching = self.cache.fetching();
        let began = self.clock.elapsed();
        let spec = TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() };
        let review = TokenReview { spec, ..TokenReview::default() };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let params = PostParams::default();
        let answered = tokio::time::timeout(DEADLINE, api.create(&params, &review)).await;
        let now = self.clock.elapsed();
        let code = match &answered {
            Ok(Ok(_)) => "201".to_owned(),
            Ok(Err(error)) => error.status().map_or_else(|| "<error>".to_owned(), |s| s.code.to_string()),
            Err(_) => "<error>".to_owned(),
        };
        self.metrics.finished(&code, now.saturating_sub(began));
        self.cache.fetched(matches!(answered, Ok(Ok(_))));
        let status = match answered {
            Ok(Ok(review)) => review.status?,
            Ok(Err(error)) => {
                tracing::error!(err = %error.text(), "Unable to authenticate the request");
                return None;
            }
            Err(_) => {
                tracing::error!(err = "no answer in time", "Unable to authenticate the request");
                return None;
            }
        };
        let caller = status.user.filter(|_| status.authenticated == Some(true)).map(|user| Caller {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        });
        self.known.put(key, caller.clone(), now, self.ttl);
        caller
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_tokens() {
        assert_eq!(bearer_token("Bearer abc"), Some("abc"));
        assert_eq!(bearer_token("bearer  abc "), Some("abc"));
        assert_eq!(bearer_token("Basic abc"), None);
        assert_eq!(bearer_token("Bearer "), None);
        assert_eq!(bearer_token(&format!("Bearer {}", "x".repeat(MAX_TOKEN + 1))), None);
    }

    #[test]
    fn proxies_speak_for_others() {
        let rules = ProxyRules {
            username: vec!["X-Remote-User".into()],
            group: vec!["X-Remote-Group".into()],
            extra_prefixes: vec!["X-Remote-Extra-".into()],
            ..ProxyRules::default()
        };
        let mut headers = HeaderMap::new();
        assert_eq!(spoken_for(&rules, &headers), None);
        for (name, value) in [("x-remote-user", "jane"), ("x-remote-group", "dev"), ("x-remote-extra-scopes", "a")] {
            headers.append(name, value.parse().unwrap());
        }
        let caller = spoken_for(&rules, &headers).unwrap();
        assert_eq!((caller.name.as_str(), caller.groups.len()), ("jane", 2));
        assert_eq!(caller.extra["scopes"], ["a"]);
    }
}
