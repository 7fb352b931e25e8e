//! Quantities, semantic versions, and the formats of Kubernetes names.

use std::{cmp::Ordering, sync::Arc};

use machinery::{names, quantity::Quantity};

use super::failed;
use crate::{
    eval::Outcome,
    value::{Semver, Val},
};

fn parse(text: &str) -> Option<Semver> {
    let (rest, build) = text.split_once('+').unwrap_or((text, ""));
    let (core, pre) = match rest.split_once('-') {
        Some((core, pre)) => (core, pre.split('.').map(str::to_owned).collect()),
        None => (rest, Vec::new()),
    };
    let number = |part: &str| {
        let plain = part == "0" || !part.starts_with('0');
        plain.then(|| part.parse::<u64>().ok()).flatten().filter(|_| part.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut parts = core.split('.');
    let mut next = || number(parts.next()?);
    let numbers = [next()?, next()?, next()?];
    let valid = |id: &String| {
        let numeric = id.bytes().all(|b| b.is_ascii_digit());
        !id.is_empty()
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && (!numeric || *id == "0" || !id.starts_with('0'))
    };
    (parts.next().is_none() && pre.iter().all(valid)).then(|| Semver { numbers, pre, build: build.to_owned() })
}

/// A version with a `v` before it, or of fewer numbers.
fn normalized(text: &str) -> String {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (core, tail) = text.split_at(end);
    let mut parts: Vec<String> = core
        .split('.')
        .map(|part| match part.trim_start_matches('0') {
            "" if !part.is_empty() => "0".to_owned(),
            rest => rest.to_owned(),
        })
        .collect();
    while parts.len() < 3 {
        parts.push("0".into());
    }
    format!("{}{tail}", parts.join("."))
}

pub(super) fn show(version: &Semver) -> String {
    let [major, minor, patch] = version.numbers;
    let mut text = format!("{major}.{minor}.{patch}");
    if !version.pre.is_empty() {
        text.push('-');
        text.push_str(&version.pre.join("."));
    }
    if !version.build.is_empty() {
        text.push('+');
        text.push_str(&version.build);
    }
    text
}

fn order<'a>(name: &str, order: Ordering) -> Option<Val<'a>> {
    Some(match name {
        ".isGreaterThan" => Val::Bool(order.is_gt()),
        ".isLessThan" => Val::Bool(order.is_lt()),
        ".compareTo" => Val::Int(match order {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }),
        _ => return None,
    })
}

pub(super) fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Outcome<'a>> {
    match args {
        [Val::Quantity(a), Val::Quantity(b)] => return of_quantities(name, *a, *b).map(Ok),
        [Val::Quantity(a), Val::Int(n)] => {
            return of_quantities(name, *a, Quantity::parse(&n.to_string()).ok()?).map(Ok);
        }
        [Val::Quantity(quantity)] => return of_quantity(name, *quantity),
        [Val::Semver(a), Val::Semver(b)] => return order(name, a.cmp(b)).map(Ok),
        [Val::Semver(version)] => {
            let at = [".major", ".minor", ".patch"].iter().position(|own| *own == name)?;
            return Some(Ok(Val::Int(i64::try_from(version.numbers[at]).unwrap_or(i64::MAX))));
        }
        _ => {}
    }
    if let Some(format) = name.strip_prefix("format.") {
        return match args {
            [] => known(format).map(|format| Ok(Val::Format(format))),
            [name] if format == "named" => Some(Ok(Val::optional(known(name.as_str()?).map(Val::Format)))),
            _ => None,
        };
    }
    if let (".validate", [Val::Format(format), value]) = (name, args) {
        let problems = problems(format, value.as_str()?);
        let list = (!problems.is_empty()).then(|| Val::list(problems.into_iter().map(Val::text).collect()));
        return Some(Ok(Val::optional(list)));
    }
    let text = args.first()?.as_str()?;
    let normalize = match args.get(1) {
        None => false,
        Some(Val::Bool(normalize)) => *normalize,
        Some(_) => return None,
    };
    let parsed = || if normalize { parse(&normalized(text)) } else { parse(text) };
    Some(match name {
        "semver" => match parsed() {
            Some(version) => Ok(Val::Semver(Arc::new(version))),
            None => Err(failed(format!("No Major.Minor.Patch elements found in {text:?}"))),
        },
        "isSemver" => Ok(Val::Bool(parsed().is_some())),
        _ => return None,
    })
}

fn of_quantity<'a>(name: &str, quantity: Quantity) -> Option<Outcome<'a>> {
    let milli = quantity.milli_value();
    Some(match name {
        ".sign" => Ok(Val::Int(match (quantity.is_zero(), quantity.is_negative()) {
            (true, _) => 0,
            (_, true) => -1,
            _ => 1,
        })),
        ".isInteger" => Ok(Val::Bool(milli % 1000 == 0)),
        ".asInteger" if milli % 1000 == 0 => Ok(Val::Int(quantity.value())),
        ".asInteger" => Err(failed("cannot convert value to integer")),
        ".asApproximateFloat" => Ok(Val::Double(quantity.as_f64())),
        _ => return None,
    })
}

fn of_quantities<'a>(name: &str, a: Quantity, b: Quantity) -> Option<Val<'a>> {
    let mut total = a;
    match name {
        ".add" => total += b,
        ".sub" => total -= b,
        _ => return order(name, a.cmp(&b)),
    }
    Some(Val::Quantity(total))
}

/// The format of a name.
fn known(name: &str) -> Option<&'static str> {
    const KNOWN: [&str; 13] = [
        "dns1123Label",
        "dns1123Subdomain",
        "dns1035Label",
        "qualifiedName",
        "dns1123LabelPrefix",
        "dns1123SubdomainPrefix",
        "dns1035LabelPrefix",
        "labelValue",
        "uri",
        "uuid",
        "byte",
        "date",
        "datetime",
    ];
    KNOWN.into_iter().find(|own| *own == name)
}

fn problems(format: &str, text: &str) -> Vec<String> {
    let pattern = |wanted: &str, what: &str| match regex::Regex::new(wanted) {
        Ok(regex) if !regex.is_match(text) => vec![what.to_owned()],
        _ => Vec::new(),
    };
    match format {
        "dns1123Label" => names::dns1123_label(text),
        "dns1123Subdomain" => names::dns1123_subdomain(text),
        "dns1035Label" => names::dns1035_label(text),
        "qualifiedName" => names::qualified_name(text),
        "labelValue" => names::label_value(text),
        "dns1123LabelPrefix" => names::prefix(text, names::dns1123_label),
        "dns1123SubdomainPrefix" => names::prefix(text, names::dns1123_subdomain),
        "dns1035LabelPrefix" => names::prefix(text, names::dns1035_label),
        "uuid" => pattern(
            "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$",
            "does not match the UUID format",
        ),
        "byte" => pattern("^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$", "invalid base64"),
        "date" => pattern("^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$", "invalid date"),
        "datetime" => match crate::value::parse_time(text) {
            Some(_) => Vec::new(),
            None => vec!["invalid datetime".into()],
        },
        _ => pattern("^[A-Za-z][A-Za-z0-9+.-]*:|^/", "invalid URI"),
    }
}
