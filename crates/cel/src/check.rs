//! Types of expressions, as far as they can be known before there is data.

mod calls;

use crate::{
    CompileError, Type,
    ast::{Expr, Kind, Loop, LoopKind, Select},
    functions,
    value::Val,
};

/// Checks an expression. Answers its type.
pub(crate) fn check(root: &Expr, source: &str, variables: &[(&str, &Type)]) -> Result<Type, CompileError> {
    let mut scope: Vec<(String, Type)> =
        variables.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).clone())).collect();
    Check { source, scope: &mut scope }.of(root)
}

struct Check<'c> {
    source: &'c str,
    scope: &'c mut Vec<(String, Type)>,
}

type Checked = Result<Type, CompileError>;

impl Check<'_> {
    fn error<T>(&self, at: usize, message: String) -> Result<T, CompileError> {
        Err(CompileError::at(self.source, at, message))
    }

    fn lookup(&self, name: &str) -> Option<&Type> {
        self.scope.iter().rev().find(|(own, _)| own == name).map(|(_, kind)| kind)
    }

    fn of(&mut self, expr: &Expr) -> Checked {
        match &expr.kind {
            Kind::Literal(value) => Ok(literal(value)),
            Kind::Ident(name) => match self.lookup(name) {
                Some(kind) => Ok(kind.clone()),
                None if functions::type_named(name).is_some() => Ok(Type::Type),
                None => self.error(expr.at, format!("undeclared reference to '{name}' (in container '')")),
            },
            Kind::Select { operand, field, mode } => self.select(expr.at, operand, field, *mode),
            Kind::Call { name, target, args } => self.call(expr.at, name, target.as_deref(), args),
            Kind::List(items) => {
                let mut common = None;
                for (is_optional, item) in items {
                    let kind = self.of(item)?;
                    let kind = match (is_optional, kind) {
                        (true, Type::Optional(inner)) => (*inner).clone(),
                        (_, kind) => kind,
                    };
                    common = Some(join(common, kind));
                }
                Ok(Type::list(common.unwrap_or_default()))
            }
            Kind::Map(entries) => {
                let (mut keys, mut values) = (None, None);
                for (_, key, value) in entries {
                    let (key, value) = (self.of(key)?, self.of(value)?);
                    keys = Some(join(keys, key));
                    values = Some(join(values, value));
                }
                Ok(Type::Map(keys.unwrap_or_default().into(), values.unwrap_or_default().into()))
            }
            Kind::Struct { name, .. } => {
                self.error(expr.at, format!("undeclared reference to '{name}' (in container '')"))
            }
            Kind::Loop(one) => self.repeat(one),
            Kind::Bind { name, value, body } => {
                let kind = self.of(value)?;
                self.scope.push((name.clone(), kind));
                let result = self.of(body);
                self.scope.pop();
                result
            }
        }
    }

    fn select(&mut self, at: usize, operand: &Expr, field: &str, mode: Select) -> Checked {
        let operand = self.of(operand)?;
        let (inner, was_optional) = match &operand {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let found = match &inner {
            Type::Dyn => Type::Dyn,
            Type::Map(_, value) => (**value).clone(),
            Type::Object(fields) => match fields.get(field) {
                Some(found) => found.kind.clone(),
                None => return self.error(at, format!("undefined field '{field}'")),
            },
            other => {
                let text = format!("type '{other}' does not support field selection");
                return self.error(at, text);
            }
        };
        Ok(match mode {
            Select::Test => Type::Bool,
            Select::Field if !was_optional => found,
            _ => Type::Optional(found.into()),
        })
    }

    fn call(&mut self, at: usize, name: &str, target: Option<&Expr>, args: &[Expr]) -> Checked {
        let mut kinds = Vec::with_capacity(args.len() + 1);
        let mut full = name.to_owned();
        match target {
            Some(Expr { kind: Kind::Ident(space), .. })
                if self.lookup(space).is_none() && functions::is_space(space) =>
            {
                full = format!("{space}.{name}");
            }
            Some(target) => {
                kinds.push(self.of(target)?);
                full = format!(".{name}");
            }
            None => {}
        }
        for arg in args {
            kinds.push(self.of(arg)?);
        }
        if let Some(result) = calls::result(&full, &kinds) {
            return Ok(result);
        }
        if !calls::is_known(&full) {
            return self.error(at, format!("undeclared reference to '{name}' (in container '')"));
        }
        let shown = |kinds: &[Type]| kinds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let applied = match (target, kinds.split_first()) {
            (Some(_), Some((own, rest))) if full.starts_with('.') => format!("'{own}.({})'", shown(rest)),
            _ => format!("'({})'", shown(&kinds)),
        };
        self.error(at, format!("found no matching overload for '{name}' applied to {applied}"))
    }

    fn repeat(&mut self, one: &Loop) -> Checked {
        let range = self.of(&one.range)?;
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
                return self.error(one.range.at, text);
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
        let body = match one.filter.as_ref().map(|filter| self.of(filter)).transpose() {
            Ok(_) => self.of(&one.body),
            Err(error) => Err(error),
        };
        self.scope.truncate(depth);
        let body = body?;
        let is_predicate =
            matches!(one.kind, LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne | LoopKind::Filter);
        if is_predicate && !body.fits(&Type::Bool) {
            let text = format!("found no matching overload for '_&&_' applied to '(bool, {body})'");
            return self.error(one.body.at, text);
        }
        Ok(match one.kind {
            LoopKind::All | LoopKind::Exists | LoopKind::ExistsOne => Type::Bool,
            LoopKind::Map | LoopKind::TransformList => Type::list(body),
            LoopKind::Filter | LoopKind::SortBy => Type::list(element),
            LoopKind::TransformMap => Type::Map(element.into(), body.into()),
            LoopKind::TransformMapEntry | LoopKind::OptFlatMap => body,
            LoopKind::OptMap => Type::Optional(body.into()),
        })
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

/// The type of several values together.
fn join(known: Option<Type>, next: Type) -> Type {
    match known {
        None => next,
        Some(known) if known == next => known,
        Some(_) => Type::Dyn,
    }
}
