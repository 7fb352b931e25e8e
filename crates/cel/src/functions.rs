//! Functions: the operators and those of the language here, the libraries in modules.

pub(crate) mod authorization;
mod dates;
mod lists;
mod network;
pub(crate) mod strings;
mod versions;

use std::cmp::Ordering;

use machinery::quantity::Quantity;

use crate::{
    ast::{Expr, Kind},
    eval::{Budget, EvalError, Outcome},
    value::{Val, parse_duration, parse_time},
};

/// Name spaces of library functions.
fn is_space(name: &str) -> bool {
    matches!(name, "optional" | "math" | "sets" | "ip" | "format" | "base64" | "lists" | "strings" | "jsonpatch")
}

/// The full name of what a call calls (`space.name`; `.name` of a method), and the target of a method.
pub(crate) fn called<'e>(
    name: &str,
    target: Option<&'e Expr>,
    is_variable: impl FnOnce(&str) -> bool,
) -> (String, Option<&'e Expr>) {
    match target {
        Some(Expr { kind: Kind::Ident(space), .. }) if is_space(space) && !is_variable(space) => {
            (format!("{space}.{name}"), None)
        }
        Some(target) => (format!(".{name}"), Some(target)),
        None => (name.to_owned(), None),
    }
}

/// The type of a name.
pub(crate) fn type_named(name: &str) -> Option<Val<'static>> {
    const NAMES: [&str; 9] = ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type"];
    if name == "type" {
        return Some(Val::Type("type".into()));
    }
    NAMES.iter().find(|own| **own == name).map(|own| Val::Type((*own).into()))
}

pub(crate) fn failed(text: impl Into<String>) -> EvalError {
    EvalError::Failed(text.into())
}

fn checked<'a, T>(value: Option<T>, make: impl FnOnce(T) -> Val<'a>, what: &str) -> Outcome<'a> {
    value.map(make).ok_or_else(|| failed(format!("{what} overflow")))
}

/// Calls a function. Methods are named with a leading dot, their target is the first argument.
pub(crate) fn call<'a>(name: &str, args: Vec<Val<'a>>, budget: &mut Budget) -> Outcome<'a> {
    budget.spend(1)?;
    for text in args.iter().filter_map(Val::as_str) {
        budget.spend(text.len() / 10)?;
    }
    let found = operator(name, &args, budget).or_else(|| convert(name, &args));
    let found = found.or_else(|| optional(name, &args));
    let found = found.or_else(|| strings::call(name, &args, budget));
    let found = found.or_else(|| lists::call(name, &args, budget));
    let found = found.or_else(|| dates::call(name, &args));
    let found = found.or_else(|| network::call(name, &args));
    let found = found.or_else(|| versions::call(name, &args));
    found.unwrap_or_else(|| Err(EvalError::no_overload()))
}

fn operator<'a>(name: &str, args: &[Val<'a>], budget: &mut Budget) -> Option<Outcome<'a>> {
    Some(match (name, args) {
        ("_==_", [a, b]) => {
            let size = a.size().unwrap_or(1).min(b.size().unwrap_or(1));
            budget.spend(size / 10).map(|()| Val::Bool(a.equals(b)))
        }
        ("_!=_", [a, b]) => Ok(Val::Bool(!a.equals(b))),
        ("_<_", [a, b]) => ordered(a, b, Ordering::is_lt),
        ("_<=_", [a, b]) => ordered(a, b, Ordering::is_le),
        ("_>_", [a, b]) => ordered(a, b, Ordering::is_gt),
        ("_>=_", [a, b]) => ordered(a, b, Ordering::is_ge),
        ("!_", [Val::Bool(value)]) => Ok(Val::Bool(!value)),
        ("-_", [Val::Int(value)]) => checked(value.checked_neg(), Val::Int, "integer"),
        ("-_", [Val::Double(value)]) => Ok(Val::Double(-value)),
        ("@in", [item, range]) => {
            if let Err(error) = budget.spend(range.size().unwrap_or(0)) {
                return Some(Err(error));
            }
            match range.items() {
                Some(items) => Ok(Val::Bool(items.iter().any(|own| own.equals(item)))),
                None if range.entries().is_some() => Ok(Val::Bool(range.get(item).is_some())),
                None => Err(EvalError::no_overload()),
            }
        }
        ("_[_]", [range, index]) => at(range, index),
        ("_[?_]", [range, index]) => Ok(match range {
            Val::Optional(Some(inner)) => Val::optional(at(inner, index).ok()),
            Val::Optional(None) => Val::Optional(None),
            range => Val::optional(at(range, index).ok()),
        }),
        ("_+_" | "_-_" | "_*_" | "_/_" | "_%_", [a, b]) => return arithmetic(name, a, b, budget),
        ("size", [value]) | (".size", [value]) => match value.size() {
            Some(size) => Ok(Val::Int(i64::try_from(size).unwrap_or(i64::MAX))),
            None => Err(EvalError::no_overload()),
        },
        ("type", [value]) => Ok(Val::Type(value.type_name().into())),
        ("dyn", [value]) => Ok(value.clone()),
        _ => return None,
    })
}

fn ordered<'a>(a: &Val<'a>, b: &Val<'a>, is: fn(Ordering) -> bool) -> Outcome<'a> {
    match a.compare(b) {
        Some(order) => Ok(Val::Bool(is(order))),
        None if matches!((a, b), (Val::Double(_), _) | (_, Val::Double(_))) => Ok(Val::Bool(false)),
        None => Err(EvalError::no_overload()),
    }
}

fn at<'a>(range: &Val<'a>, index: &Val<'a>) -> Outcome<'a> {
    if let Val::Optional(inner) = range {
        return Ok(Val::optional(inner.as_ref().and_then(|inner| at(inner, index).ok())));
    }
    if let Some(items) = range.items() {
        let place = match index {
            Val::Int(at) => usize::try_from(*at).ok(),
            Val::Uint(at) => usize::try_from(*at).ok(),
            Val::Double(at) if at.fract() == 0.0 && *at >= 0.0 => Some(*at as usize),
            Val::Double(_) => None,
            _ => return Err(EvalError::no_overload()),
        };
        return place.and_then(|at| items.get(at).cloned()).ok_or_else(|| {
            let shown = strings::show(index).unwrap_or_default();
            failed(format!("index out of bounds: {shown}"))
        });
    }
    if range.entries().is_none() {
        return Err(EvalError::no_overload());
    }
    range.get(index).ok_or_else(|| failed(format!("no such key: {}", strings::show(index).unwrap_or_default())))
}

fn arithmetic<'a>(name: &str, a: &Val<'a>, b: &Val<'a>, budget: &mut Budget) -> Option<Outcome<'a>> {
    let int = |value: Option<i64>| checked(value, Val::Int, "integer");
    let uint = |value: Option<u64>| checked(value, Val::Uint, "unsigned integer");
    Some(match (name, a, b) {
        ("_/_", Val::Int(_), Val::Int(0)) | ("_/_", Val::Uint(_), Val::Uint(0)) => Err(failed("division by zero")),
        ("_%_", Val::Int(_), Val::Int(0)) | ("_%_", Val::Uint(_), Val::Uint(0)) => Err(failed("modulus by zero")),
        ("_+_", Val::Int(a), Val::Int(b)) => int(a.checked_add(*b)),
        ("_-_", Val::Int(a), Val::Int(b)) => int(a.checked_sub(*b)),
        ("_*_", Val::Int(a), Val::Int(b)) => int(a.checked_mul(*b)),
        ("_/_", Val::Int(a), Val::Int(b)) => int(a.checked_div(*b)),
        ("_%_", Val::Int(a), Val::Int(b)) => int(a.checked_rem(*b)),
        ("_+_", Val::Uint(a), Val::Uint(b)) => uint(a.checked_add(*b)),
        ("_-_", Val::Uint(a), Val::Uint(b)) => uint(a.checked_sub(*b)),
        ("_*_", Val::Uint(a), Val::Uint(b)) => uint(a.checked_mul(*b)),
        ("_/_", Val::Uint(a), Val::Uint(b)) => uint(a.checked_div(*b)),
        ("_%_", Val::Uint(a), Val::Uint(b)) => uint(a.checked_rem(*b)),
        ("_+_", Val::Double(a), Val::Double(b)) => Ok(Val::Double(a + b)),
        ("_-_", Val::Double(a), Val::Double(b)) => Ok(Val::Double(a - b)),
        ("_*_", Val::Double(a), Val::Double(b)) => Ok(Val::Double(a * b)),
        ("_/_", Val::Double(a), Val::Double(b)) => Ok(Val::Double(a / b)),
        ("_+_", Val::Bytes(a), Val::Bytes(b)) => Ok(Val::Bytes([&a[..], &b[..]].concat().into())),
        ("_+_" | "_-_", Val::Timestamp(_) | Val::Duration(_), _) => return dates::arithmetic(name, a, b),
        ("_+_", a, b) => match (a.as_str(), b.as_str()) {
            (Some(a), Some(b)) => Ok(Val::text(format!("{a}{b}"))),
            _ => {
                let (mut left, right) = (a.items()?, b.items()?);
                if let Err(error) = budget.spend(left.len() + right.len()) {
                    return Some(Err(error));
                }
                left.extend(right);
                Ok(Val::list(left))
            }
        },
        _ => return None,
    })
}

/// Conversions between types.
fn convert<'a>(name: &str, args: &[Val<'a>]) -> Option<Outcome<'a>> {
    let [value] = args else { return None };
    Some(match (name, value) {
        ("int", Val::Int(_)) | ("uint", Val::Uint(_)) | ("double", Val::Double(_)) | ("bool", Val::Bool(_)) => {
            Ok(value.clone())
        }
        ("string", value) => strings::show(value).map(Val::text).ok_or_else(EvalError::no_overload),
        ("bytes", Val::Bytes(_)) => Ok(value.clone()),
        ("int", Val::Uint(n)) => checked(i64::try_from(*n).ok(), Val::Int, "integer"),
        ("int", Val::Double(n)) => {
            checked((n.abs() < 9.223_372_036_854_775e18).then_some(n.trunc() as i64), Val::Int, "integer")
        }
        ("int", Val::Timestamp(at)) => Ok(Val::Int(at.unix_timestamp())),
        ("uint", Val::Int(n)) => checked(u64::try_from(*n).ok(), Val::Uint, "unsigned integer"),
        ("uint", Val::Double(n)) => checked(
            (*n >= 0.0 && *n < 1.844_674_407_370_955e19).then_some(n.trunc() as u64),
            Val::Uint,
            "unsigned integer",
        ),
        ("double", Val::Int(n)) => Ok(Val::Double(*n as f64)),
        ("double", Val::Uint(n)) => Ok(Val::Double(*n as f64)),
        ("timestamp", Val::Timestamp(_)) | ("duration", Val::Duration(_)) => Ok(value.clone()),
        ("timestamp", Val::Int(seconds)) => {
            let at = time::OffsetDateTime::from_unix_timestamp(*seconds).ok();
            checked(at, Val::Timestamp, "timestamp")
        }
        (name, value) => {
            let text = value.as_str()?;
            let wrong = |kind: &str| failed(format!("type conversion error from 'string' to '{kind}'"));
            match name {
                "int" => text.parse().map(Val::Int).map_err(|_| wrong("int")),
                "uint" => text.parse().map(Val::Uint).map_err(|_| wrong("uint")),
                "double" => text.parse().map(Val::Double).map_err(|_| wrong("double")),
                "bool" => match text {
                    "true" | "True" | "TRUE" | "t" | "1" => Ok(Val::Bool(true)),
                    "false" | "False" | "FALSE" | "f" | "0" => Ok(Val::Bool(false)),
                    _ => Err(wrong("bool")),
                },
                "bytes" => Ok(Val::Bytes(text.as_bytes().into())),
                "timestamp" => parse_time(text).map(Val::Timestamp).ok_or_else(|| wrong("google.protobuf.Timestamp")),
                "duration" => parse_duration(text).map(Val::Duration).ok_or_else(|| wrong("google.protobuf.Duration")),
                "quantity" => match Quantity::parse(text) {
                    Ok(quantity) => Ok(Val::Quantity(quantity)),
                    Err(error) => Err(failed(error.to_string())),
                },
                "isQuantity" => Ok(Val::Bool(Quantity::parse(text).is_ok())),
                _ => return None,
            }
        }
    })
}

fn optional<'a>(name: &str, args: &[Val<'a>]) -> Option<Outcome<'a>> {
    Some(match (name, args) {
        ("optional.none", []) => Ok(Val::Optional(None)),
        ("optional.of", [value]) => Ok(Val::optional(Some(value.clone()))),
        ("optional.ofNonZeroValue", [value]) => {
            let is_zero = match value {
                Val::Null => true,
                Val::Bool(value) => !value,
                Val::Int(value) => *value == 0,
                Val::Uint(value) => *value == 0,
                Val::Double(value) => *value == 0.0,
                value => value.size() == Some(0),
            };
            Ok(Val::optional((!is_zero).then(|| value.clone())))
        }
        ("optional.unwrap" | ".unwrapOpt", [list]) => match list.items() {
            Some(items) => {
                let present = items.into_iter().filter_map(|item| match item {
                    Val::Optional(Some(value)) => Some((*value).clone()),
                    _ => None,
                });
                Ok(Val::list(present.collect()))
            }
            None => Err(EvalError::no_overload()),
        },
        (".hasValue", [Val::Optional(value)]) => Ok(Val::Bool(value.is_some())),
        (".value", [Val::Optional(value)]) => match value {
            Some(value) => Ok((**value).clone()),
            None => Err(failed("optional.none() dereference")),
        },
        (".orValue" | ".or", [Val::Optional(None), other]) => Ok(other.clone()),
        _ => return None,
    })
}
