//! From Ingresses to the routing table. Pure: what it needs is handed in.

use std::{collections::HashMap, sync::Arc};

use controller::{Cached, ObjectKey, Whole, events::reference_to};
use k8s_openapi::api::{
    core::v1::ObjectReference,
    networking::v1::{HTTPIngressPath, Ingress, IngressBackend},
};

use crate::{
    annotations,
    backends::{BackendKey, Port, Slot},
    certificates::CertificateTable,
    class::ClassRules,
    objects::Certificate,
    path::Matcher,
    policy::Policy,
    settings::Settings,
    table::{Host, Route, Table},
};

/// An Ingress as the informer has it.
pub(crate) type CachedIngress = Arc<Cached<Whole<Ingress>>>;

/// What a plan is made from.
pub(crate) struct Inputs<'a> {
    pub(crate) ingresses: Vec<CachedIngress>,
    pub(crate) rules: &'a ClassRules,
    pub(crate) settings: Settings,
    /// `--default-backend-service`.
    pub(crate) fallback: Option<BackendKey>,
    /// Whether Ingresses without hosts count.
    pub(crate) catch_all: bool,
    pub(crate) default_certificate: Arc<Certificate>,
    /// The certificate of a Secret.
    pub(crate) certificate: &'a dyn Fn(&ObjectKey) -> Result<Arc<Certificate>, String>,
    /// The slot of a back end.
    pub(crate) slot: &'a dyn Fn(&BackendKey) -> Arc<Slot>,
}

/// Something in an Ingress that cannot be done.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) about: ObjectReference,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// A certificate in use.
#[derive(Clone, Debug)]
pub(crate) struct InUse {
    pub(crate) host: String,
    pub(crate) secret: ObjectKey,
    pub(crate) not_after: i64,
}

/// The outcome.
pub(crate) struct Plan {
    pub(crate) table: Table,
    pub(crate) certificates: CertificateTable,
    /// Ingresses of this controller, oldest first.
    pub(crate) ours: Vec<CachedIngress>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) in_use: Vec<InUse>,
}

/// Name of hosts without a name.
const ANY: &str = "_";

struct Planner<'a> {
    inputs: &'a Inputs<'a>,
    hosts: HashMap<String, Host>,
    /// Hosts with a certificate.
    secured: Vec<String>,
    certificates: HashMap<String, Arc<Certificate>>,
    problems: Vec<Problem>,
    in_use: Vec<InUse>,
}

/// One Ingress.
struct Of<'a> {
    ingress: &'a Ingress,
    about: ObjectReference,
    namespace: &'a str,
    policy: Arc<Policy>,
}

/// Makes the plan.
pub(crate) fn plan(inputs: &Inputs<'_>) -> Plan {
    let mut ours: Vec<CachedIngress> =
        inputs.ingresses.iter().filter(|ingress| inputs.rules.covers(&ingress.view.0)).cloned().collect();
    // Where two want the same, the older one gets it.
    ours.sort_by(|a, b| {
        let age = |i: &CachedIngress| i.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (age(a), &a.key).cmp(&(age(b), &b.key))
    });
    let mut planner = Planner {
        inputs,
        hosts: HashMap::new(),
        secured: Vec::new(),
        certificates: HashMap::new(),
        problems: Vec::new(),
        in_use: Vec::new(),
    };
    for ingress in &ours {
        planner.take(&ingress.view.0);
    }
    planner.finish(ours)
}

impl Planner<'_> {
    fn take(&mut self, ingress: &Ingress) {
        let none = std::collections::BTreeMap::new();
        let annotations = ingress.metadata.annotations.as_ref().unwrap_or(&none);
        let (policy, wrong) = annotations::read(&self.inputs.settings.policy, annotations);
        let of = Of {
            ingress,
            about: reference_to(ingress),
            namespace: ingress.metadata.namespace.as_deref().unwrap_or_default(),
            policy: Arc::new(policy),
        };
        for message in wrong {
            self.problem(&of, "InvalidAnnotation", message);
        }
        self.rules(&of);
        self.tls(&of);
    }

    fn problem(&mut self, of: &Of<'_>, reason: &'static str, message: String) {
        self.problems.push(Problem { about: of.about.clone(), reason, message });
    }

    fn rules(&mut self, of: &Of<'_>) {
        let Some(spec) = &of.ingress.spec else { return };
        let default = spec.default_backend.as_ref().and_then(|backend| self.backend(of, backend));
        let rules = spec.rules.as_deref().unwrap_or_default();
        let hosts: Vec<&str> = match rules {
            [] => vec![ANY],
            rules => rules.iter().map(|rule| host_name(rule.host.as_deref())).collect(),
        };
        for host in &hosts {
            if *host == ANY && !self.inputs.catch_all {
                self.problem(of, "CatchAllDisabled", "Ingresses without a host are not served here".into());
                continue;
            }
            let host_rules = self.hosts.entry((*host).to_owned()).or_default();
            if let (Some(backend), None) = (&default, &host_rules.default) {
                let route = of.route(host, "/", Matcher::prefix("/"), Arc::clone(backend));
                host_rules.default = Some(Arc::new(route));
            }
        }
        for rule in rules {
            let host = host_name(rule.host.as_deref());
            if host == ANY && !self.inputs.catch_all {
                continue;
            }
            for path in rule.http.iter().flat_map(|http| &http.paths) {
                self.path(of, host, path);
            }
        }
    }

    fn path(&mut self, of: &Of<'_>, host: &str, path: &HTTPIngressPath) {
        let Some(backend) = self.backend(of, &path.backend) else { return };
        let text = path.path.as_deref().filter(|text| !text.is_empty()).unwrap_or("/");
        let matcher = match path.path_type.as_str() {
            _ if of.policy.has_regex() => match Matcher::regex(text) {
                Ok(matcher) => matcher,
                Err(error) => {
                    let error = error.to_string();
                    let why = error.lines().last().unwrap_or_default().trim().to_owned();
                    return self.problem(of, "InvalidPath", format!("path {text:?} is no regular expression: {why}"));
                }
            },
            "Exact" => Matcher::Exact(text.to_owned()),
            "Prefix" => Matcher::prefix(text),
            _ => Matcher::Start(text.to_owned()),
        };
        let route = of.route(host, text, matcher, backend);
        let host_rules = self.hosts.entry(host.to_owned()).or_default();
        let same = |other: &&Arc<Route>| {
            other.path == route.path && std::mem::discriminant(&other.matcher) == std::mem::discriminant(&route.matcher)
        };
        match host_rules.routes.iter().find(same).map(|other| format!("{}/{}", other.namespace, other.ingress)) {
            Some(other) => {
                let message = format!("host {host:?} and path {text:?} are already defined in ingress {other}");
                self.problem(of, "Duplicate", message);
            }
            None => host_rules.routes.push(Arc::new(route)),
        }
    }

    fn backend(&mut self, of: &Of<'_>, backend: &IngressBackend) -> Option<Arc<Slot>> {
        let Some(service) = &backend.service else {
            self.problem(of, "UnsupportedBackend", "only Services can be back ends".into());
            return None;
        };
        let port = service.port.clone().unwrap_or_default();
        let by_number = || port.number.and_then(|number| u16::try_from(number).ok()).map(Port::Number);
        let port = port.name.clone().filter(|name| !name.is_empty()).map(Port::Name).or_else(by_number)?;
        let key = BackendKey { service: ObjectKey::new(of.namespace, &service.name), port };
        Some((self.inputs.slot)(&key))
    }

    fn tls(&mut self, of: &Of<'_>) {
        let Some(spec) = &of.ingress.spec else { return };
        for entry in spec.tls.as_deref().unwrap_or_default() {
            let named: Vec<String> = entry.hosts.iter().flatten().map(|host| host.to_lowercase()).collect();
            self.secured.extend(named.iter().cloned());
            let Some(name) = entry.secret_name.as_deref().filter(|name| !name.is_empty()) else { continue };
            let secret = ObjectKey::new(of.namespace, name);
            let certificate = match (self.inputs.certificate)(&secret) {
                Ok(certificate) => certificate,
                Err(why) => {
                    self.problem(of, "InvalidCertificate", format!("secret {secret}: {why}"));
                    continue;
                }
            };
            let rules = spec.rules.as_deref().unwrap_or_default();
            let hosts = match named.is_empty() {
                false => named,
                true => {
                    let all = rules.iter().filter_map(|rule| rule.host.as_deref()).map(str::to_lowercase);
                    all.filter(|host| certificate.fits(host)).collect()
                }
            };
            for host in hosts {
                self.secured.push(host.clone());
                let key = host.strip_prefix('*').unwrap_or(&host).to_owned();
                self.certificates.entry(key).or_insert_with(|| Arc::clone(&certificate));
                self.in_use.push(InUse { host, secret: secret.clone(), not_after: certificate.not_after });
            }
        }
    }

    fn finish(self, ours: Vec<CachedIngress>) -> Plan {
        let mut table = Table { settings: self.inputs.settings.clone(), ..Table::default() };
        for (name, mut host) in self.hosts {
            // A stable sort: of equals, the older one is asked first.
            host.routes.sort_by_key(|route| std::cmp::Reverse(route.rank()));
            host.tls = self.secured.contains(&name);
            match name.strip_prefix('*') {
                _ if name == ANY => table.any = host,
                Some(suffix) => drop(table.wildcards.insert(suffix.to_owned(), host)),
                None => drop(table.hosts.insert(name, host)),
            }
        }
        table.fallback = self.inputs.fallback.as_ref().map(|key| {
            Arc::new(Route {
                host: ANY.into(),
                path: "/".into(),
                matcher: Matcher::prefix("/"),
                policy: Arc::new(Policy { ssl_redirect: false, ..self.inputs.settings.policy.clone() }),
                backend: (self.inputs.slot)(key),
                namespace: key.service.namespace.clone(),
                ingress: String::new(),
            })
        });
        let default = Arc::clone(&self.inputs.default_certificate);
        let certificates = CertificateTable { hosts: self.certificates, default };
        Plan { table, certificates, ours, problems: self.problems, in_use: self.in_use }
    }
}

impl Of<'_> {
    fn route(&self, host: &str, path: &str, matcher: Matcher, backend: Arc<Slot>) -> Route {
        Route {
            host: host.to_owned(),
            path: path.to_owned(),
            matcher,
            policy: Arc::clone(&self.policy),
            backend,
            namespace: self.namespace.to_owned(),
            ingress: self.ingress.metadata.name.clone().unwrap_or_default(),
        }
    }
}

/// Hosts are DNS names, which the API wants in lower case.
fn host_name(host: Option<&str>) -> &str {
    host.filter(|host| !host.is_empty()).unwrap_or(ANY)
}

#[cfg(test)]
mod tests;
