//! Authorization: the frame, and the Node and RBAC authorizers behind it.

pub mod abac;
pub mod config;
pub mod node;
pub mod rbac;
mod selectors;
pub mod webhook;

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use machinery::{ApiError, GroupResource, Reason, StatusDetails};
use prometheus::{IntCounter, IntCounterVec, Registry};
use rules::rbac::PolicyRule;
use runtime::metrics::Stability;

pub use self::selectors::{Selectors, Term};
use crate::{
    request::{Query, RequestInfo},
    user::User,
};

/// What is to be authorized.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    /// Who asks.
    pub user: User,
    /// API verb, or lower-case HTTP method for non-resource paths.
    pub verb: String,
    /// Group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural resource.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// Object name.
    pub name: String,
    /// Namespace.
    pub namespace: String,
    /// Path of a non-resource request.
    pub path: String,
    /// Whether this is about a resource.
    pub is_resource: bool,
    /// What a list, a watch or a removal of many is limited to.
    pub selectors: Selectors,
}

impl Attributes {
    /// The attributes of a request.
    pub fn of(info: &RequestInfo, query: &Query, user: &User) -> Self {
        Self {
            user: user.clone(),
            verb: info.verb.clone(),
            group: info.group.clone(),
            version: info.version.clone(),
            resource: info.resource.clone(),
            subresource: info.subresource.clone(),
            name: info.name.clone(),
            namespace: info.namespace.clone(),
            path: info.path.clone(),
            is_resource: info.is_resource,
            selectors: if info.is_resource { Selectors::of(&info.verb, query) } else { Selectors::default() },
        }
    }

    /// Another verb on the same thing.
    pub fn with_verb(&self, verb: &str) -> Self {
        Self { verb: verb.to_owned(), ..self.clone() }
    }
}

/// Answer of one authorizer, with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Allowed, ends the search.
    Allow(String),
    /// Denied, ends the search.
    Deny(String),
    /// The next authorizer decides.
    NoOpinion(String),
}

/// Decides whether a user may do something.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// Decides; must not block on remote calls without a deadline.
    async fn authorize(&self, attributes: &Attributes) -> Decision;

    /// The rules that hold for a user in a namespace, and why there may be more.
    fn rules_of(&self, _user: &User, _namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        (Vec::new(), Vec::new())
    }
}

/// Asks authorizers in order; the first Allow or Deny wins. `system:masters` is always allowed. The authorizers can be
/// replaced.
#[derive(Default)]
pub struct Chain(ArcSwap<Vec<Link>>);

/// One authorizer of a chain.
pub struct Link {
    authorizer: Arc<dyn Authorizer>,
    allowed: IntCounter,
    denied: IntCounter,
}

/// Counts what authorizers decide.
#[derive(Clone)]
pub struct DecisionMetrics(IntCounterVec);

impl DecisionMetrics {
    /// Registers the metric.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help =
            "Total number of terminal decisions made by an authorizer split by authorizer type, name, and decision.";
        let labels = ["type", "name", "decision"];
        let name = "apiserver_authorization_decisions_total";
        Ok(Self(runtime::metrics::counter_vec(registry, Stability::Alpha, name, help, &labels)?))
    }

    /// An authorizer whose decisions are counted.
    pub fn link(&self, kind: &str, name: &str, authorizer: Arc<dyn Authorizer>) -> Link {
        let counter = |decision: &str| self.0.with_label_values(&[kind, name, decision]);
        Link { authorizer, allowed: counter("allowed"), denied: counter("denied") }
    }
}

impl Chain {
    /// Of authorizers in order.
    pub fn new(links: Vec<Link>) -> Self {
        Self(ArcSwap::from_pointee(links))
    }

    /// Other authorizers from now on.
    pub fn replace(&self, links: Vec<Link>) {
        self.0.store(Arc::new(links));
    }
}

#[async_trait]
impl Authorizer for Chain {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.user.in_group(crate::user::MASTERS) {
            return Decision::Allow(String::new());
        }
        let mut reasons = Vec::new();
        let links = self.0.load_full();
        for link in links.iter() {
            match link.authorizer.authorize(attributes).await {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decision => {
                    let counter = if matches!(decision, Decision::Allow(_)) { &link.allowed } else { &link.denied };
                    counter.inc();
                    return decision;
                }
            }
        }
        Decision::NoOpinion(reasons.join(", "))
    }

    fn rules_of(&self, user: &User, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let (mut rules, mut doubts) = (Vec::new(), Vec::new());
        for link in self.0.load().iter() {
            let (more, why) = link.authorizer.rules_of(user, namespace);
            rules.extend(more);
            doubts.extend(why);
        }
        (rules, doubts)
    }
}

/// The 403 for a refused request, with upstream's text.
pub fn forbidden(attributes: &Attributes, reason: &str) -> ApiError {
    let a = attributes;
    let user = &a.user.name;
    let mut text = if a.is_resource {
        let resource =
            if a.subresource.is_empty() { a.resource.clone() } else { format!("{}/{}", a.resource, a.subresource) };
        let place = if a.namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace \"{}\"", a.namespace)
        };
        format!("User \"{user}\" cannot {} resource \"{resource}\" in API group \"{}\" {place}", a.verb, a.group)
    } else {
        format!("User \"{user}\" cannot {} path \"{}\"", a.verb, a.path)
    };
    if !reason.is_empty() {
        text.push_str(": ");
        text.push_str(reason);
    }
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let resource = GroupResource::new(a.group.clone(), a.resource.clone());
    if a.is_resource {
        return ApiError::forbidden(&resource, &a.name, &text);
    }
    ApiError::new(403, Reason::Forbidden, format!("forbidden: {text}")).with_details(StatusDetails::default())
}
