//! `pods/eviction`: a delete that respects PodDisruptionBudgets.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use axum::body::Body;
use generic::{
    admission::Operation,
    endpoint::{Call, Handler},
    negotiate::Target,
    options::{DeleteOptions, Preconditions, WriteOptions},
    resource::{Resource, Swap, decode_cached},
    verbs::{body, context::Moment, delete},
};
use http::{Response, StatusCode};
use machinery::{ApiError, ApiResult, GroupVersionKind, StatusCause, StatusDetails, meta, selector::LabelSelector};
use serde_json::{Value, json};
use storage::cache::Freshness;

const ATTEMPTS: usize = 8;
/// Evictions that one budget remembers at most.
const MAX_DISRUPTED: usize = 2000;

/// Handler of evictions.
pub struct Eviction {
    /// The Pods.
    pub pods: Arc<Resource>,
    /// The budgets.
    pub budgets: Arc<Resource>,
}

#[async_trait]
impl Handler for Eviction {
    async fn handle(&self, call: &Call) -> ApiResult<Response<Body>> {
        if call.method != http::Method::POST {
            return Err(ApiError::method_not_allowed());
        }
        let write = WriteOptions::parse("CreateOptions", &call.query, &call.headers, false)?;
        let kind = GroupVersionKind::new("policy", "v1", "Eviction");
        let mut eviction = body::decode_object(call, &kind, write.field_validation)?;
        if !meta::name(&eviction).is_empty() && meta::name(&eviction) != call.info.name {
            return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
        }
        let mut request = call.admission(Operation::Create, &call.info.name, write.dry_run);
        request.kind = kind;
        call.server.plugins.admit(&request, Some(&mut eviction), None).await?;
        call.server.plugins.validate(&request, Some(&eviction), None).await?;
        let mut options: DeleteOptions = match eviction.get("deleteOptions") {
            Some(options) if !options.is_null() => DeleteOptions::parse(Some(options.clone()), &call.query)?,
            _ => DeleteOptions::default(),
        };
        if write.dry_run && options.dry_run.is_empty() {
            options.dry_run.push("All".into());
        }
        let cached = self.pods.get(&call.info.namespace, &call.info.name, Freshness::Latest).await?;
        let pod = decode_cached(&cached)?.object;
        if !exempt(&pod)
            && let Some(budget) = self.budget_of(&pod).await?
        {
            let unhealthy_free = unready_may_go(&pod, &budget);
            if !unhealthy_free {
                self.charge(call, &budget, &pod, options.is_dry_run()).await?;
            }
            let preconditions = options.preconditions.get_or_insert_with(Preconditions::default);
            preconditions.uid.get_or_insert_with(|| meta::uid(&pod).to_owned());
        }
        if !options.is_dry_run() {
            self.mark_target(&pod).await?;
        }
        delete::delete_object(call, &call.info.namespace, &call.info.name, &options).await?;
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        call.writer(Target::Plain)?.object(StatusCode::CREATED, status)
    }
}

/// Pods that no budget protects: finished, not yet running, or already going.
fn exempt(pod: &Value) -> bool {
    let phase = pod.pointer("/status/phase").and_then(Value::as_str).unwrap_or("");
    matches!(phase, "Succeeded" | "Failed" | "Pending") || meta::is_deleting(pod)
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
}

/// Whether an unready Pod may go without being charged to its budget.
fn unready_may_go(pod: &Value, budget: &Value) -> bool {
    if is_ready(pod) {
        return false;
    }
    let number = |path: &str| budget.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    match budget.pointer("/spec/unhealthyPodEvictionPolicy").and_then(Value::as_str) {
        Some("AlwaysAllow") => true,
        _ => {
            number("/status/currentHealthy") >= number("/status/desiredHealthy") && number("/status/desiredHealthy") > 0
        }
    }
}

impl Eviction {
    async fn budget_of(&self, pod: &Value) -> ApiResult<Option<Value>> {
        let prefix = self.budgets.key_prefix(meta::namespace(pod))?;
        let listed = self.budgets.cache().list(&prefix, Freshness::Latest).await;
        let snapshot = listed.map_err(|e| self.budgets.store_error(e))?;
        let labels: BTreeMap<&str, &str> = meta::text_map(pod, "labels").collect();
        let mut matching = Vec::new();
        for (_, cached) in snapshot.range(None) {
            let budget = decode_cached(cached)?.object;
            let Some(selector) = budget.pointer("/spec/selector") else { continue };
            if LabelSelector::from_object(selector).is_ok_and(|s| s.matches(|key| labels.get(key).copied())) {
                matching.push(budget);
            }
        }
        if matching.len() > 1 {
            return Err(ApiError::internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ));
        }
        Ok(matching.pop())
    }

    /// Says in the Pod's conditions why it goes.
    async fn mark_target(&self, pod: &Value) -> ApiResult<()> {
        let (namespace, name) = (meta::namespace(pod), meta::name(pod));
        for _ in 0..ATTEMPTS {
            let Some(stored) = self.pods.current(namespace, name).await? else { return Ok(()) };
            if meta::uid(&stored.object) != meta::uid(pod) {
                return Ok(());
            }
            let mut marked = stored.object.clone();
            let status = meta::object_mut(meta::object_mut(&mut marked).entry("status").or_insert_with(|| json!({})));
            let Some(conditions) = status.entry("conditions").or_insert_with(|| json!([])).as_array_mut() else {
                return Ok(());
            };
            conditions.retain(|c| c["type"] != "DisruptionTarget");
            conditions.push(json!({
                "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                "message": "Eviction API: evicting", "lastProbeTime": null, "lastTransitionTime": Moment::now().text,
            }));
            if let Swap::Done(_) = self.pods.replace(&marked, stored.revision).await? {
                return Ok(());
            }
        }
        Err(ApiError::stale(&self.pods.group_resource, name))
    }

    /// Takes one disruption off the budget, or answers 429.
    async fn charge(&self, call: &Call, budget: &Value, pod: &Value, dry_run: bool) -> ApiResult<()> {
        let (namespace, name) = (meta::namespace(budget), meta::name(budget));
        for _ in 0..ATTEMPTS {
            let Some(stored) = self.budgets.current(namespace, name).await? else { return Ok(()) };
            let charged = charged(call, &stored.object, pod)?;
            if dry_run {
                return Ok(());
            }
            if let Swap::Done(_) = self.budgets.replace(&charged, stored.revision).await? {
                return Ok(());
            }
        }
        let text = format!("couldn't update PodDisruptionBudget {name:?} due to conflicts");
        Err(ApiError::too_many_requests(text, 10))
    }
}

fn refusal(text: String, cause: String) -> ApiError {
    let cause = StatusCause { reason: "DisruptionBudget".into(), message: cause, field: String::new() };
    ApiError::too_many_requests(text, 0).with_details(StatusDetails { causes: vec![cause], ..StatusDetails::default() })
}

const WOULD_VIOLATE: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

fn charged(call: &Call, budget: &Value, pod: &Value) -> ApiResult<Value> {
    let name = meta::name(budget);
    let number = |path: &str| budget.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    let generation = budget.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0);
    if number("/status/observedGeneration") < generation {
        let cause = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refusal(WOULD_VIOLATE.into(), cause).retry_after(10));
    }
    let allowed = number("/status/disruptionsAllowed");
    if allowed < 0 {
        let resource = machinery::GroupResource::new("policy", "poddisruptionbudgets");
        return Err(ApiError::forbidden(&resource, name, "pdb disruptions allowed is negative"));
    }
    if budget.pointer("/status/disruptedPods").and_then(Value::as_object).is_some_and(|m| m.len() > MAX_DISRUPTED) {
        let resource = machinery::GroupResource::new("policy", "poddisruptionbudgets");
        return Err(ApiError::forbidden(
            &resource,
            name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        let cause = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            number("/status/desiredHealthy"),
            number("/status/currentHealthy")
        );
        return Err(refusal(WOULD_VIOLATE.into(), cause));
    }
    let mut charged = budget.clone();
    let pod_name = if meta::name(pod).is_empty() { &call.info.name } else { meta::name(pod) };
    let status = meta::object_mut(&mut charged["status"]);
    status.insert("disruptionsAllowed".into(), json!(allowed - 1));
    let disrupted = status.entry("disruptedPods").or_insert_with(|| json!({}));
    meta::object_mut(disrupted).insert(pod_name.to_owned(), json!(Moment::now().text));
    Ok(charged)
}
