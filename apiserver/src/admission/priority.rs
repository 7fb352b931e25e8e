//! Priority.

use std::sync::Arc;

use async_trait::async_trait;
use generic::{
    admission::{AdmissionRequest, Operation, Plugin},
    resource::{Resource, decode_cached},
};
use machinery::{ApiResult, meta};
use serde_json::{Value, json};
use storage::cache::Freshness;

const DEFAULT_POLICY: &str = "PreemptLowerPriority";

/// Resolves priority classes of Pods, and keeps at most one class the default.
pub(super) struct Priority {
    pub(super) classes: Arc<Resource>,
}

#[async_trait]
impl Plugin for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        writes
            && request.subresource.is_empty()
            && (request.is("", "pods") || request.is("scheduling.k8s.io", "priorityclasses"))
    }

    async fn admit(
        &self,
        request: &AdmissionRequest,
        object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> ApiResult<()> {
        let (true, Some(pod)) = (request.is("", "pods"), object) else { return Ok(()) };
        match (request.operation, old) {
            (Operation::Update, Some(old)) => {
                for field in ["priority", "preemptionPolicy"] {
                    let stored = old.pointer(&format!("/spec/{field}")).cloned();
                    if let (None, Some(value)) = (pod.pointer(&format!("/spec/{field}")), stored) {
                        pod["spec"][field] = value;
                    }
                }
                Ok(())
            }
            _ => self.resolve(request, pod).await,
        }
    }

    async fn validate(
        &self,
        request: &AdmissionRequest,
        object: Option<&Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let Some(class) = object.filter(|_| request.is("scheduling.k8s.io", "priorityclasses")) else { return Ok(()) };
        if class.get("globalDefault").and_then(Value::as_bool) != Some(true) {
            return Ok(());
        }
        match self.default_class().await? {
            Some(present) if meta::name(&present) != meta::name(class) => Err(request.reject(
                object,
                &format!(
                    "PriorityClass {} is already marked as default. Only one default can exist",
                    meta::name(&present)
                ),
            )),
            _ => Ok(()),
        }
    }
}

impl Priority {
    /// The globally default class of the lowest value.
    async fn default_class(&self) -> ApiResult<Option<Value>> {
        let prefix = self.classes.key_prefix("")?;
        let listed = self.classes.cache().list(&prefix, Freshness::Any).await;
        let snapshot = listed.map_err(|e| self.classes.store_error(e))?;
        let mut defaults = Vec::new();
        for (_, cached) in snapshot.range(None) {
            let class = decode_cached(cached)?.object;
            if class.get("globalDefault").and_then(Value::as_bool) == Some(true) {
                defaults.push(class);
            }
        }
        Ok(defaults.into_iter().min_by_key(|c| c.get("value").and_then(Value::as_i64)))
    }

    async fn resolve(&self, request: &AdmissionRequest, pod: &mut Value) -> ApiResult<()> {
        let name = pod.pointer("/spec/priorityClassName").and_then(Value::as_str).unwrap_or("").to_owned();
        let class = match name.is_empty() {
            true => self.default_class().await?,
            false => match self.classes.get("", &name, Freshness::Latest).await {
                Ok(found) => Some(decode_cached(&found)?.object),
                Err(error) if error.is_not_found() => {
                    return Err(request.reject(Some(pod), &format!("no PriorityClass with name {name} was found")));
                }
                Err(error) => return Err(error),
            },
        };
        let value = class.as_ref().and_then(|c| c.get("value")).and_then(Value::as_i64).unwrap_or(0);
        let policy = class.as_ref().and_then(|c| c.get("preemptionPolicy")).and_then(Value::as_str);
        let policy = policy.unwrap_or(DEFAULT_POLICY).to_owned();
        let why = "must not be provided in pod spec; priority admission controller computed";
        let source = "from the given PriorityClass name";
        if let Some(sent) = pod.pointer("/spec/priority").and_then(Value::as_i64).filter(|sent| *sent != value) {
            let text = format!("the integer value of priority ({sent}) {why} {value} {source}");
            return Err(request.reject(Some(pod), &text));
        }
        let sent = pod.pointer("/spec/preemptionPolicy").and_then(Value::as_str);
        if let Some(sent) = sent.filter(|sent| *sent != policy) {
            let text = format!("the string value of PreemptionPolicy ({sent}) {why} {policy} {source}");
            return Err(request.reject(Some(pod), &text));
        }
        if let (true, Some(class)) = (name.is_empty(), &class) {
            pod["spec"]["priorityClassName"] = json!(meta::name(class));
        }
        pod["spec"]["priority"] = json!(value);
        pod["spec"]["preemptionPolicy"] = json!(policy);
        Ok(())
    }
}
