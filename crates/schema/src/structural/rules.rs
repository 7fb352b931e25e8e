//! `x-kubernetes-validations`: rules in the Common Expression Language.

mod declare;
mod sizes;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use cel::{Budget, EvalError, Program, Type, Val};
use machinery::field::{ErrorList, Path};
use serde_json::{Map, Value};

use super::{Additional, ListType, Schema, lists::identity};

pub(super) use declare::declared;
pub(super) use sizes::sized;

/// Work of one evaluation, and of all of one object.
const PER_EXPRESSION: u64 = 1_000_000;
const PER_OBJECT: u64 = 10_000_000;
/// Longest message that an expression may make, bytes.
const MAX_MESSAGE: usize = 5 * 1024;

/// One rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) rule: Box<str>,
    pub(super) message: Box<str>,
    pub(super) message_expression: Box<str>,
    reason: Box<str>,
    field_path: Box<str>,
    optional_old_self: bool,
    compiled: OnceLock<Result<Compiled, String>>,
}

/// A rule ready to run.
#[derive(Debug)]
pub(super) struct Compiled {
    own: Type,
    pub(super) program: Program,
    pub(super) message: Option<Program>,
}

/// What makes a rule unfit: the field at fault, and why.
pub(super) struct Unfit {
    pub(super) field: &'static str,
    pub(super) text: String,
}

impl Rule {
    pub(super) fn all(schema: &Map<String, Value>) -> Box<[Self]> {
        let list = schema.get("x-kubernetes-validations").and_then(Value::as_array);
        list.into_iter().flatten().map(Self::read).collect()
    }

    fn read(rule: &Value) -> Self {
        let text = |key: &str| Box::from(rule.get(key).and_then(Value::as_str).unwrap_or(""));
        Self {
            rule: text("rule"),
            message: text("message"),
            message_expression: text("messageExpression"),
            reason: text("reason"),
            field_path: text("fieldPath"),
            optional_old_self: rule.get("optionalOldSelf") == Some(&Value::Bool(true)),
            compiled: OnceLock::new(),
        }
    }

    /// Compiles the rule for values of a schema.
    pub(super) fn compile(&self, schema: &Schema, is_resource: bool) -> Result<Compiled, Unfit> {
        let own = declared(schema, is_resource);
        let old = if self.optional_old_self { Type::Optional(own.clone().into()) } else { own.clone() };
        let variables = [("self", &own), ("oldSelf", &old)];
        let failed = |field| move |error| Unfit { field, text: format!("compilation failed: {error}") };
        let program = Program::compile(&self.rule, &variables).map_err(failed("rule"))?;
        if !matches!(program.result(), Type::Bool | Type::Dyn) {
            return Err(Unfit { field: "rule", text: "cel expression must evaluate to a bool".into() });
        }
        let message = match &*self.message_expression {
            "" => None,
            text => {
                let program = Program::compile(text, &variables).map_err(failed("messageExpression"))?;
                if !matches!(program.result(), Type::String | Type::Dyn) {
                    let text = "messageExpression must evaluate to a string".into();
                    return Err(Unfit { field: "messageExpression", text });
                }
                Some(program)
            }
        };
        Ok(Compiled { own, program, message })
    }

    fn compiled(&self, schema: &Schema, is_resource: bool) -> Result<&Compiled, &str> {
        let made = self.compiled.get_or_init(|| self.compile(schema, is_resource).map_err(|unfit| unfit.text));
        made.as_ref().map_err(String::as_str)
    }

    fn default_message(&self) -> String {
        if self.message.is_empty() { format!("failed rule: {}", self.rule) } else { self.message.to_string() }
    }
}

/// Work that the rules of one object may do together.
pub struct RuleBudget {
    left: u64,
}

impl Default for RuleBudget {
    fn default() -> Self {
        Self { left: PER_OBJECT }
    }
}

/// Runs the rules of a schema over an object that fits it otherwise; `old` is its former state on updates.
pub fn check_rules(object: &Value, old: Option<&Value>, schema: &Schema, budget: &mut RuleBudget) -> ErrorList {
    let mut walk = Walk { errors: ErrorList::default(), budget, is_out: false };
    walk.value(object, old, schema, &Path::default(), true);
    walk.errors
}

impl Schema {
    /// Whether there are rules here or below.
    pub fn has_rules(&self) -> bool {
        self.has_rules
    }
}

struct Walk<'b> {
    errors: ErrorList,
    budget: &'b mut RuleBudget,
    is_out: bool,
}

impl Walk<'_> {
    fn value(&mut self, value: &Value, old: Option<&Value>, schema: &Schema, path: &Path, root: bool) {
        if !schema.has_rules || value.is_null() {
            return;
        }
        for rule in &schema.rules {
            self.rule(rule, value, old, schema, path, root || schema.embedded);
        }
        match value {
            Value::Object(map) => {
                for (name, inner) in map {
                    let Some(property) = schema.field(name) else { continue };
                    let known = matches!(schema.additional, Additional::Absent) || schema.property(name).is_some();
                    let below = if known { path.child(name) } else { path.key(name) };
                    self.value(inner, old.and_then(|o| o.get(name)), property, &below, false);
                }
            }
            Value::Array(list) => {
                let Some(items) = &schema.items else { return };
                let before = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                for (at, item) in list.iter().enumerate() {
                    self.value(item, former(item, before, schema), items, &path.index(at), false);
                }
            }
            _ => {}
        }
    }

    fn rule(&mut self, rule: &Rule, value: &Value, old: Option<&Value>, schema: &Schema, path: &Path, resource: bool) {
        if self.is_out {
            return;
        }
        let compiled = match rule.compiled(schema, resource) {
            Ok(compiled) => compiled,
            Err(error) => {
                self.errors.invalid_unshown(path, &format!("rule compile error: {error}"));
                return;
            }
        };
        let is_transition = compiled.program.uses("oldSelf");
        // What did not change was accepted before.
        let skipped = if is_transition { old.is_none() && !rule.optional_old_self } else { old == Some(value) };
        if skipped {
            return;
        }
        let own = Val::of(value, &compiled.own);
        let former = old.filter(|_| is_transition).map(|old| Val::of(old, &compiled.own));
        let former = match rule.optional_old_self {
            true => Val::some_or_none(former),
            false => former.unwrap_or(Val::Null),
        };
        let variables = [("self", own), ("oldSelf", former)];
        match self.run(&compiled.program, &variables) {
            Ok(Val::Bool(true)) => {}
            Ok(_) => {
                let message = self.message(rule, compiled, &variables);
                self.report(rule, value, path, &message);
            }
            Err(EvalError::OutOfBudget) => {
                self.is_out = true;
                let text =
                    "validation failed due to running out of cost budget, no further validation rules will be run";
                self.errors.invalid_unshown(path, text);
            }
            Err(error) => {
                self.errors.invalid_unshown(path, &format!("{error} evaluating rule: {}", rule.default_message()))
            }
        }
    }

    fn run<'a>(&mut self, program: &'a Program, variables: &[(&'a str, Val<'a>)]) -> Result<Val<'a>, EvalError> {
        let given = self.budget.left.min(PER_EXPRESSION);
        let mut budget = Budget::new(given);
        let outcome = program.run(variables, &mut budget);
        self.budget.left -= given - budget.left();
        outcome
    }

    fn message<'a>(&mut self, rule: &Rule, compiled: &'a Compiled, variables: &[(&'a str, Val<'a>)]) -> String {
        let made = compiled.message.as_ref().and_then(|program| self.run(program, variables).ok());
        let text = made.as_ref().and_then(Val::as_str).map(str::trim);
        match text.filter(|t| !t.is_empty() && t.len() <= MAX_MESSAGE && !t.contains('\n')) {
            Some(text) => text.to_owned(),
            None => rule.default_message(),
        }
    }

    fn report(&mut self, rule: &Rule, value: &Value, path: &Path, message: &str) {
        let path = match rule.field_path.strip_prefix('.') {
            Some(field) => path.child(field),
            None if rule.field_path.is_empty() => path.clone(),
            None => Path::new(&format!("{path}{}", rule.field_path)),
        };
        let is_scalar = !value.is_object() && !value.is_array() && rule.field_path.is_empty();
        match &*rule.reason {
            "FieldValueForbidden" => self.errors.forbidden(&path, message),
            "FieldValueRequired" => self.errors.required(&path, message),
            "FieldValueDuplicate" => self.errors.duplicate_in(&path, value, message),
            _ if is_scalar => self.errors.invalid(&path, value, message),
            _ => self.errors.invalid_unshown(&path, message),
        }
    }
}

/// The former state of a list item; of items that are not told apart by keys nothing is known.
fn former<'a>(item: &Value, before: &'a [Value], schema: &Schema) -> Option<&'a Value> {
    if before.is_empty() || !matches!(schema.list, ListType::Map(_)) {
        return None;
    }
    let items = schema.items.as_deref();
    let own = identity(item, &schema.list, items)?;
    before.iter().find(|other| identity(other, &schema.list, items).as_ref() == Some(&own))
}
