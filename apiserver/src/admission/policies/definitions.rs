//! Policies and bindings as admission needs them. Expressions are compiled when a policy is read, once for each of its
//! versions.

use std::time::Duration;

use machinery::{GroupVersion, GroupVersionKind};
use parking_lot::Mutex;
use rules::policy::{Asks, Scope, Yields};
use serde::{Deserialize, Deserializer};

use crate::admission::{
    criteria::{Criteria, Metadata, Rule, Selector, or_empty},
    expressions::Expression,
};

/// What every policy has.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(super) name: String,
    pub(super) fails_open: bool,
    pub(super) param_kind: Option<GroupVersionKind>,
    pub(super) constraints: MatchResources,
    pub(super) conditions: Vec<Expression>,
    pub(super) variables: Vec<(String, cel::Program)>,
    /// Why the policy cannot be used at all.
    pub(super) fault: Option<String>,
    /// How long its expressions took to compile, until that has been counted.
    pub(super) compiled: Mutex<Vec<Duration>>,
}

/// A `ValidatingAdmissionPolicy`.
#[derive(Debug)]
pub(crate) struct ValidatingPolicy {
    pub(super) policy: Policy,
    pub(super) validations: Vec<Validation>,
    pub(super) annotations: Vec<AuditAnnotation>,
}

/// One validation.
#[derive(Debug)]
pub(super) struct Validation {
    pub(super) expression: Expression,
    pub(super) message: String,
    pub(super) message_expression: Option<Expression>,
    pub(super) reason: Option<String>,
}

/// A note for the audit log.
#[derive(Debug)]
pub(super) struct AuditAnnotation {
    pub(super) key: String,
    pub(super) value: Expression,
}

/// A `MutatingAdmissionPolicy`.
#[derive(Debug)]
pub(crate) struct MutatingPolicy {
    pub(super) policy: Policy,
    pub(super) mutations: Vec<Mutation>,
    pub(super) wants_again: bool,
}

/// One change.
#[derive(Debug)]
pub(super) struct Mutation {
    pub(super) form: Form,
    pub(super) expression: Expression,
}

/// How a change is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    ApplyConfiguration,
    JsonPatch,
}

/// Which requests a policy or binding is about.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct MatchResources {
    namespace_selector: Selector,
    object_selector: Selector,
    #[serde(deserialize_with = "or_empty")]
    resource_rules: Vec<Rule>,
    #[serde(deserialize_with = "or_empty")]
    exclude_resource_rules: Vec<Rule>,
    match_policy: Option<String>,
}

impl MatchResources {
    pub(super) fn criteria(&self) -> Criteria<'_> {
        Criteria {
            rules: Some(self.resource_rules.as_slice()).filter(|rules| !rules.is_empty()),
            excluded: &self.exclude_resource_rules,
            match_policy: self.match_policy.as_deref(),
            namespaces: &self.namespace_selector,
            objects: &self.object_selector,
        }
    }
}

/// A binding of a policy of either kind.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Binding {
    pub(super) metadata: Metadata,
    pub(super) spec: BindingSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct BindingSpec {
    pub(super) policy_name: String,
    pub(super) param_ref: Option<ParamRef>,
    pub(super) match_resources: Option<MatchResources>,
    #[serde(deserialize_with = "or_empty")]
    pub(super) validation_actions: Vec<String>,
}

/// Where a binding finds the parameters of its policy.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ParamRef {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) selector: Option<Selector>,
    pub(super) parameter_not_found_action: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Sent {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    param_kind: Option<ParamKind>,
    match_constraints: Option<MatchResources>,
    failure_policy: Option<String>,
    #[serde(deserialize_with = "or_empty")]
    match_conditions: Vec<Named>,
    #[serde(deserialize_with = "or_empty")]
    variables: Vec<Named>,
    #[serde(deserialize_with = "or_empty")]
    validations: Vec<SentValidation>,
    #[serde(deserialize_with = "or_empty")]
    audit_annotations: Vec<SentAnnotation>,
    #[serde(deserialize_with = "or_empty")]
    mutations: Vec<SentMutation>,
    reinvocation_policy: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ParamKind {
    api_version: String,
    kind: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
    expression: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SentValidation {
    expression: String,
    message: String,
    message_expression: String,
    reason: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SentAnnotation {
    key: String,
    value_expression: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SentMutation {
    patch_type: String,
    apply_configuration: Option<Named>,
    json_patch: Option<Named>,
}

/// The common part of a policy, and the scope of its other expressions.
fn common(metadata: Metadata, spec: &mut Spec, mut scope: Scope) -> (Policy, Scope) {
    let mut fault = None;
    let conditions = std::mem::take(&mut spec.match_conditions);
    let compile = |one: Named| Expression::compile(one.expression, &scope, Yields::Bool, Asks::Authorizer);
    let conditions: Vec<Expression> = conditions.into_iter().map(compile).collect();
    let mut compiled: Vec<Duration> = conditions.iter().map(|condition| condition.took).collect();
    let mut variables = Vec::new();
    for Named { name, expression } in std::mem::take(&mut spec.variables) {
        let Expression { program, took, .. } = Expression::compile(expression, &scope, Yields::Any, Asks::Authorizer);
        compiled.push(took);
        match program {
            Ok(program) => {
                scope.declare(&name, program.result().clone());
                variables.push((name, program));
            }
            Err(why) => fault = Some(format!("composited variable {name:?} fails to compile: {why}")),
        }
    }
    let param_kind = spec.param_kind.take().map(|given| {
        let GroupVersion { group, version } = GroupVersion::parse(&given.api_version).unwrap_or_default();
        GroupVersionKind::new(group, version, given.kind)
    });
    let policy = Policy {
        name: metadata.name,
        fails_open: spec.failure_policy.as_deref() == Some("Ignore"),
        param_kind,
        constraints: spec.match_constraints.take().unwrap_or_default(),
        conditions,
        variables,
        fault,
        compiled: Mutex::new(compiled),
    };
    (policy, scope)
}

impl<'de> Deserialize<'de> for ValidatingPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Sent { metadata, mut spec } = Sent::deserialize(deserializer)?;
        let scope = Scope::of_validation(spec.param_kind.is_some());
        let (policy, scope) = common(metadata, &mut spec, scope);
        let text = |text: String| Expression::compile(text, &scope, Yields::Text, Asks::Nobody);
        let validations = spec.validations.into_iter().map(|one| Validation {
            expression: Expression::compile(one.expression, &scope, Yields::Bool, Asks::Authorizer),
            message: one.message,
            message_expression: Some(one.message_expression).filter(|text| !text.trim().is_empty()).map(text),
            reason: one.reason.filter(|reason| !reason.is_empty()),
        });
        let annotations = spec.audit_annotations.into_iter().map(|one| AuditAnnotation {
            key: one.key,
            value: Expression::compile(one.value_expression, &scope, Yields::TextOrNull, Asks::Nobody),
        });
        let (validations, annotations) = (validations.collect::<Vec<_>>(), annotations.collect::<Vec<_>>());
        let of_validations =
            validations.iter().flat_map(|one| [Some(&one.expression), one.message_expression.as_ref()]);
        let all = of_validations.flatten().chain(annotations.iter().map(|one| &one.value));
        policy.compiled.lock().extend(all.map(|expression| expression.took));
        Ok(Self { policy, validations, annotations })
    }
}

impl<'de> Deserialize<'de> for MutatingPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Sent { metadata, mut spec } = Sent::deserialize(deserializer)?;
        let scope = Scope::of_mutation(spec.param_kind.is_some());
        let (policy, scope) = common(metadata, &mut spec, scope);
        let mutations = spec.mutations.into_iter().map(|one| {
            let (form, given, yields) = match one.patch_type.as_str() {
                "JSONPatch" => (Form::JsonPatch, one.json_patch, Yields::Patch),
                _ => (Form::ApplyConfiguration, one.apply_configuration, Yields::Object),
            };
            let text = given.unwrap_or_default().expression;
            Mutation { form, expression: Expression::compile(text, &scope, yields, Asks::Authorizer) }
        });
        let mutations: Vec<Mutation> = mutations.collect();
        policy.compiled.lock().extend(mutations.iter().map(|one| one.expression.took));
        let wants_again = spec.reinvocation_policy.as_deref() == Some("IfNeeded");
        Ok(Self { policy, mutations, wants_again })
    }
}
