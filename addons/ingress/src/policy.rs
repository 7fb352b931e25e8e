//! How the requests of one Ingress are treated: what annotations and the ConfigMap set.

use std::{net::IpAddr, time::Duration};

use http::{HeaderValue, StatusCode};
use ipnet::IpNet;

/// What back ends speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Http,
    Https,
    Grpc,
    Grpcs,
}

impl Protocol {
    pub(crate) fn is_http2(self) -> bool {
        matches!(self, Self::Grpc | Self::Grpcs)
    }

    pub(crate) fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Grpcs)
    }
}

/// Session affinity by cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Affinity {
    pub(crate) cookie: String,
    pub(crate) path: Option<String>,
    pub(crate) domain: Option<String>,
    pub(crate) same_site: Option<String>,
    pub(crate) max_age: Option<u64>,
    pub(crate) secure: Option<bool>,
    pub(crate) change_on_failure: bool,
}

impl Default for Affinity {
    fn default() -> Self {
        Self {
            cookie: "INGRESSCOOKIE".into(),
            path: None,
            domain: None,
            same_site: None,
            max_age: None,
            secure: None,
            change_on_failure: false,
        }
    }
}

/// The treatment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Policy {
    /// Paths are regular expressions.
    pub(crate) use_regex: bool,
    /// Path at the back end; `$1` is the first group of the matched path.
    pub(crate) rewrite_target: Option<String>,
    /// Redirects to HTTPS if the host has a certificate.
    pub(crate) ssl_redirect: bool,
    /// Redirects to HTTPS anyway.
    pub(crate) force_ssl_redirect: bool,
    /// Longest request body; `None` for no limit.
    pub(crate) body_limit: Option<u64>,
    pub(crate) protocol: Protocol,
    pub(crate) connect_timeout: Duration,
    pub(crate) send_timeout: Duration,
    pub(crate) read_timeout: Duration,
    /// Back ends tried for one request; zero for all.
    pub(crate) tries: usize,
    /// Only these addresses may come, if there are any.
    pub(crate) allowed: Vec<IpNet>,
    /// These may not.
    pub(crate) denied: Vec<IpNet>,
    /// All requests are redirected.
    pub(crate) redirect: Option<(StatusCode, HeaderValue)>,
    /// `/` is redirected there.
    pub(crate) app_root: Option<HeaderValue>,
    /// The `Host` header at the back end.
    pub(crate) upstream_vhost: Option<HeaderValue>,
    /// The header `X-Forwarded-Prefix`.
    pub(crate) forwarded_prefix: Option<HeaderValue>,
    pub(crate) affinity: Option<Affinity>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            use_regex: false,
            rewrite_target: None,
            ssl_redirect: true,
            force_ssl_redirect: false,
            body_limit: Some(1 << 20),
            protocol: Protocol::Http,
            connect_timeout: Duration::from_secs(5),
            send_timeout: Duration::from_secs(60),
            read_timeout: Duration::from_secs(60),
            tries: 3,
            allowed: Vec::new(),
            denied: Vec::new(),
            redirect: None,
            app_root: None,
            upstream_vhost: None,
            forwarded_prefix: None,
            affinity: None,
        }
    }
}

impl Policy {
    /// Whether an address may come.
    pub(crate) fn admits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
        !within(&self.denied) && (self.allowed.is_empty() || within(&self.allowed))
    }

    /// Whether paths of the Ingress are regular expressions.
    pub(crate) fn has_regex(&self) -> bool {
        self.use_regex || self.rewrite_target.is_some()
    }
}
