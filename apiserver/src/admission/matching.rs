//! Which webhooks and policies see a request, and in which version.

use std::sync::Arc;

use generic::{
    admission::{AdmissionRequest, Operation},
    endpoint::Endpoint,
    resource::Resource,
};
use machinery::{ApiResult, GroupVersionKind, GroupVersionResource};
use serde_json::{Value, json};

use super::{
    GROUP,
    criteria::{Criteria, Rule, Selector},
};

/// Configurations of admission are beyond its reach: a webhook or policy can neither change nor keep them.
pub(super) fn is_reviewed(request: &AdmissionRequest) -> bool {
    request.resource.group != GROUP
}

/// The version of the request that a webhook or policy sees.
pub(super) struct Matched {
    pub(super) endpoint: Arc<Endpoint>,
}

impl Matched {
    /// The version that was asked for.
    pub(super) fn asked(request: &AdmissionRequest) -> Self {
        Self { endpoint: Arc::clone(&request.endpoint) }
    }

    /// Kind of what is seen. Some subresources take another kind than their resource has (`Binding`).
    pub(super) fn kind(&self, request: &AdmissionRequest) -> GroupVersionKind {
        if Self::carries_own_kind(request) { self.endpoint.gvk.clone() } else { request.kind.clone() }
    }

    /// Whether objects are seen in the version that was asked for.
    pub(super) fn is_asked(&self, request: &AdmissionRequest) -> bool {
        Arc::ptr_eq(&self.endpoint, &request.endpoint)
    }

    /// Whether the request carries the objects of its resource, not those of a subresource (`Scale`, `Binding`).
    fn carries_own_kind(request: &AdmissionRequest) -> bool {
        let stored = request.endpoint.resource.as_ref().filter(|_| request.endpoint.custom().is_none());
        request.kind == *stored.map_or(&request.endpoint.gvk, |resource| &resource.gvk)
    }

    /// An object in the version that is seen.
    pub(super) async fn sent(&self, object: Option<&Value>, request: &AdmissionRequest) -> ApiResult<Value> {
        let Some(object) = object else { return Ok(Value::Null) };
        if !Self::carries_own_kind(request) {
            return Ok(object.clone());
        }
        let (asked, wanted) = (&request.endpoint, &self.endpoint);
        match (asked.custom(), wanted.custom()) {
            (Some(_), Some(_)) if self.is_asked(request) => Ok(object.clone()),
            (Some(from), Some(_)) => wanted.served(from.unload(object.clone()).await?).await,
            _ => wanted.served(object.clone()).await,
        }
    }

    /// What was made of an object, in the version that writes work on, with its defaults.
    pub(super) async fn received(&self, object: Value, request: &AdmissionRequest) -> ApiResult<Value> {
        if !Self::carries_own_kind(request) {
            return Ok(object);
        }
        let (asked, sent) = (&request.endpoint, &self.endpoint);
        let mut object = match (asked.custom(), sent.custom()) {
            (Some(to), Some(from)) => {
                let mut object = object;
                if !self.is_asked(request) {
                    object = asked.served(from.unload(object).await?).await?;
                }
                to.check(&mut object);
                to.strategy().defaults(&mut object);
                return Ok(object);
            }
            _ => match sent.conversion {
                Some(conversion) => conversion.to_stored(object),
                None => object,
            },
        };
        if let Some(resource) = asked.resource.as_ref().filter(|resource| resource.gvk == request.kind) {
            resource.strategy.defaults(&mut object);
        }
        Ok(object)
    }

    /// The request as webhooks and expressions see it, without its objects.
    pub(super) fn about(&self, request: &AdmissionRequest) -> Value {
        let kind = |gvk: &GroupVersionKind| json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind});
        let resource = |endpoint: &Endpoint| {
            let gvr = &endpoint.gvr;
            json!({"group": gvr.group, "version": gvr.version, "resource": gvr.resource})
        };
        let user = &request.user;
        let mut about = json!({
            "kind": kind(&self.kind(request)),
            "resource": resource(&self.endpoint),
            "requestKind": kind(&Self::asked(request).kind(request)),
            "requestResource": resource(&request.endpoint),
            "operation": request.operation.as_str(),
            "userInfo": {"username": user.name, "groups": user.groups},
            "dryRun": request.dry_run,
            "options": request.options(),
        });
        for (field, text) in [
            ("subResource", &request.subresource),
            ("requestSubResource", &request.subresource),
            ("name", &request.name),
            ("namespace", &request.namespace),
        ] {
            if !text.is_empty() {
                about[field] = json!(text);
            }
        }
        if !user.uid.is_empty() {
            about["userInfo"]["uid"] = json!(user.uid);
        }
        if !user.extra.is_empty() {
            about["userInfo"]["extra"] = json!(user.extra);
        }
        about
    }
}

/// Whether a request is to be seen, and in which version.
pub(super) async fn matched(
    criteria: &Criteria<'_>,
    namespaces: &Resource,
    request: &AdmissionRequest,
    object: Option<&Value>,
    old: Option<&Value>,
) -> ApiResult<Option<Matched>> {
    let Some(endpoint) = by_rules(criteria, request) else { return Ok(None) };
    if !criteria.objects.is_everything() {
        let selected = [object, old].into_iter().flatten().any(|object| criteria.objects.matches(object));
        if !selected {
            return Ok(None);
        }
    }
    if !in_namespaces(criteria.namespaces, namespaces, request, object, old).await? {
        return Ok(None);
    }
    Ok(Some(Matched { endpoint }))
}

async fn in_namespaces(
    selector: &Selector,
    namespaces: &Resource,
    request: &AdmissionRequest,
    object: Option<&Value>,
    old: Option<&Value>,
) -> ApiResult<bool> {
    if selector.is_everything() {
        return Ok(true);
    }
    if request.is("", "namespaces") {
        let own = if request.operation == Operation::Delete { old } else { object.or(old) };
        return Ok(own.is_none_or(|namespace| selector.matches(namespace)));
    }
    if request.namespace.is_empty() {
        return Ok(true);
    }
    let namespace = namespaces.get_settled("", &request.namespace).await?;
    Ok(selector.matches_labels(|key| namespace.index.label(key)))
}

/// The endpoint whose version the rules name.
fn by_rules(criteria: &Criteria<'_>, request: &AdmissionRequest) -> Option<Arc<Endpoint>> {
    let named = |rules| named_by(rules, criteria.match_policy, request);
    if !criteria.excluded.is_empty() && named(criteria.excluded).is_some() {
        return None;
    }
    match criteria.rules {
        Some(rules) => named(rules),
        None => Some(Arc::clone(&request.endpoint)),
    }
}

/// The endpoint that was asked for if a rule names it, else an equivalent one.
fn named_by(rules: &[Rule], match_policy: Option<&str>, request: &AdmissionRequest) -> Option<Arc<Endpoint>> {
    let matches = |resource: &GroupVersionResource| rules.iter().any(|rule| covers(rule, resource, request));
    if matches(&request.endpoint.gvr) {
        return Some(Arc::clone(&request.endpoint));
    }
    if match_policy == Some("Exact") {
        return None;
    }
    request.server.endpoints.siblings(&request.endpoint).into_iter().find(|sibling| matches(&sibling.gvr))
}

fn covers(rule: &Rule, resource: &GroupVersionResource, request: &AdmissionRequest) -> bool {
    let AdmissionRequest { namespace, subresource, name, .. } = request;
    covers_place(rule, resource, request.operation, &Place { namespace, subresource, name })
}

/// Where a request goes, besides its resource.
pub(super) struct Place<'a> {
    pub(super) namespace: &'a str,
    pub(super) subresource: &'a str,
    pub(super) name: &'a str,
}

/// Whether a rule is about an operation on a resource.
pub(super) fn covers_place(
    rule: &Rule,
    resource: &GroupVersionResource,
    operation: Operation,
    place: &Place<'_>,
) -> bool {
    let names = |list: &[String], name: &str| list.iter().any(|entry| entry == "*" || entry == name);
    // The request of a Namespace has its own name as namespace, and is of the cluster all the same.
    let namespaced = !place.namespace.is_empty() && resource.resource != "namespaces";
    let in_scope = match rule.scope.as_deref() {
        Some("Namespaced") => namespaced,
        Some("Cluster") => !namespaced,
        _ => true,
    };
    in_scope
        && names(&rule.operations, operation.as_str())
        && names(&rule.api_groups, &resource.group)
        && names(&rule.api_versions, &resource.version)
        && (rule.resource_names.is_empty() || rule.resource_names.iter().any(|name| name == place.name))
        && rule.resources.iter().any(|entry| {
            let (main, part) = entry.split_once('/').unwrap_or((entry, ""));
            (main == "*" || main == resource.resource) && (part == "*" || part == place.subresource)
        })
}
