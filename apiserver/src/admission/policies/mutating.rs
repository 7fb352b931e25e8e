//! MutatingAdmissionPolicy.

use std::time::Instant;

use async_trait::async_trait;
use generic::admission::{AdmissionRequest, Plugin};
use machinery::{ApiError, ApiResult, GroupVersionKind, Reason, StatusCause, managed, patch, schema::SchemaRef};
use serde_json::Value;

use super::{
    Policies,
    definitions::{Binding, Form, MutatingPolicy, Mutation},
    metrics::{Checked, NO_ERROR},
    params, sees,
};
use crate::admission::{expressions::Evaluation, matching::Matched};

/// Policies that change objects.
pub(in crate::admission) struct MutatingPolicies(pub(in crate::admission) Policies<MutatingPolicy>);

/// Why a policy could not do its work.
struct Trouble {
    message: String,
    /// For metrics.
    kind: &'static str,
}

impl Trouble {
    fn invalid(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: "invalid_error" }
    }
}

#[async_trait]
impl Plugin for MutatingPolicies {
    fn name(&self) -> &'static str {
        "MutatingAdmissionPolicy"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        sees(request)
    }

    async fn admit(
        &self,
        request: &AdmissionRequest,
        object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> ApiResult<()> {
        // What is removed has nothing to change.
        let Some(object) = object else { return Ok(()) };
        for (policy, bindings) in self.0.bound(request, Some(object))? {
            let round = Round { policies: &self.0, policy: &policy, request, old };
            for binding in &bindings {
                round.run(binding, object).await?;
            }
        }
        Ok(())
    }
}

/// One policy and one request.
struct Round<'r> {
    policies: &'r Policies<MutatingPolicy>,
    policy: &'r MutatingPolicy,
    request: &'r AdmissionRequest,
    old: Option<&'r Value>,
}

impl Round<'_> {
    /// The error of a policy that could not do its work; `None` if that does not matter.
    fn refused(&self, binding: &Binding, object: &Value, why: &str) -> ApiResult<()> {
        if self.policy.policy.fails_open {
            tracing::debug!(policy = self.policy.policy.name, err = why, "a mutating policy failed open");
            return Ok(());
        }
        let (policy, binding) = (&self.policy.policy.name, &binding.metadata.name);
        let text = format!("policy '{policy}' with binding '{binding}' denied request: {why}");
        Err(self.request.reject(Some(object), &text).edit(|status| {
            status.reason = Reason::Invalid.as_str().into();
            let details = status.details.get_or_insert_default();
            details.causes.push(StatusCause { message: text.clone(), ..StatusCause::default() });
        }))
    }

    async fn run(&self, binding: &Binding, object: &mut Value) -> ApiResult<()> {
        let (policy, request) = (&self.policy.policy, self.request);
        let Some(matched) = self.matched(binding, object).await? else { return Ok(()) };
        let parameters = match params::place(policy, request) {
            Ok(parameters) => parameters,
            Err(why) => {
                return self.refused(binding, object, &format!("failed to configure policy: {why}"));
            }
        };
        let params = match params::of_binding(binding, parameters.as_deref(), request).await {
            Ok(params) => params,
            Err(why) => return self.refused(binding, object, &format!("failed to configure binding: {why}")),
        };
        for params in &params {
            let id = format!(
                "{}/{}/{}/{}",
                policy.name,
                binding.metadata.name,
                machinery::meta::namespace(params),
                machinery::meta::name(params)
            );
            if !request.reinvocation.asks(&id, object) {
                continue;
            }
            let started = Instant::now();
            let outcome = self.changed(&matched, object, params).await?;
            let took = started.elapsed();
            self.policies.metrics.evaluated(took);
            let error = outcome.as_ref().err().map_or(NO_ERROR, |trouble| trouble.kind);
            let checked = Checked { policy: &policy.name, binding: &binding.metadata.name, error, took };
            self.policies.metrics.mutated(&checked);
            match outcome {
                Ok(Some(changed)) => {
                    if changed != *object {
                        request.reinvocation.changed();
                        *object = changed;
                    }
                }
                Ok(None) => {}
                Err(trouble) => self.refused(binding, object, &trouble.message)?,
            }
            if self.policy.wants_again {
                request.reinvocation.left(&id, object);
            }
        }
        Ok(())
    }

    /// Whether policy and binding are about the request.
    async fn matched(&self, binding: &Binding, object: &Value) -> ApiResult<Option<Matched>> {
        let constraints = &self.policy.policy.constraints;
        let Some(matched) = self.policies.matches(constraints, self.request, Some(object), self.old).await? else {
            return Ok(None);
        };
        match &binding.spec.match_resources {
            Some(resources) => {
                let found = self.policies.matches(resources, self.request, Some(object), self.old).await?;
                Ok(found.map(|_| matched))
            }
            None => Ok(Some(matched)),
        }
    }

    /// The object as the policy makes it; `None` if its conditions do not hold.
    async fn changed(
        &self,
        matched: &Matched,
        object: &Value,
        params: &Value,
    ) -> ApiResult<Result<Option<Value>, Trouble>> {
        let request = self.request;
        let mut subject = self.policies.subject(matched, request, Some(object), self.old).await?;
        let mut current = None;
        for (at, mutation) in self.policy.mutations.iter().enumerate() {
            if current.is_some() {
                subject.object = matched.sent(current.as_ref(), request).await?;
            }
            let mut evaluation = Evaluation::of_policy(&subject, params, &self.policy.policy.variables, request);
            if at == 0 {
                match evaluation.hold(&self.policy.policy.conditions).await {
                    Ok(true) => {}
                    Ok(false) => return Ok(Ok(None)),
                    Err(why) => return Ok(Err(Trouble::invalid(why))),
                }
            }
            let made = match made(mutation, &mut evaluation).await {
                Ok(made) => made,
                Err(trouble) => return Ok(Err(trouble)),
            };
            let changed = match mutation.form {
                Form::JsonPatch => patch::json::apply(&subject.object, &made).map_err(|error| error.to_string()),
                Form::ApplyConfiguration => self.merged(matched, &subject.object, made)?,
            };
            match changed {
                Ok(changed) => current = Some(matched.received(changed, request).await?),
                Err(why) => return Ok(Err(Trouble::invalid(why))),
            }
        }
        Ok(Ok(current))
    }

    /// A configuration merged over the object.
    fn merged(&self, matched: &Matched, object: &Value, mut config: Value) -> ApiResult<Result<Value, String>> {
        let kind = matched.kind(self.request);
        let schema = schema(matched, &kind).ok_or_else(|| {
            ApiError::unavailable(format!(
                "Resource kind {kind} not found. There can be a delay between when CustomResourceDefinitions are \
                 created and when they are available."
            ))
        })?;
        for field in ["apiVersion", "kind"] {
            if let (Some(map), Some(own)) = (config.as_object_mut(), object.get(field)) {
                map.insert(field.to_owned(), own.clone());
            }
        }
        Ok(managed::merge_configuration(object, &config, schema).map_err(|error| error.to_string()))
    }
}

/// Field facts of what a policy sees.
fn schema<'a>(matched: &'a Matched, kind: &GroupVersionKind) -> Option<SchemaRef<'a>> {
    if *kind == matched.endpoint.gvk {
        return Some(matched.endpoint.schema());
    }
    api::api().schema(kind)
}

/// What the expression of a mutation made, as data.
async fn made<'a>(mutation: &'a Mutation, evaluation: &mut Evaluation<'a>) -> Result<Value, Trouble> {
    let value = evaluation.run(&mutation.expression).await;
    let value = value.map_err(|failure| Trouble { message: failure.text(), kind: failure.kind() })?;
    let made = value.to_json();
    made.map_err(|why| match mutation.form {
        Form::ApplyConfiguration => Trouble::invalid(format!("type mismatch: {why}")),
        Form::JsonPatch => Trouble::invalid(why),
    })
}
