//! Evaluation, within a budget.

use std::{fmt, sync::Arc};

use crate::{
    Program,
    ast::{Expr, Kind, Loop, LoopKind, Select},
    functions::{
        self,
        authorization::{self, Check, Decision},
    },
    value::{Struct, Val},
};

/// Expressions within expressions, those of composed variables included, beyond which evaluation ends.
const MAX_DEPTH: usize = 400;
/// The name under which expressions find composed variables.
const COMPOSED: &str = "variables";

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvalError {
    /// It does not apply to its data.
    Failed(String),
    /// It takes too much work.
    OutOfBudget,
    /// It depends on what the authorizer says to this.
    Undecided(Box<Check>),
}

impl EvalError {
    pub(crate) fn no_overload() -> Self {
        Self::Failed("no such overload".into())
    }

    /// Whether it ends the evaluation whatever the rest of the expression says.
    fn is_final(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(text) => f.write_str(text),
            Self::OutOfBudget => f.write_str("operation cancelled: actual cost limit exceeded"),
            Self::Undecided(check) => write!(f, "the authorizer has not been asked about {:?}", check.verb),
        }
    }
}

/// Work that evaluations may do.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    left: u64,
}

impl Budget {
    /// So many steps.
    pub fn new(steps: u64) -> Self {
        Self { left: steps }
    }

    /// Steps that are left.
    pub fn left(&self) -> u64 {
        self.left
    }

    pub(crate) fn spend(&mut self, steps: usize) -> Result<(), EvalError> {
        match self.left.checked_sub(steps as u64) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                Err(EvalError::OutOfBudget)
            }
        }
    }
}

pub(crate) type Outcome<'a> = Result<Val<'a>, EvalError>;

/// Variables of a scope and of those around it.
struct Env<'e, 'a> {
    variables: &'e [(&'a str, Val<'a>)],
    outer: Option<&'e Env<'e, 'a>>,
}

impl<'a> Env<'_, 'a> {
    fn get(&self, name: &str) -> Option<&Val<'a>> {
        let own = self.variables.iter().find(|(own, _)| *own == name).map(|(_, value)| value);
        own.or_else(|| self.outer.and_then(|outer| outer.get(name)))
    }
}

/// What expressions that are evaluated together share: variables, those made of expressions, and what the authorizer
/// said.
#[derive(Debug)]
pub struct Activation<'a> {
    variables: Vec<(&'a str, Val<'a>)>,
    programs: &'a [(String, Program)],
    /// Values of the programs that were needed.
    memo: Vec<Option<Outcome<'a>>>,
    decisions: Vec<(Check, Arc<Decision>)>,
}

impl<'a> Activation<'a> {
    /// Over plain variables.
    pub fn new(variables: Vec<(&'a str, Val<'a>)>) -> Self {
        Self { variables, programs: &[], memo: Vec::new(), decisions: Vec::new() }
    }

    /// With variables (`variables.<name>`) that are evaluated when an expression needs them.
    pub fn composed(variables: Vec<(&'a str, Val<'a>)>, programs: &'a [(String, Program)]) -> Self {
        Self { variables, programs, memo: vec![None; programs.len()], decisions: Vec::new() }
    }

    /// Takes what the authorizer says to a question.
    pub fn decide(&mut self, check: Check, decision: Decision) {
        self.decisions.push((check, Arc::new(decision)));
    }
}

pub(crate) fn run<'a>(root: &'a Expr, activation: &mut Activation<'a>, budget: &mut Budget) -> Outcome<'a> {
    let Activation { variables, programs, memo, decisions } = activation;
    let globals = Env { variables, outer: None };
    Eval { budget, programs, memo, decisions, globals: &globals, depth: 0 }.eval(root, &globals)
}

struct Eval<'b, 'a> {
    budget: &'b mut Budget,
    programs: &'a [(String, Program)],
    memo: &'b mut Vec<Option<Outcome<'a>>>,
    decisions: &'b [(Check, Arc<Decision>)],
    globals: &'b Env<'b, 'a>,
    depth: usize,
}

impl<'a> Eval<'_, 'a> {
    fn eval(&mut self, expr: &'a Expr, env: &Env<'_, 'a>) -> Outcome<'a> {
        if self.depth >= MAX_DEPTH {
            return Err(EvalError::Failed(format!("expression recursion limit exceeded: {MAX_DEPTH}")));
        }
        self.depth += 1;
        let outcome = self.value(expr, env);
        self.depth -= 1;
        outcome
    }

    fn value(&mut self, expr: &'a Expr, env: &Env<'_, 'a>) -> Outcome<'a> {
        match &expr.kind {
            Kind::Literal(value) => Ok(value.clone()),
            Kind::Ident(name) => {
                self.budget.spend(1)?;
                match env.get(name) {
                    Some(value) => Ok(value.clone()),
                    None => functions::type_named(name)
                        .ok_or_else(|| EvalError::Failed(format!("no such attribute(s): {name}"))),
                }
            }
            Kind::Select { operand, field, mode } => {
                self.budget.spend(1)?;
                if let Some(at) = self.composed(operand, field, env) {
                    return Ok(match mode {
                        Select::Field => self.variable(at)?,
                        Select::Optional => Val::optional(Some(self.variable(at)?)),
                        Select::Test => Val::Bool(true),
                    });
                }
                let value = self.eval(operand, env)?;
                select(value, field, *mode)
            }
            Kind::Call { name, target, args } => self.call(name, target.as_deref(), args, env),
            Kind::List(items) => self.list(items, env),
            Kind::Map(entries) => self.map(entries, env),
            Kind::Struct { name, fields } => self.structure(name, fields, env),
            Kind::Loop(one) => self.repeat(one, env),
            Kind::Bind { name, value, body } => {
                let value = self.eval(value, env)?;
                self.eval(body, &Env { variables: &[(name, value)], outer: Some(env) })
            }
        }
    }

    /// Which composed variable `operand.field` is, if it is one.
    fn composed(&self, operand: &Expr, field: &str, env: &Env<'_, 'a>) -> Option<usize> {
        match &operand.kind {
            Kind::Ident(name) if name == COMPOSED && env.get(name).is_none() => {
                self.programs.iter().position(|(own, _)| own == field)
            }
            _ => None,
        }
    }

    /// The value of a composed variable, which is made once.
    fn variable(&mut self, at: usize) -> Outcome<'a> {
        if let Some(Some(known)) = self.memo.get(at) {
            return known.clone();
        }
        let programs = self.programs;
        let Some((name, program)) = programs.get(at) else { return Err(EvalError::no_overload()) };
        let outcome = self.eval(&program.root, self.globals).map_err(|error| match error {
            EvalError::Failed(why) => {
                EvalError::Failed(format!("composited variable {name:?} fails to evaluate: {why}"))
            }
            other => other,
        });
        if let Some(place) = self.memo.get_mut(at)
            && !outcome.as_ref().is_err_and(EvalError::is_final)
        {
            *place = Some(outcome.clone());
        }
        outcome
    }

    fn structure(&mut self, name: &str, fields: &'a [(String, bool, Expr)], env: &Env<'_, 'a>) -> Outcome<'a> {
        self.budget.spend(40)?;
        let mut out = Vec::with_capacity(fields.len());
        for (field, is_optional, value) in fields {
            match (is_optional, self.eval(value, env)?) {
                (true, Val::Optional(Some(value))) => out.push((field.as_str(), (*value).clone())),
                (true, Val::Optional(None)) => {}
                (true, _) => return Err(EvalError::no_overload()),
                (false, value) => out.push((field.as_str(), value)),
            }
        }
        Ok(Val::Struct(Arc::new(Struct { name: name.into(), fields: out })))
    }

    fn list(&mut self, items: &'a [(bool, Expr)], env: &Env<'_, 'a>) -> Outcome<'a> {
        self.budget.spend(10)?;
        let mut out = Vec::with_capacity(items.len());
        for (is_optional, item) in items {
            match (is_optional, self.eval(item, env)?) {
                (true, Val::Optional(value)) => out.extend(value.map(|v| (*v).clone())),
                (true, _) => return Err(EvalError::no_overload()),
                (false, value) => out.push(value),
            }
        }
        Ok(Val::list(out))
    }

    fn map(&mut self, entries: &'a [(bool, Expr, Expr)], env: &Env<'_, 'a>) -> Outcome<'a> {
        self.budget.spend(30)?;
        let mut out: Vec<(Val<'a>, Val<'a>)> = Vec::with_capacity(entries.len());
        for (is_optional, key, value) in entries {
            let key = self.eval(key, env)?;
            let value = match (is_optional, self.eval(value, env)?) {
                (true, Val::Optional(Some(value))) => (*value).clone(),
                (true, Val::Optional(None)) => continue,
                (true, _) => return Err(EvalError::no_overload()),
                (false, value) => value,
            };
            put(&mut out, key, value)?;
        }
        Ok(Val::Map(out.into()))
    }

    fn call(&mut self, name: &str, target: Option<&'a Expr>, args: &'a [Expr], env: &Env<'_, 'a>) -> Outcome<'a> {
        match (name, args) {
            ("_&&_", [a, b]) => return self.logic(a, b, false, env),
            ("_||_", [a, b]) => return self.logic(a, b, true, env),
            ("_?_:_", [condition, then, otherwise]) => {
                return match self.eval(condition, env)? {
                    Val::Bool(true) => self.eval(then, env),
                    Val::Bool(false) => self.eval(otherwise, env),
                    _ => Err(EvalError::no_overload()),
                };
            }
            _ => {}
        }
        let (full, target) = functions::called(name, target, |space| env.get(space).is_some());
        let mut values = Vec::with_capacity(args.len() + 1);
        if let Some(target) = target {
            let target = self.eval(target, env)?;
            if let ("orValue" | "or", Val::Optional(Some(value)), [_]) = (name, &target, args) {
                return Ok(if name == "or" { target.clone() } else { (**value).clone() });
            }
            values.push(target);
        }
        values.extend(self.all(args, env)?);
        if let Some(outcome) = authorization::call(&full, &values, self.decisions, self.budget) {
            return outcome;
        }
        functions::call(&full, values, self.budget)
    }

    fn all(&mut self, exprs: &'a [Expr], env: &Env<'_, 'a>) -> Result<Vec<Val<'a>>, EvalError> {
        exprs.iter().map(|expr| self.eval(expr, env)).collect()
    }

    /// `&&` and `||`: an error on one side does not count if the other decides.
    fn logic(&mut self, a: &'a Expr, b: &'a Expr, decisive: bool, env: &Env<'_, 'a>) -> Outcome<'a> {
        self.budget.spend(1)?;
        let left = self.eval(a, env);
        match left {
            Ok(Val::Bool(value)) if value == decisive => return Ok(Val::Bool(decisive)),
            Err(ref error) if error.is_final() => return left,
            _ => {}
        }
        match (left, self.eval(b, env)) {
            (_, Ok(Val::Bool(value))) if value == decisive => Ok(Val::Bool(decisive)),
            (_, Err(error)) if error.is_final() => Err(error),
            (Err(error), _) | (Ok(Val::Bool(_)), Err(error)) => Err(error),
            (Ok(Val::Bool(_)), Ok(Val::Bool(_))) => Ok(Val::Bool(!decisive)),
            _ => Err(EvalError::no_overload()),
        }
    }

    fn repeat(&mut self, one: &'a Loop, env: &Env<'_, 'a>) -> Outcome<'a> {
        let range = self.eval(&one.range, env)?;
        if matches!(one.kind, LoopKind::OptMap | LoopKind::OptFlatMap) {
            return self.optional(one, range, env);
        }
        let rounds = rounds(&range, one.variables.len() > 1)?;
        let name = |at: usize| one.variables.get(at).map_or("", String::as_str);
        let mut turn = Turn::new(one.kind);
        for (first, second) in rounds {
            self.budget.spend(1)?;
            let variables = [(name(0), first.clone()), (name(1), second)];
            let scope = Env { variables: &variables[..one.variables.len().min(2)], outer: Some(env) };
            if let Some(filter) = &one.filter {
                match self.eval(filter, &scope)? {
                    Val::Bool(true) => {}
                    Val::Bool(false) => continue,
                    _ => return Err(EvalError::no_overload()),
                }
            }
            let value = self.eval(&one.body, &scope);
            if turn.take(first, value)? {
                break;
            }
        }
        turn.end()
    }

    fn optional(&mut self, one: &'a Loop, range: Val<'a>, env: &Env<'_, 'a>) -> Outcome<'a> {
        let Val::Optional(inner) = range else { return Err(EvalError::no_overload()) };
        let Some(inner) = inner else { return Ok(Val::Optional(None)) };
        let variables = [(one.variables.first().map_or("", String::as_str), (*inner).clone())];
        let value = self.eval(&one.body, &Env { variables: &variables, outer: Some(env) })?;
        match (one.kind, value) {
            (LoopKind::OptMap, value) => Ok(Val::optional(Some(value))),
            (_, value @ Val::Optional(_)) => Ok(value),
            _ => Err(EvalError::no_overload()),
        }
    }
}

fn select<'a>(value: Val<'a>, field: &str, mode: Select) -> Outcome<'a> {
    match (mode, &value) {
        (Select::Optional, Val::Optional(None)) => return Ok(Val::Optional(None)),
        (Select::Optional, Val::Optional(Some(inner))) => return Ok(Val::optional(inner.field(field))),
        (Select::Optional, value) => return Ok(Val::optional(value.field(field))),
        (Select::Field, Val::Optional(inner)) => {
            return Ok(Val::optional(inner.as_ref().and_then(|inner| inner.field(field))));
        }
        (Select::Test, Val::Optional(inner)) => {
            return Ok(Val::Bool(inner.as_ref().is_some_and(|inner| inner.field(field).is_some())));
        }
        _ => {}
    }
    if !matches!(value, Val::Fields(..) | Val::Map(_) | Val::Struct(_) | Val::Authorizer(_)) {
        return Err(EvalError::no_overload());
    }
    match (mode, value.field(field)) {
        (Select::Test, found) => Ok(Val::Bool(found.is_some())),
        (_, Some(found)) => Ok(found),
        (_, None) => Err(EvalError::Failed(format!("no such key: {field}"))),
    }
}

/// What the variables of a macro are in each round.
fn rounds<'a>(range: &Val<'a>, two: bool) -> Result<Vec<(Val<'a>, Val<'a>)>, EvalError> {
    if let Some(items) = range.items() {
        let index = |at: usize| Val::Int(i64::try_from(at).unwrap_or(i64::MAX));
        let pairs = items.into_iter().enumerate();
        return Ok(pairs.map(|(at, item)| if two { (index(at), item) } else { (item, Val::Null) }).collect());
    }
    range.entries().ok_or_else(EvalError::no_overload)
}

fn put<'a>(map: &mut Vec<(Val<'a>, Val<'a>)>, key: Val<'a>, value: Val<'a>) -> Result<(), EvalError> {
    if map.iter().any(|(own, _)| own.equals(&key)) {
        return Err(EvalError::Failed("Failed with repeated key".into()));
    }
    map.push((key, value));
    Ok(())
}

/// A macro in progress.
struct Turn<'a> {
    kind: LoopKind,
    count: usize,
    error: Option<EvalError>,
    list: Vec<Val<'a>>,
    keys: Vec<Val<'a>>,
    map: Vec<(Val<'a>, Val<'a>)>,
}

impl<'a> Turn<'a> {
    fn new(kind: LoopKind) -> Self {
        Self { kind, count: 0, error: None, list: Vec::new(), keys: Vec::new(), map: Vec::new() }
    }

    /// Takes the value of one round. `true` ends the macro.
    fn take(&mut self, element: Val<'a>, value: Outcome<'a>) -> Result<bool, EvalError> {
        if let Err(error) = &value
            && error.is_final()
        {
            return Err(error.clone());
        }
        match self.kind {
            LoopKind::All | LoopKind::Exists => {
                let decisive = self.kind == LoopKind::Exists;
                match value {
                    Ok(Val::Bool(value)) if value == decisive => {
                        self.count += 1;
                        self.error = None;
                        return Ok(true);
                    }
                    Ok(Val::Bool(_)) => {}
                    Ok(_) => self.error = Some(EvalError::no_overload()),
                    Err(error) => self.error = Some(error),
                }
            }
            LoopKind::ExistsOne | LoopKind::Filter => match value? {
                Val::Bool(true) => {
                    self.count += 1;
                    self.list.push(element);
                }
                Val::Bool(false) => {}
                _ => return Err(EvalError::no_overload()),
            },
            LoopKind::Map | LoopKind::TransformList => self.list.push(value?),
            LoopKind::TransformMap => put(&mut self.map, element, value?)?,
            LoopKind::TransformMapEntry => {
                for (key, value) in value?.entries().ok_or_else(EvalError::no_overload)? {
                    put(&mut self.map, key, value)?;
                }
            }
            LoopKind::SortBy => {
                self.keys.push(value?);
                self.list.push(element);
            }
            LoopKind::OptMap | LoopKind::OptFlatMap => {}
        }
        Ok(false)
    }

    fn end(self) -> Outcome<'a> {
        if let Some(error) = self.error {
            return Err(error);
        }
        Ok(match self.kind {
            LoopKind::All => Val::Bool(self.count == 0),
            LoopKind::Exists => Val::Bool(self.count > 0),
            LoopKind::ExistsOne => Val::Bool(self.count == 1),
            LoopKind::TransformMap | LoopKind::TransformMapEntry => Val::Map(self.map.into()),
            LoopKind::SortBy => {
                if self.keys.windows(2).any(|pair| pair[0].compare(&pair[1]).is_none()) {
                    return Err(EvalError::no_overload());
                }
                let mut pairs: Vec<(Val<'a>, Val<'a>)> = self.keys.into_iter().zip(self.list).collect();
                pairs.sort_by(|(a, _), (b, _)| a.compare(b).unwrap_or(std::cmp::Ordering::Equal));
                Val::list(pairs.into_iter().map(|(_, value)| value).collect())
            }
            _ => Val::list(self.list),
        })
    }
}

impl PartialEq for Val<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.equals(other)
    }
}
