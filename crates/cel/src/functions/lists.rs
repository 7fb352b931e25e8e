//! Lists, sets and numbers.

use std::cmp::Ordering;

use super::failed;
use crate::{
    eval::{Budget, EvalError, Outcome},
    value::Val,
};

fn is_sorted(items: &[Val<'_>]) -> Result<bool, EvalError> {
    for pair in items.windows(2) {
        if pair[0].compare(&pair[1]).ok_or_else(EvalError::no_overload)?.is_gt() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The element that is least or greatest.
fn extreme<'a>(items: Vec<Val<'a>>, wanted: Ordering, name: &str) -> Outcome<'a> {
    let mut items = items.into_iter();
    let Some(mut best) = items.next() else { return Err(failed(format!("{name} called on empty list"))) };
    for item in items {
        if item.compare(&best).ok_or_else(EvalError::no_overload)? == wanted {
            best = item;
        }
    }
    Ok(best)
}

fn sum<'a>(items: &[Val<'a>]) -> Outcome<'a> {
    let mut total: Option<Val<'a>> = None;
    for item in items {
        let next = match (total.take(), item) {
            (None, item) => Some(item.clone()),
            (Some(Val::Int(a)), Val::Int(b)) => a.checked_add(*b).map(Val::Int),
            (Some(Val::Uint(a)), Val::Uint(b)) => a.checked_add(*b).map(Val::Uint),
            (Some(Val::Double(a)), Val::Double(b)) => Some(Val::Double(a + b)),
            (Some(Val::Duration(a)), Val::Duration(b)) => a.checked_add(*b).map(Val::Duration),
            _ => return Err(EvalError::no_overload()),
        };
        total = Some(next.ok_or_else(|| failed("integer overflow"))?);
    }
    Ok(total.unwrap_or(Val::Int(0)))
}

fn index_of<'a>(items: &[Val<'a>], wanted: &Val<'a>, last: bool) -> Val<'a> {
    let is = |item: &Val<'a>| item.equals(wanted);
    let at = if last { items.iter().rposition(is) } else { items.iter().position(is) };
    Val::Int(at.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1))
}

fn flatten<'a>(items: &[Val<'a>], depth: i64, out: &mut Vec<Val<'a>>) {
    for item in items {
        match item.items().filter(|_| depth > 0) {
            Some(inner) => flatten(&inner, depth - 1, out),
            None => out.push(item.clone()),
        }
    }
}

fn slice<'a>(items: &[Val<'a>], from: i64, to: i64) -> Outcome<'a> {
    let range = usize::try_from(from).ok().zip(usize::try_from(to).ok());
    match range.and_then(|(from, to)| items.get(from..to)) {
        Some(part) => Ok(Val::list(part.to_vec())),
        None => Err(failed(format!("cannot slice({from}, {to}), list is length {}", items.len()))),
    }
}

fn sets<'a>(name: &str, a: &[Val<'a>], b: &[Val<'a>]) -> Option<Val<'a>> {
    let within = |a: &[Val<'a>], b: &[Val<'a>]| a.iter().all(|x| b.iter().any(|y| x.equals(y)));
    Some(Val::Bool(match name {
        "sets.contains" => within(b, a),
        "sets.equivalent" => within(a, b) && within(b, a),
        "sets.intersects" => a.iter().any(|x| b.iter().any(|y| x.equals(y))),
        _ => return None,
    }))
}

pub(super) fn call<'a>(name: &str, args: &[Val<'a>], budget: &mut Budget) -> Option<Outcome<'a>> {
    if let Some(function) = name.strip_prefix("math.") {
        return math(function, args);
    }
    if let ("lists.range", [Val::Int(count)]) = (name, args) {
        let count = usize::try_from(*count).unwrap_or(0);
        if let Err(error) = budget.spend(count) {
            return Some(Err(error));
        }
        return Some(Ok(Val::list((0..count).map(|n| Val::Int(i64::try_from(n).unwrap_or(i64::MAX))).collect())));
    }
    let items = args.first()?.items()?;
    let other = args.get(1);
    let cost = match (name, other.and_then(Val::items)) {
        ("sets.contains" | "sets.equivalent" | "sets.intersects", Some(b)) => items.len().saturating_mul(b.len()),
        (".distinct", _) => items.len().saturating_mul(items.len()),
        _ => items.len(),
    };
    if let Err(error) = budget.spend(cost) {
        return Some(Err(error));
    }
    Some(match (name, other, args.len()) {
        (".isSorted", None, 1) => is_sorted(&items).map(Val::Bool),
        (".sum", None, 1) => sum(&items),
        (".min", None, 1) => extreme(items, Ordering::Less, "min"),
        (".max", None, 1) => extreme(items, Ordering::Greater, "max"),
        (".indexOf", Some(wanted), 2) => Ok(index_of(&items, wanted, false)),
        (".lastIndexOf", Some(wanted), 2) => Ok(index_of(&items, wanted, true)),
        (".flatten", None, 1) | (".flatten", Some(Val::Int(_)), 2) => {
            let depth = match other {
                Some(Val::Int(depth)) => *depth,
                _ => 1,
            };
            let mut out = Vec::new();
            flatten(&items, depth.min(16), &mut out);
            Ok(Val::list(out))
        }
        (".slice", Some(Val::Int(from)), 3) => match args[2] {
            Val::Int(to) => slice(&items, *from, to),
            _ => return None,
        },
        (".reverse", None, 1) => Ok(Val::list(items.into_iter().rev().collect())),
        (".first", None, 1) => Ok(Val::optional(items.into_iter().next())),
        (".last", None, 1) => Ok(Val::optional(items.into_iter().next_back())),
        (".sort", None, 1) => {
            let mut sorted = items;
            sorted.sort_by(|a, b| a.compare(b).unwrap_or(Ordering::Equal));
            Ok(Val::list(sorted))
        }
        (".distinct", None, 1) => {
            let mut out: Vec<Val<'a>> = Vec::new();
            for item in items {
                if !out.iter().any(|own| own.equals(&item)) {
                    out.push(item);
                }
            }
            Ok(Val::list(out))
        }
        (_, Some(other), 2) => return sets(name, &items, &other.items()?).map(Ok),
        _ => return None,
    })
}

fn math<'a>(function: &str, args: &[Val<'a>]) -> Option<Outcome<'a>> {
    let values = || match args {
        [one] => one.items().unwrap_or_else(|| vec![one.clone()]),
        many => many.to_vec(),
    };
    Some(match (function, args) {
        ("greatest", _) => extreme(values(), Ordering::Greater, "math.greatest"),
        ("least", _) => extreme(values(), Ordering::Less, "math.least"),
        ("abs", [Val::Int(n)]) => n.checked_abs().map(Val::Int).ok_or_else(|| failed("integer overflow")),
        ("abs", [Val::Double(n)]) => Ok(Val::Double(n.abs())),
        ("abs", [value @ Val::Uint(_)]) => Ok(value.clone()),
        ("sign", [Val::Int(n)]) => Ok(Val::Int(n.signum())),
        ("ceil", [Val::Double(n)]) => Ok(Val::Double(n.ceil())),
        ("floor", [Val::Double(n)]) => Ok(Val::Double(n.floor())),
        ("round", [Val::Double(n)]) => Ok(Val::Double(n.round())),
        ("trunc", [Val::Double(n)]) => Ok(Val::Double(n.trunc())),
        ("sqrt", [Val::Double(n)]) => Ok(Val::Double(n.sqrt())),
        ("isNaN", [Val::Double(n)]) => Ok(Val::Bool(n.is_nan())),
        ("isInf", [Val::Double(n)]) => Ok(Val::Bool(n.is_infinite())),
        ("isFinite", [Val::Double(n)]) => Ok(Val::Bool(n.is_finite())),
        ("bitAnd", [Val::Int(a), Val::Int(b)]) => Ok(Val::Int(a & b)),
        ("bitOr", [Val::Int(a), Val::Int(b)]) => Ok(Val::Int(a | b)),
        ("bitXor", [Val::Int(a), Val::Int(b)]) => Ok(Val::Int(a ^ b)),
        ("bitNot", [Val::Int(a)]) => Ok(Val::Int(!a)),
        _ => return None,
    })
}
