//! Expressions of webhooks and policies: what they are evaluated over, and what they may cost.

use std::time::{Duration, Instant};

use cel::{Activation, Authorizer, Budget, Check, EvalError, Program, Type, Val};
use generic::{
    admission::AdmissionRequest,
    authz::{Attributes, Decision, Selectors},
    user::{AUTHENTICATED, User},
};
use rules::policy::{self, Asks, Fault, Scope, Yields};
use serde_json::Value;

/// Work of one expression, of all conditions of one webhook or policy, and of all of a policy with one binding.
const PER_EXPRESSION: u64 = 1_000_000;
const PER_CONDITIONS: u64 = 2_500_000;
const PER_BINDING: u64 = 10_000_000;

static ANYTHING: Type = Type::Dyn;

/// A compiled expression, or what is wrong with it: one that was stored long ago may not compile any more.
#[derive(Debug)]
pub(crate) struct Expression {
    pub(crate) text: String,
    pub(crate) program: Result<Program, Fault>,
    /// How long it took to compile.
    pub(super) took: Duration,
}

impl Expression {
    pub(super) fn compile(text: String, scope: &Scope, yields: Yields, asks: Asks) -> Self {
        let started = Instant::now();
        let program = scope.compile(&text, yields, asks);
        Self { text, program, took: started.elapsed() }
    }

    /// What is said of an evaluation that failed.
    fn failed(&self, why: &str) -> String {
        format!("expression '{}' resulted in error: {why}", self.text)
    }
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// This one has none.
    Expression {
        /// What to say.
        text: String,
        /// Kind of failure, for metrics.
        kind: &'static str,
    },
    /// No expression will be evaluated any more.
    OutOfBudget,
}

impl Failure {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Expression { text, .. } => text.clone(),
            Self::OutOfBudget => {
                "validation failed due to running out of cost budget, no further validation rules will be run".into()
            }
        }
    }

    /// Kind of failure, for metrics.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Expression { kind, .. } => kind,
            Self::OutOfBudget => "out_of_budget",
        }
    }
}

/// What expressions are evaluated over.
pub(super) struct Subject {
    pub(super) object: Value,
    pub(super) old: Value,
    /// The request as expressions see it.
    pub(super) about: Value,
    /// The namespace of the object, or null.
    pub(super) namespace: Value,
}

impl Subject {
    fn variables(&self, request: &AdmissionRequest) -> Vec<(&str, Val<'_>)> {
        let check = Check {
            group: request.endpoint.gvr.group.clone(),
            resource: request.endpoint.gvr.resource.clone(),
            subresource: request.subresource.clone(),
            namespace: request.namespace.clone(),
            name: request.name.clone(),
            ..Check::default()
        };
        vec![
            ("object", Val::of(&self.object, &ANYTHING)),
            ("oldObject", Val::of(&self.old, &ANYTHING)),
            ("request", Val::of(&self.about, &policy::REQUEST)),
            ("namespaceObject", Val::of(&self.namespace, &policy::NAMESPACE)),
            ("authorizer", Val::Authorizer(Authorizer::of_request(check).into())),
        ]
    }
}

/// Expressions that are evaluated together.
pub(super) struct Evaluation<'a> {
    request: &'a AdmissionRequest,
    activation: Activation<'a>,
    left: u64,
}

impl<'a> Evaluation<'a> {
    /// Of the conditions of a webhook.
    pub(super) fn of_webhook(subject: &'a Subject, request: &'a AdmissionRequest) -> Self {
        Self { request, activation: Activation::new(subject.variables(request)), left: PER_CONDITIONS }
    }

    /// Of a policy with one binding and one parameter (null if it has none).
    pub(super) fn of_policy(
        subject: &'a Subject,
        params: &'a Value,
        variables: &'a [(String, Program)],
        request: &'a AdmissionRequest,
    ) -> Self {
        let mut known = subject.variables(request);
        known.push(("params", Val::of(params, &ANYTHING)));
        Self { request, activation: Activation::composed(known, variables), left: PER_BINDING }
    }

    /// Whether all conditions hold. One that does not outweighs the errors of others.
    pub(super) async fn hold(&mut self, conditions: &'a [Expression]) -> Result<bool, String> {
        let kept = self.left;
        self.left = kept.min(PER_CONDITIONS);
        let mut errors = Vec::new();
        for condition in conditions {
            match self.run(condition).await {
                Ok(Val::Bool(true)) => {}
                Ok(Val::Bool(false)) => return Ok(false),
                Ok(_) => errors.push(condition.failed("must evaluate to bool")),
                Err(failure @ Failure::OutOfBudget) => return Err(failure.text()),
                Err(failure) => errors.push(failure.text()),
            }
        }
        self.left = kept;
        match errors.len() {
            0 => Ok(true),
            1 => Err(errors.remove(0)),
            _ => Err(format!("[{}]", errors.join(", "))),
        }
    }

    /// Evaluates an expression.
    pub(super) async fn run(&mut self, expression: &'a Expression) -> Result<Val<'a>, Failure> {
        let program = expression.program.as_ref().map_err(|fault| Failure::Expression {
            text: format!("compilation error: {fault}"),
            kind: "compile_error",
        })?;
        loop {
            let given = self.left.min(PER_EXPRESSION);
            let mut budget = Budget::new(given);
            let outcome = program.run_in(&mut self.activation, &mut budget);
            if let Err(EvalError::Undecided(check)) = outcome {
                let decision = decide(&check, self.request).await;
                self.activation.decide(*check, decision);
                continue;
            }
            self.left -= given - budget.left();
            return outcome.map_err(|error| match error {
                EvalError::OutOfBudget if given < PER_EXPRESSION => Failure::OutOfBudget,
                error => Failure::Expression { text: expression.failed(&error.to_string()), kind: "invalid_error" },
            });
        }
    }
}

/// What the authorizer of the server says.
async fn decide(check: &Check, request: &AdmissionRequest) -> cel::Decision {
    let user = match &check.service_account {
        None => request.user.clone(),
        Some((namespace, name)) => {
            let account = "system:serviceaccount";
            let groups = [format!("{account}s"), format!("{account}s:{namespace}"), AUTHENTICATED.to_owned()];
            User { name: format!("{account}:{namespace}:{name}"), groups: groups.into(), ..User::default() }
        }
    };
    let attributes = Attributes {
        user,
        verb: check.verb.clone(),
        group: check.group.clone(),
        version: if check.path.is_some() { String::new() } else { "*".into() },
        resource: check.resource.clone(),
        subresource: check.subresource.clone(),
        name: check.name.clone(),
        namespace: check.namespace.clone(),
        path: check.path.clone().unwrap_or_default(),
        is_resource: check.path.is_none(),
        // Selectors that nobody understands limit nothing.
        selectors: Selectors::of_texts(&check.field_selector, &check.label_selector).0,
    };
    let decision = request.server.authorizer.authorize(&attributes).await;
    let allowed = matches!(decision, Decision::Allow(_));
    match decision {
        Decision::Allow(reason) | Decision::Deny(reason) | Decision::NoOpinion(reason) => {
            cel::Decision { allowed, reason }
        }
    }
}
