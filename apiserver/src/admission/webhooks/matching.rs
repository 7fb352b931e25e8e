//! Which webhooks are asked about a request, and about which version of it.

use std::sync::Arc;

use generic::{
    admission::{AdmissionRequest, Operation},
    endpoint::Endpoint,
};
use machinery::{ApiResult, GroupVersionKind, GroupVersionResource};
use serde_json::Value;

use super::{
    Webhooks,
    config::{Rule, Webhook},
};

const GROUP: &str = "admissionregistration.k8s.io";

/// Configurations of admission are beyond its reach: a webhook can neither change nor keep them.
pub(super) fn is_reviewed(request: &AdmissionRequest) -> bool {
    request.resource.group != GROUP
}

/// The version of the request that a webhook is sent.
pub(super) struct Matched {
    pub(super) endpoint: Arc<Endpoint>,
}

impl Matched {
    /// Kind of what is sent. Some subresources take another kind than their resource has (`Binding`).
    pub(super) fn kind(&self, request: &AdmissionRequest) -> GroupVersionKind {
        let stored = request.endpoint.resource.as_ref().map(|resource| &resource.gvk);
        if stored.is_none_or(|stored| *stored == request.kind) {
            self.endpoint.gvk.clone()
        } else {
            request.kind.clone()
        }
    }

    /// Whether objects are sent in the version that was asked for.
    pub(super) fn is_asked(&self, request: &AdmissionRequest) -> bool {
        Arc::ptr_eq(&self.endpoint, &request.endpoint)
    }
}

impl Webhooks {
    /// Whether a webhook is to be asked about a request.
    pub(super) async fn matched(
        &self,
        webhook: &Webhook,
        request: &AdmissionRequest,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> ApiResult<Option<Matched>> {
        let Some(endpoint) = by_rules(webhook, request) else { return Ok(None) };
        if !webhook.object_selector.is_everything() {
            let selected = [object, old].into_iter().flatten().any(|object| webhook.object_selector.matches(object));
            if !selected {
                return Ok(None);
            }
        }
        if !self.in_namespaces(webhook, request, object, old).await? {
            return Ok(None);
        }
        Ok(Some(Matched { endpoint }))
    }

    async fn in_namespaces(
        &self,
        webhook: &Webhook,
        request: &AdmissionRequest,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> ApiResult<bool> {
        let selector = &webhook.namespace_selector;
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
        let namespace = self.namespaces.get_settled("", &request.namespace).await?;
        Ok(selector.matches_labels(|key| namespace.index.label(key)))
    }
}

/// The endpoint whose version a rule names: the one that was asked for, else an equivalent one.
fn by_rules(webhook: &Webhook, request: &AdmissionRequest) -> Option<Arc<Endpoint>> {
    let matches = |resource: &GroupVersionResource| webhook.rules.iter().any(|rule| covers(rule, resource, request));
    if matches(&request.endpoint.gvr) {
        return Some(Arc::clone(&request.endpoint));
    }
    if webhook.match_policy.as_deref() == Some("Exact") {
        return None;
    }
    request.server.endpoints.siblings(&request.endpoint).into_iter().find(|sibling| matches(&sibling.gvr))
}

fn covers(rule: &Rule, resource: &GroupVersionResource, request: &AdmissionRequest) -> bool {
    let place = Place { namespace: &request.namespace, subresource: &request.subresource };
    covers_place(rule, resource, request.operation, &place)
}

/// Where a request goes, besides its resource.
pub(super) struct Place<'a> {
    pub(super) namespace: &'a str,
    pub(super) subresource: &'a str,
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
        && rule.resources.iter().any(|entry| {
            let (main, part) = entry.split_once('/').unwrap_or((entry, ""));
            (main == "*" || main == resource.resource) && (part == "*" || part == place.subresource)
        })
}
