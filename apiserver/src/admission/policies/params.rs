//! The parameters that a binding gives to its policy.

use std::sync::Arc;

use generic::{admission::AdmissionRequest, endpoint::Endpoint, resource::decode_cached};
use serde_json::Value;
use storage::cache::Freshness;

use super::definitions::{Binding, ParamRef, Policy};
use crate::admission::criteria::Selector;

/// Where the parameters of a policy are, if it has any; or why the policy is of no use.
pub(super) fn place(policy: &Policy, request: &AdmissionRequest) -> Result<Option<Arc<Endpoint>>, String> {
    if let Some(fault) = &policy.fault {
        return Err(fault.clone());
    }
    let Some(kind) = &policy.param_kind else { return Ok(None) };
    let found = request.server.endpoints.of_kind(kind);
    found.map(Some).ok_or_else(|| format!("failed to find resource referenced by paramKind: '{kind}'"))
}

/// Parameters of a binding; the policy is evaluated once with each. `parameters`: where they are, if the policy has any.
pub(super) async fn of_binding(
    binding: &Binding,
    parameters: Option<&Endpoint>,
    request: &AdmissionRequest,
) -> Result<Vec<Value>, String> {
    let (Some(endpoint), Some(reference)) = (parameters, &binding.spec.param_ref) else {
        return Ok(vec![Value::Null]);
    };
    let namespace = namespace(endpoint, reference, request)?;
    let found = match (&reference.selector, reference.name.as_str()) {
        (None, "") => return Err("one of name or selector must be provided".into()),
        (Some(_), name) if !name.is_empty() => {
            return Err("paramRef.name and paramRef.selector are mutually exclusive".into());
        }
        (Some(selector), _) => selected(endpoint, namespace, selector).await?,
        (None, name) => named(endpoint, namespace, name).await?.into_iter().collect(),
    };
    if found.is_empty() && reference.parameter_not_found_action.as_deref() == Some("Deny") {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    Ok(found)
}

fn namespace<'a>(
    endpoint: &Endpoint,
    reference: &'a ParamRef,
    request: &'a AdmissionRequest,
) -> Result<&'a str, String> {
    match (endpoint.namespaced, reference.namespace.as_str()) {
        (false, "") => Ok(""),
        (false, _) => Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into()),
        (true, "") if request.namespace.is_empty() => {
            Err("cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".into())
        }
        (true, "") => Ok(&request.namespace),
        (true, namespace) => Ok(namespace),
    }
}

async fn named(endpoint: &Endpoint, namespace: &str, name: &str) -> Result<Option<Value>, String> {
    let Some(resource) = &endpoint.resource else { return Ok(None) };
    let found = match resource.get_settled(namespace, name).await {
        Ok(found) => decode_cached(&found),
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => Err(error),
    };
    let stored = found.map_err(|error| error.to_string())?;
    endpoint.served(stored.object).await.map(Some).map_err(|error| error.to_string())
}

async fn selected(endpoint: &Endpoint, namespace: &str, selector: &Selector) -> Result<Vec<Value>, String> {
    let Some(resource) = &endpoint.resource else { return Ok(Vec::new()) };
    let prefix = resource.key_prefix(namespace).map_err(|error| error.to_string())?;
    let snapshot = resource.cache().list(&prefix, Freshness::Any).await.map_err(|error| error.to_string())?;
    let mut objects = Vec::new();
    for (_, cached) in snapshot.range(None) {
        if selector.matches_labels(|key| cached.index.label(key)) {
            objects.push(decode_cached(cached).map_err(|error| error.to_string())?.object);
        }
    }
    endpoint.served_all(objects).await.map_err(|error| error.to_string())
}
