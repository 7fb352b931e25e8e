//! ResourceQuota: charges new objects to the quotas of their namespace before they are stored.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use generic::{
    admission::{AdmissionRequest, Operation, Plugin},
    resource::{Resource, Stored, Swap},
};
use machinery::{ApiError, ApiResult, meta, quantity::Quantity};
use semantics::{
    quota::{in_scope, unspecified, usage},
    resources::{ResourceList, read},
};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{configuration::LimitedResource, namespaced};

/// Tries to charge while others do the same.
const ATTEMPTS: usize = 4;

/// The plugin.
pub(super) struct ResourceQuotas {
    pub(super) quotas: Arc<Resource>,
    /// What no quota has to cover may be used without.
    pub(super) limited: Vec<LimitedResource>,
}

#[async_trait]
impl Plugin for ResourceQuotas {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        let resized = request.is("", "pods") && request.subresource == "resize";
        let main = request.subresource.is_empty();
        let changes = ["services", "persistentvolumeclaims", "pods"].iter().any(|r| request.is("", r));
        !request.namespace.is_empty()
            && match request.operation {
                Operation::Create => main && !request.resource.group.ends_with("authorization.k8s.io"),
                Operation::Update => resized || (main && changes),
                Operation::Delete | Operation::Connect => false,
            }
    }

    async fn validate(&self, request: &AdmissionRequest, object: Option<&Value>, old: Option<&Value>) -> ApiResult<()> {
        let Some(object) = object else { return Ok(()) };
        if old.is_some_and(|old| !matters(request, old, object)) {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            let quotas = namespaced::objects(&self.quotas, &request.namespace).await?;
            if let Some(why) = uncovered(&self.limited, request, object, old, &quotas) {
                return Err(request.reject(Some(object), &why));
            }
            let charges = charges(request, object, old, &quotas)?;
            if request.dry_run || self.store(charges).await? {
                return Ok(());
            }
        }
        Err(ApiError::conflict(&self.quotas.group_resource, "", "the quotas of the namespace changed meanwhile"))
    }
}

/// Pods are charged anew only when they are resized or begin or cease to be short-lived.
fn matters(request: &AdmissionRequest, old: &Value, new: &Value) -> bool {
    let deadline = |pod: &Value| pod.pointer("/spec/activeDeadlineSeconds").is_some();
    !request.is("", "pods") || request.subresource == "resize" || deadline(old) != deadline(new)
}

impl ResourceQuotas {
    /// Writes what is charged. `false`: somebody else was first, or the cache is behind.
    async fn store(&self, charges: Vec<(Stored, ResourceList)>) -> ApiResult<bool> {
        for (quota, used) in charges {
            let mut object = quota.object;
            object["status"]["used"] = texts(&used);
            if let Swap::Lost(_) = self.quotas.replace(&object, quota.revision).await? {
                // What was charged to other quotas is put right by their controller.
                self.refresh(meta::namespace(&object), meta::name(&object)).await?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn refresh(&self, namespace: &str, name: &str) -> ApiResult<()> {
        match self.quotas.get(namespace, name, storage::cache::Freshness::Latest).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

fn texts(list: &ResourceList) -> Value {
    list.iter()
        .map(|(name, quantity)| (name.clone(), json!(quantity.to_string())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// What the operator wants covered by quotas and is not, if something is.
fn uncovered(
    limited: &[LimitedResource],
    request: &AdmissionRequest,
    object: &Value,
    old: Option<&Value>,
    quotas: &[Stored],
) -> Option<String> {
    let (group, resource) = (request.resource.group.as_str(), request.resource.resource.as_str());
    let limited: Vec<&LimitedResource> =
        limited.iter().filter(|limited| limited.api_group == group && limited.resource == resource).collect();
    if limited.is_empty() {
        return None;
    }
    let now = OffsetDateTime::now_utc();
    let mut delta = usage(group, resource, object, now);
    for (name, before) in old.map(|old| usage(group, resource, old, now)).unwrap_or_default() {
        if let Some(amount) = delta.get_mut(&name) {
            *amount -= before;
        }
    }
    delta.retain(|_, amount| !amount.is_zero() && !amount.is_negative());
    let covering: Vec<&Stored> =
        quotas.iter().filter(|quota| in_scope(&quota.object["spec"], group, resource, object)).collect();
    let covered = |name: &str| covering.iter().any(|quota| quota.object["status"]["hard"].get(name).is_some());
    let contains =
        |name: &str| limited.iter().any(|l| l.match_contains.iter().any(|part| name.contains(part.as_str())));
    let names: Vec<&str> = delta.keys().map(String::as_str).filter(|name| contains(name) && !covered(name)).collect();
    if !names.is_empty() {
        return Some(format!("insufficient quota to consume: {}", names.join(",")));
    }
    let asks = |scope: &Value| json!({"scopeSelector": {"matchExpressions": [scope]}});
    let has = |scope: &Value| {
        covering.iter().any(|quota| {
            let spec = &quota.object["spec"];
            let selected = spec.pointer("/scopeSelector/matchExpressions").and_then(Value::as_array);
            let named = spec["scopes"].as_array();
            selected.into_iter().flatten().any(|term| term["scopeName"] == scope["scopeName"])
                || named.into_iter().flatten().any(|name| *name == scope["scopeName"])
        })
    };
    let scopes: Vec<String> = limited
        .iter()
        .flat_map(|limited| &limited.match_scopes)
        .filter(|scope| in_scope(&asks(scope), group, resource, object) && !has(scope))
        .map(shown)
        .collect();
    (!scopes.is_empty()).then(|| format!("insufficient quota to match these scopes: [{}]", scopes.join(" ")))
}

/// A scope as upstream prints it.
fn shown(scope: &Value) -> String {
    let text = |field: &str| scope[field].as_str().unwrap_or_default();
    let values: Vec<&str> = scope["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    format!("{{{} {} [{}]}}", text("scopeName"), text("operator"), values.join(" "))
}

/// The new `status.used` of each quota that the write is charged to.
fn charges(
    request: &AdmissionRequest,
    object: &Value,
    old: Option<&Value>,
    quotas: &[Stored],
) -> ApiResult<Vec<(Stored, ResourceList)>> {
    let (group, resource) = (request.resource.group.as_str(), request.resource.resource.as_str());
    let now = OffsetDateTime::now_utc();
    let new = usage(group, resource, object, now);
    let before = old.map(|old| usage(group, resource, old, now)).unwrap_or_default();
    let mut charges = Vec::new();
    for quota in quotas {
        let hard = read(quota.object.pointer("/status/hard"));
        let spec = &quota.object["spec"];
        if !hard.keys().any(|name| new.contains_key(name)) || !in_scope(spec, group, resource, object) {
            continue;
        }
        let covered_before = old.is_some_and(|old| in_scope(spec, group, resource, old));
        let base = if covered_before { &before } else { &ResourceList::new() };
        let reject = |why: &str| request.reject(Some(object), why);
        if let Some(used) = charge(quota, &hard, object, (group, resource), &new, base).map_err(|why| reject(&why))? {
            charges.push((quota.clone(), used));
        }
    }
    Ok(charges)
}

fn charge(
    quota: &Stored,
    hard: &ResourceList,
    object: &Value,
    kind: (&str, &str),
    new: &ResourceList,
    before: &ResourceList,
) -> Result<Option<ResourceList>, String> {
    let name = meta::name(&quota.object);
    let limited: Vec<&str> = hard.keys().map(String::as_str).collect();
    if kind == ("", "pods") {
        let missing = unspecified(object, &limited);
        if !missing.is_empty() {
            let texts: Vec<String> = missing.iter().map(|(r, who)| format!("{r} for: {}", who.join(","))).collect();
            return Err(format!("failed quota: {name}: must specify {}", texts.join("; ")));
        }
    }
    let mut used = read(quota.object.pointer("/status/used"));
    let unknown: Vec<&str> =
        limited.iter().copied().filter(|r| new.contains_key(*r) && !used.contains_key(*r)).collect();
    if !unknown.is_empty() {
        return Err(format!("status unknown for quota: {name}, resources: {}", unknown.join(",")));
    }
    let mut exceeded: BTreeMap<&str, (Quantity, Quantity, Quantity)> = BTreeMap::new();
    let mut changed = false;
    for (resource, limit) in hard {
        let mut delta = new.get(resource).copied().unwrap_or_default();
        delta -= before.get(resource).copied().unwrap_or_default();
        let Some(own) = used.get_mut(resource).filter(|_| !delta.is_zero() && !delta.is_negative()) else { continue };
        let was = *own;
        *own += delta;
        changed = true;
        if *own > *limit {
            exceeded.insert(resource, (delta, was, *limit));
        }
    }
    if exceeded.is_empty() {
        return Ok(changed.then_some(used));
    }
    let list = |pick: fn(&(Quantity, Quantity, Quantity)) -> Quantity| {
        exceeded.iter().map(|(r, all)| format!("{r}={}", pick(all))).collect::<Vec<_>>().join(",")
    };
    let (requested, used, limited) = (list(|all| all.0), list(|all| all.1), list(|all| all.2));
    Err(format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(hard: &Value, used: &Value) -> Stored {
        let object = json!({"metadata": {"name": "q"}, "status": {"hard": hard, "used": used}});
        Stored { object, revision: 1 }
    }

    fn charged(quota: &Stored, pod: &Value) -> Result<Option<ResourceList>, String> {
        let hard = read(quota.object.pointer("/status/hard"));
        let new = usage("", "pods", pod, OffsetDateTime::UNIX_EPOCH);
        charge(quota, &hard, pod, ("", "pods"), &new, &ResourceList::new())
    }

    #[test]
    fn charges_until_the_limit() {
        let pod = json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]}});
        let room = quota(&json!({"pods": "2", "requests.cpu": "3"}), &json!({"pods": "1", "requests.cpu": "2"}));
        assert_eq!(texts(&charged(&room, &pod).unwrap().unwrap()), json!({"pods": "2", "requests.cpu": "3"}));
        let full = quota(&json!({"pods": "1", "requests.cpu": "3"}), &json!({"pods": "1", "requests.cpu": "2500m"}));
        assert_eq!(
            charged(&full, &pod).unwrap_err(),
            "exceeded quota: q, requested: pods=1,requests.cpu=1, used: pods=1,requests.cpu=2500m, \
             limited: pods=1,requests.cpu=3"
        );
    }

    #[test]
    fn refuses_what_cannot_be_counted() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}});
        let silent = quota(&json!({"memory": "1Gi", "limits.cpu": "1"}), &json!({"memory": "0", "limits.cpu": "0"}));
        assert_eq!(
            charged(&silent, &pod).unwrap_err(),
            "failed quota: q: must specify limits.cpu for: a,b; memory for: a,b"
        );
        let unknown = quota(&json!({"pods": "1"}), &json!({}));
        assert_eq!(charged(&unknown, &pod).unwrap_err(), "status unknown for quota: q, resources: pods");
    }
}
