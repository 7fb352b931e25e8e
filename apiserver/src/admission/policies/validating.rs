//! ValidatingAdmissionPolicy.

use std::{collections::BTreeMap, time::Instant};

use async_trait::async_trait;
use cel::Val;
use generic::admission::{AdmissionRequest, Plugin};
use machinery::{ApiError, ApiResult, Reason, StatusCause};
use serde_json::{Value, json};

use super::{
    Policies,
    definitions::{AuditAnnotation, Binding, ValidatingPolicy, Validation},
    metrics::{Checked, NO_ERROR},
    params, sees,
};
use crate::admission::{
    expressions::{Evaluation, Failure, Subject},
    matching::Matched,
};

/// Longest message that an expression may make, and longest note in the audit log, bytes.
const MAX_MESSAGE: usize = 5 * 1024;
const MAX_NOTE: usize = 10 * 1024;
/// Under which failed validations stand in the audit log.
const FAILURE_NOTE: &str = "validation.policy.admission.k8s.io/validation_failure";

/// Policies that only refuse.
pub(in crate::admission) struct ValidatingPolicies(pub(in crate::admission) Policies<ValidatingPolicy>);

/// What a policy says no with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Place of the expression in the policy.
    pub(super) index: usize,
    pub(super) message: String,
    pub(super) reason: Option<String>,
    /// For metrics.
    pub(super) error: &'static str,
}

/// A refusal that ends the request.
struct Denial {
    policy: String,
    binding: Option<String>,
    message: String,
    reason: Option<String>,
}

#[async_trait]
impl Plugin for ValidatingPolicies {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        sees(request)
    }

    async fn validate(&self, request: &AdmissionRequest, object: Option<&Value>, old: Option<&Value>) -> ApiResult<()> {
        let mut denials = Vec::new();
        for (policy, bindings) in self.0.bound(request, object)? {
            let mut round = Round { policies: &self.0, policy: &policy, request, object, old, denials: &mut denials };
            round.run(&bindings).await?;
        }
        match denials.into_iter().next() {
            Some(denial) => Err(denial.error(request, object)),
            None => Ok(()),
        }
    }
}

impl Denial {
    fn error(self, request: &AdmissionRequest, object: Option<&Value>) -> ApiError {
        let Self { policy, binding, message, reason } = self;
        let by = binding.map(|binding| format!(" with binding '{binding}'")).unwrap_or_default();
        let message = format!("ValidatingAdmissionPolicy '{policy}'{by} denied request: {message}");
        let (reason, code) = match reason.as_deref() {
            Some("Forbidden") => (Reason::Forbidden, 403),
            Some("Unauthorized") => (Reason::Unauthorized, 401),
            Some("RequestEntityTooLarge") => (Reason::RequestEntityTooLarge, 413),
            _ => (Reason::Invalid, 422),
        };
        request.reject(object, &message).edit(|status| {
            status.code = code;
            status.reason = reason.as_str().into();
            let details = status.details.get_or_insert_default();
            details.causes.push(StatusCause { message, ..StatusCause::default() });
        })
    }
}

/// One policy and one request.
struct Round<'r> {
    policies: &'r Policies<ValidatingPolicy>,
    policy: &'r ValidatingPolicy,
    request: &'r AdmissionRequest,
    object: Option<&'r Value>,
    old: Option<&'r Value>,
    denials: &'r mut Vec<Denial>,
}

impl Round<'_> {
    /// Notes that the policy or a binding is of no use.
    fn misconfigured(&mut self, binding: Option<&Binding>, why: &str) {
        if self.policy.policy.fails_open {
            return;
        }
        let what = if binding.is_some() { "binding" } else { "policy" };
        self.denials.push(Denial {
            policy: self.policy.policy.name.clone(),
            binding: binding.map(|binding| binding.metadata.name.clone()),
            message: format!("failed to configure {what}: {why}"),
            reason: None,
        });
    }

    async fn run(&mut self, bindings: &[std::sync::Arc<Binding>]) -> ApiResult<()> {
        let (policy, request) = (&self.policy.policy, self.request);
        let matched = match self.policies.matches(&policy.constraints, request, self.object, self.old).await {
            Ok(Some(matched)) => matched,
            Ok(None) => return Ok(()),
            Err(error) => {
                self.misconfigured(None, &error.to_string());
                return Ok(());
            }
        };
        let parameters = match params::place(policy, request) {
            Ok(parameters) => parameters,
            Err(why) => {
                self.misconfigured(None, &why);
                return Ok(());
            }
        };
        let mut subject: Option<Subject> = None;
        let mut notes = Notes::default();
        for binding in bindings {
            if let Some(resources) = &binding.spec.match_resources {
                match self.policies.matches(resources, request, self.object, self.old).await {
                    Ok(Some(_)) => {}
                    Ok(None) => continue,
                    Err(error) => {
                        self.misconfigured(Some(binding), &error.to_string());
                        continue;
                    }
                }
            }
            let params = match params::of_binding(binding, parameters.as_deref(), request).await {
                Ok(params) => params,
                Err(why) => {
                    self.misconfigured(Some(binding), &why);
                    continue;
                }
            };
            let subject = match &subject {
                Some(subject) => subject,
                None => &*subject.insert(self.subject(&matched).await?),
            };
            for params in &params {
                self.evaluate(binding, subject, params, &mut notes).await;
            }
        }
        notes.publish(&policy.name, request);
        Ok(())
    }

    async fn subject(&self, matched: &Matched) -> ApiResult<Subject> {
        self.policies.subject(matched, self.request, self.object, self.old).await
    }

    async fn evaluate(&mut self, binding: &Binding, subject: &Subject, params: &Value, notes: &mut Notes) {
        let policy = self.policy;
        let started = Instant::now();
        let mut evaluation = Evaluation::of_policy(subject, params, &policy.policy.variables, self.request);
        let refusals = refusals(policy, &mut evaluation, notes).await;
        let took = started.elapsed();
        self.policies.metrics.evaluated(took);
        let checked = |error| Checked { policy: &policy.policy.name, binding: &binding.metadata.name, error, took };
        if refusals.is_empty() {
            self.policies.metrics.validated(&checked(NO_ERROR), "allow");
        }
        for refusal in refusals {
            for action in &binding.spec.validation_actions {
                self.policies.metrics.validated(&checked(refusal.error), &action.to_lowercase());
                self.act(action, binding, &refusal);
            }
        }
    }

    fn act(&mut self, action: &str, binding: &Binding, refusal: &Refusal) {
        let (policy, binding_name) = (&self.policy.policy.name, &binding.metadata.name);
        let Refusal { index, message, reason, .. } = refusal;
        match action {
            "Deny" => self.denials.push(Denial {
                policy: policy.clone(),
                binding: Some(binding_name.clone()),
                message: message.clone(),
                reason: reason.clone(),
            }),
            "Warn" => self.request.warnings.add(format!(
                "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding_name}': {message}"
            )),
            "Audit" => {
                let failure = json!([{
                    "message": message, "policy": policy, "binding": binding_name, "expressionIndex": index,
                    "validationActions": binding.spec.validation_actions,
                }]);
                self.request.audit.add(FAILURE_NOTE, failure.to_string());
            }
            _ => {}
        }
    }
}

/// Everything that a policy says no to.
async fn refusals<'a>(
    policy: &'a ValidatingPolicy,
    evaluation: &mut Evaluation<'a>,
    notes: &mut Notes,
) -> Vec<Refusal> {
    let fails_open = policy.policy.fails_open;
    let error = |index, message: String, error| Refusal { index, message, reason: None, error };
    match evaluation.hold(&policy.policy.conditions).await {
        Ok(true) => {}
        Ok(false) => return Vec::new(),
        Err(_) if fails_open => return Vec::new(),
        Err(why) => return vec![error(0, why, "invalid_error")],
    }
    let mut refusals = Vec::new();
    for (index, validation) in policy.validations.iter().enumerate() {
        match evaluation.run(&validation.expression).await {
            Ok(Val::Bool(true)) => {}
            Ok(_) => {
                let message = match message(validation, evaluation).await {
                    Ok(message) => message,
                    Err(failure) if fails_open => {
                        tracing::debug!(err = failure.text(), "no message for a refusal");
                        continue;
                    }
                    Err(failure) => failure.text(),
                };
                let reason = validation.reason.clone();
                refusals.push(Refusal { index, message, reason, error: NO_ERROR });
            }
            Err(_) if fails_open => {}
            // Nothing more can be said of this policy.
            Err(failure @ Failure::OutOfBudget) => return vec![error(index, failure.text(), failure.kind())],
            Err(failure) => refusals.push(error(index, failure.text(), failure.kind())),
        }
    }
    for annotation in &policy.annotations {
        if let Err(why) = notes.take(annotation, evaluation).await
            && !fails_open
        {
            refusals.push(error(0, why, "invalid_error"));
        }
    }
    refusals
}

/// What is said of a validation that failed.
async fn message<'a>(validation: &'a Validation, evaluation: &mut Evaluation<'a>) -> Result<String, Failure> {
    if let Some(expression) = &validation.message_expression {
        match evaluation.run(expression).await {
            Ok(value) => {
                let text = value.as_str().unwrap_or("").trim();
                if !text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n') {
                    return Ok(text.to_owned());
                }
            }
            Err(failure @ Failure::OutOfBudget) => return Err(failure),
            Err(failure) => tracing::debug!(err = failure.text(), "evaluating messageExpression"),
        }
    }
    Ok(match validation.message.trim() {
        "" => format!("failed expression: {}", validation.expression.text.trim()),
        message => message.to_owned(),
    })
}

/// Notes of one policy for the audit log: those of several bindings stand together.
#[derive(Debug, Default)]
pub(super) struct Notes(BTreeMap<String, Vec<String>>);

impl Notes {
    async fn take<'a>(
        &mut self,
        annotation: &'a AuditAnnotation,
        evaluation: &mut Evaluation<'a>,
    ) -> Result<(), String> {
        let value = evaluation.run(&annotation.value).await.map_err(|failure| failure.text())?;
        let text = match (&value, value.as_str()) {
            (_, Some(text)) => text.trim(),
            (Val::Null, _) => return Ok(()),
            _ => {
                return Err(format!(
                    "valueExpression '{}' resulted in unsupported return type. Return type must be either string or \
                     null.",
                    annotation.value.text
                ));
            }
        };
        self.add(&annotation.key, text);
        Ok(())
    }

    pub(super) fn add(&mut self, key: &str, text: &str) {
        let mut end = text.len().min(MAX_NOTE);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = &text[..end];
        let own = self.0.entry(key.to_owned()).or_default();
        if !text.is_empty() && !own.iter().any(|known| known == text) {
            own.push(text.to_owned());
        }
    }

    #[cfg(test)]
    pub(super) fn texts(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    fn publish(self, policy: &str, request: &AdmissionRequest) {
        for (key, texts) in self.0.into_iter().filter(|(_, texts)| !texts.is_empty()) {
            request.audit.add(format!("{policy}/{key}"), texts.join(", "));
        }
    }
}
