//! Types of expressions, as far as they can be known before there is data.

mod calls;

use std::sync::Arc;

use crate::{
    CompileError, Issue, Structs, Type,
    ast::{Expr, Kind, Loop, LoopKind, Select},
    functions,
    types::{OBJECT, PATCH, authorization},
    value::Val,
};

pub(crate) use calls::is_scalar;

/// Things that are wrong with one expression, beyond which the rest is not told.
const MAX_ISSUES: usize = 100;

/// Checks an expression. Answers its type.
pub(crate) fn check(
    root: &Expr,
    source: &str,
    variables: &[(&str, &Type)],
    structs: Structs,
) -> Result<Type, CompileError> {
    let scope = variables.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).clone())).collect();
    let mut check = Check { source, scope, structs, issues: Vec::new() };
    let result = check.of(root);
    if check.issues.is_empty() { Ok(result) } else { Err(CompileError::of(check.issues)) }
}

struct Check<'c> {
    source: &'c str,
    scope: Vec<(String, Type)>,
    structs: Structs,
    issues: Vec<Issue>,
}

impl Check<'_> {
    /// Notes what is wrong. The rest is checked as if the value were of any type.
    fn error(&mut self, at: usize, message: String) -> Type {
        if self.issues.len() < MAX_ISSUES {
            self.issues.push(Issue::at(self.source, at, message));
        }
        Type::Dyn
    }

    fn undeclared(&mut self, at: usize, name: &str) -> Type {
        self.error(at, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn lookup(&self, name: &str) -> Option<&Type> {
        self.scope.iter().rev().find(|(own, _)| own == name).map(|(_, kind)| kind)
    }

    fn of(&mut self, expr: &Expr) -> Type {
        match &expr.kind {
            Kind::Literal(value) => literal(value),
            Kind::Ident(name) => match self.lookup(name) {
                Some(kind) => kind.clone(),
                None if functions::type_named(name).is_some() => Type::Type,
                None => self.undeclared(expr.at, name),
            },
            Kind::Select { operand, field, mode } => self.select(expr.at, operand, field, *mode),
            Kind::Call { name, target, args } => self.call(expr.at, name, target.as_deref(), args),
            Kind::List(items) => {
                let mut common = None;
                for (is_optional, item) in items {
                    let kind = self.of(item);
                    common = Some(join(common, unwrapped(kind, *is_optional)));
                }
                Type::list(common.unwrap_or_default())
            }
            Kind::Map(entries) => {
                let (mut keys, mut values) = (None, None);
                for (is_optional, key, value) in entries {
                    let (key, value) = (self.of(key), self.of(value));
                    keys = Some(join(keys, key));
                    values = Some(join(values, unwrapped(value, *is_optional)));
                }
                Type::Map(keys.unwrap_or_default().into(), values.unwrap_or_default().into())
            }
            Kind::Struct { name, fields } => self.structure(expr.at, name, fields),
            Kind::Loop(one) => self.repeat(one),
            Kind::Bind { name, value, body } => {
                let kind = self.of(value);
                self.scope.push((name.clone(), kind));
                let result = self.of(body);
                self.scope.pop();
                result
            }
        }
    }

    fn structure(&mut self, at: usize, name: &str, fields: &[(String, bool, Expr)]) -> Type {
        let is_object = name.strip_prefix(OBJECT).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        let is_known = self.structs == Structs::Mutation && (is_object || name == PATCH);
        if !is_known {
            self.undeclared(at, name);
        }
        for (field, is_optional, value) in fields {
            let given = self.of(value);
            let given = unwrapped(given, *is_optional);
            if name != PATCH || !is_known {
                continue;
            }
            match field.as_str() {
                "op" | "path" | "from" if !given.fits(&Type::String) || given == Type::Null => {
                    let text = format!("expected type of field '{field}' is 'string' but provided type is '{given}'");
                    self.error(value.at, text);
                }
                "op" | "path" | "from" | "value" => {}
                _ => {
                    self.error(value.at, format!("undefined field '{field}'"));
                }
            }
        }
        if is_known { Type::Struct(name.into()) } else { Type::Dyn }
    }

    fn select(&mut self, at: usize, operand: &Expr, field: &str, mode: Select) -> Type {
        let operand = self.of(operand);
        let (inner, was_optional) = match &operand {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let found = match &inner {
            Type::Dyn | Type::Struct(_) => Type::Dyn,
            Type::Map(_, value) => (**value).clone(),
            authorizer if *authorizer == authorization::AUTHORIZER && field == "requestResource" => {
                authorization::RESOURCE_CHECK
            }
            Type::Object(fields) => match fields.get(field) {
                Some(found) => found.kind.clone(),
                None => return self.error(at, format!("undefined field '{field}'")),
            },
            other => {
                let text = format!("type '{other}' does not support field selection");
                return self.error(at, text);
            }
        };
        match mode {
            Select::Test => Type::Bool,
            Select::Field if !was_optional => found,
            _ => Type::Optional(found.into()),
        }
    }

    fn call(&mut self, at: usize, name: &str, target: Option<&Expr>, args: &[Expr]) -> Type {
        let mut kinds = Vec::with_capacity(args.len() + 1);
        let (full, target) = functions::called(name, target, |space| self.lookup(space).is_some());
        if let Some(target) = target {
            kinds.push(self.of(target));
        }
        for arg in args {
            kinds.push(self.of(arg));
        }
        if let Some(result) = calls::result(&full, &kinds) {
            return result;
        }
        if !calls::is_known(&full) {
            return self.undeclared(at, name);
        }
        let shown = |kinds: &[Type]| kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let applied = match (target, kinds.split_first()) {
            (Some(_), Some((own, rest))) => format!("'{own}.({})'", shown(rest)),
            _ => format!("'({})'", shown(&kinds)),
        };
        self.error(at, format!("found no matching overload for '{name}' applied to {applied}"))
    }

    fn repeat(&mut self, one: &Loop) -> Type {
        let range = self.of(&one.range);
        let (item, index) = match &range {
            Type::Dyn => (Type::Dyn, Type::Dyn),
            Type::List(_) | Type::Set(_) => (range.item(), Type::Int),
            Type::Map(key, value) => ((**value).clone(), (**key).clone()),
            Type::Optional(inner) => ((**inner).clone(), Type::Dyn),
            Type::Object(_) => (Type::Dyn, Type::String),
            other => {
                let text = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.error(one.range.at, text);
                (Type::Dyn, Type::Dyn)
            }
        };
        let depth = self.scope.len();
        let is_map = matches!(range, Type::Map(..) | Type::Object(_));
        let kinds = match (one.variables.len(), is_map) {
            (1, true) => vec![index],
            (1, false) => vec![item.clone()],
            _ => vec![index, item.clone()],
        };
        for (name, kind) in one.variables.iter().zip(kinds) {
            self.scope.push((name.clone(), kind));
        }
        let element = self.scope.get(depth).map(|(_, kind)| kind.clone()).unwrap_or_default();
        if let Some(filter) = &one.filter {
            let kind = self.of(filter);
            if !kind.fits(&Type::Bool) {
                let text = format!("found no matching overload for '_?_:_' applied to '({kind}, dyn, dyn)'");
                self.error(filter.at, text);
            }
        }
        let body = self.of(&one.body);
        self.scope.truncate(depth);
        let is_predicate =
            matches!(one.kind, LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne | LoopKind::Filter);
        if is_predicate && !body.fits(&Type::Bool) {
            let text = format!("found no matching overload for '_&&_' applied to '(bool, {body})'");
            self.error(one.body.at, text);
        }
        match one.kind {
            LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne => Type::Bool,
            LoopKind::Map | LoopKind::TransformList => Type::list(body),
            LoopKind::Filter | LoopKind::SortBy => Type::list(element),
            LoopKind::TransformMap => Type::Map(element.into(), body.into()),
            LoopKind::TransformMapEntry | LoopKind::OptFlatMap => body,
            LoopKind::OptMap => Type::Optional(body.into()),
        }
    }
}

fn literal(value: &Val<'_>) -> Type {
    match value {
        Val::Null => Type::Null,
        Val::Bool(_) => Type::Bool,
        Val::Int(_) => Type::Int,
        Val::Uint(_) => Type::Uint,
        Val::Double(_) => Type::Double,
        Val::String(_) | Val::Text(_) => Type::String,
        Val::Bytes(_) => Type::Bytes,
        _ => Type::Dyn,
    }
}

/// What an element that may be left out is when it is there.
fn unwrapped(kind: Type, is_optional: bool) -> Type {
    match kind {
        Type::Optional(inner) if is_optional => Arc::unwrap_or_clone(inner),
        kind => kind,
    }
}

/// The type of several values together.
fn join(known: Option<Type>, next: Type) -> Type {
    match known {
        None => next,
        Some(known) if known == next => known,
        Some(_) => Type::Dyn,
    }
}
