//! Authorization: the frame, and the Node and RBAC authorizers behind it.

pub mod node;
pub mod rbac;

use std::sync::Arc;

use async_trait::async_trait;
use machinery::{ApiError, GroupResource, Reason, StatusDetails};

use crate::{request::RequestInfo, user::User};

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
}

impl Attributes {
    /// The attributes of a request.
    pub fn of(info: &RequestInfo, user: &User) -> Self {
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
}

/// Asks authorizers in order; the first Allow or Deny wins. `system:masters` is always allowed.
pub struct Chain(pub Vec<Arc<dyn Authorizer>>);

#[async_trait]
impl Authorizer for Chain {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        if attributes.user.in_group(crate::user::MASTERS) {
            return Decision::Allow(String::new());
        }
        let mut reasons = Vec::new();
        for authorizer in &self.0 {
            match authorizer.authorize(attributes).await {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decision => return decision,
            }
        }
        Decision::NoOpinion(reasons.join(", "))
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
