//! The routing table: which back end a request goes to. Never changed; another one takes its place.

use std::{collections::HashMap, sync::Arc};

use crate::{backends::Slot, path::Matcher, policy::Policy, settings::Settings};

/// A place requests go to.
#[derive(Debug)]
pub(crate) struct Route {
    /// Host of the rule as it was written; `_` without one.
    pub(crate) host: String,
    /// Path of the rule.
    pub(crate) path: String,
    pub(crate) matcher: Matcher,
    pub(crate) policy: Arc<Policy>,
    pub(crate) backend: Arc<Slot>,
    /// Whose rule it is.
    pub(crate) namespace: String,
    pub(crate) ingress: String,
}

impl Route {
    /// Order in which rules are asked: exact ones, then by length of the path.
    pub(crate) fn rank(&self) -> (bool, usize) {
        let exact = matches!(self.matcher, Matcher::Exact(_));
        let length = match &self.matcher {
            Matcher::Prefix(prefix) => prefix.len(),
            _ => self.path.len(),
        };
        (exact, length)
    }
}

/// Rules of a host.
#[derive(Debug, Default)]
pub(crate) struct Host {
    /// In the order they are asked.
    pub(crate) routes: Vec<Arc<Route>>,
    /// For paths that no rule matches.
    pub(crate) default: Option<Arc<Route>>,
    /// Whether there is a certificate for it.
    pub(crate) tls: bool,
}

/// All there is.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// By name, lower case.
    pub(crate) hosts: HashMap<String, Host>,
    /// By what follows the `*`.
    pub(crate) wildcards: HashMap<String, Host>,
    /// Rules without a host.
    pub(crate) any: Host,
    /// `--default-backend-service`.
    pub(crate) fallback: Option<Arc<Route>>,
    pub(crate) settings: Settings,
}

/// What the table says of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    /// Where it goes; nowhere is 404.
    pub(crate) route: Option<&'a Arc<Route>>,
    /// Whether its host has a certificate.
    pub(crate) tls: bool,
}

impl Table {
    /// The rules for a host: of its name, of a wildcard, of no host.
    fn host(&self, name: &str) -> &Host {
        let wild = || name.find('.').and_then(|dot| self.wildcards.get(&name[dot..]));
        self.hosts.get(name).or_else(wild).unwrap_or(&self.any)
    }

    /// Looks a request up; `path` is in normal form.
    pub(crate) fn find(&self, host: &str, path: &str) -> Found<'_> {
        let host = self.host(host);
        let route = host.routes.iter().find(|route| route.matcher.matches(path));
        let route = route.or(host.default.as_ref()).or(self.any.default.as_ref()).or(self.fallback.as_ref());
        Found { route, tls: host.tls }
    }
}
