//! Text: the language's own functions, the string library, regular expressions, base64, formatting.

use base64::{Engine, prelude::BASE64_STANDARD};
use regex::{Regex, RegexBuilder};

use super::failed;
use crate::{
    eval::{Budget, EvalError, Outcome},
    value::Val,
};

/// Memory that a pattern may take.
const PATTERN_SIZE: usize = 1 << 20;
/// Longest text that a replacement may make, bytes.
const MAX_TEXT: usize = 1 << 22;

fn pattern(text: &str) -> Result<Regex, EvalError> {
    let built = RegexBuilder::new(text).size_limit(PATTERN_SIZE).dfa_size_limit(PATTERN_SIZE).build();
    built.map_err(|error| failed(format!("error parsing regexp: {error}")))
}

/// A value as text, as `string()` makes it.
pub(crate) fn show(value: &Val<'_>) -> Option<String> {
    Some(match value {
        Val::Null => "null".into(),
        Val::Bool(value) => value.to_string(),
        Val::Int(value) => value.to_string(),
        Val::Uint(value) => value.to_string(),
        Val::Double(value) => double(*value),
        Val::String(text) => text.to_string(),
        Val::Text(text) => (*text).to_owned(),
        Val::Bytes(bytes) => String::from_utf8(bytes.to_vec()).ok()?,
        Val::Timestamp(at) => super::dates::show_time(*at),
        Val::Duration(nanos) => format!("{}s", seconds(*nanos)),
        Val::Type(name) => name.to_string(),
        Val::Quantity(quantity) => quantity.to_string(),
        Val::Ip(ip) => ip.to_string(),
        Val::Cidr(cidr) => cidr.to_string(),
        Val::Semver(version) => super::versions::show(version),
        _ => return None,
    })
}

fn double(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    if value != 0.0 && (value.abs() >= 1e21 || value.abs() < 1e-6) {
        let text = format!("{value:e}");
        return match text.split_once('e') {
            Some((number, power)) => {
                let (sign, digits) = power.strip_prefix('-').map_or(("+", power), |digits| ("-", digits));
                format!("{number}e{sign}{digits:0>2}")
            }
            None => text,
        };
    }
    value.to_string()
}

/// Nanoseconds as seconds without needless digits.
fn seconds(nanos: i64) -> String {
    let (whole, rest) = (nanos / 1_000_000_000, (nanos % 1_000_000_000).abs());
    let sign = if nanos < 0 && whole == 0 { "-" } else { "" };
    if rest == 0 {
        return format!("{sign}{whole}");
    }
    format!("{sign}{whole}.{}", format!("{rest:09}").trim_end_matches('0'))
}

fn place(value: &Val<'_>) -> Result<usize, EvalError> {
    match value {
        Val::Int(at) => usize::try_from(*at).map_err(|_| failed(format!("index out of range: {at}"))),
        _ => Err(EvalError::no_overload()),
    }
}

fn substring<'a>(text: &str, from: usize, to: Option<usize>) -> Outcome<'a> {
    let chars: Vec<char> = text.chars().collect();
    let to = to.unwrap_or(chars.len());
    match chars.get(from..to) {
        Some(part) => Ok(Val::text(part.iter().collect::<String>())),
        None if from > to => Err(failed(format!("invalid substring range. start: {from}, end: {to}"))),
        None => Err(failed(format!("index out of range: {}", if from > chars.len() { from } else { to }))),
    }
}

/// Characters before a byte.
fn chars_before(text: &str, byte: usize) -> Val<'static> {
    Val::Int(i64::try_from(text.get(..byte).unwrap_or("").chars().count()).unwrap_or(i64::MAX))
}

fn index_of<'a>(text: &str, part: &str, from: Option<usize>, last: bool) -> Outcome<'a> {
    let start = |chars: usize| text.char_indices().map(|(at, _)| at).chain([text.len()]).nth(chars);
    let found = match (last, from) {
        (false, None) => text.find(part),
        (true, None) => text.rfind(part),
        (_, Some(chars)) => {
            let Some(byte) = start(chars) else { return Err(failed(format!("index out of range: {chars}"))) };
            if last {
                let end = (byte + part.len()).min(text.len());
                text.get(..end).and_then(|head| head.rfind(part))
            } else {
                text.get(byte..).and_then(|tail| tail.find(part)).map(|at| at + byte)
            }
        }
    };
    Ok(found.map_or(Val::Int(-1), |byte| chars_before(text, byte)))
}

fn times(count: i64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

fn replace<'a>(text: &str, from: &str, to: &str, count: i64, budget: &mut Budget) -> Outcome<'a> {
    let found = if from.is_empty() { text.chars().count() + 1 } else { text.matches(from).count() };
    let size = text.len().saturating_add(found.saturating_mul(to.len()));
    if size > MAX_TEXT {
        return Err(EvalError::OutOfBudget);
    }
    budget.spend(size / 10)?;
    Ok(Val::text(text.replacen(from, to, times(count))))
}

fn split<'a>(text: &str, by: &str, limit: i64) -> Val<'a> {
    let all: Vec<String> = match (limit, by.is_empty()) {
        (0, _) => Vec::new(),
        (_, true) => text.chars().map(String::from).collect(),
        (limit, false) => text.splitn(times(limit), by).map(str::to_owned).collect(),
    };
    Val::list(all.into_iter().map(Val::text).collect())
}

pub(super) fn call<'a>(name: &str, args: &[Val<'a>], budget: &mut Budget) -> Option<Outcome<'a>> {
    let texts: Vec<&str> = args.iter().map_while(Val::as_str).collect();
    let text = texts.first().copied();
    let ok = |text: String| Some(Ok(Val::text(text)));
    let yes = |value: bool| Some(Ok(Val::Bool(value)));
    match (name, texts.as_slice(), args.len()) {
        (".contains", [text, part], 2) => return yes(text.contains(part)),
        (".startsWith", [text, part], 2) => return yes(text.starts_with(part)),
        (".endsWith", [text, part], 2) => return yes(text.ends_with(part)),
        (".matches" | "matches", [text, wanted], 2) => {
            return Some(pattern(wanted).map(|regex| Val::Bool(regex.is_match(text))));
        }
        (".find", [text, wanted], 2) => {
            let found = pattern(wanted).map(|regex| regex.find(text).map_or("", |m| m.as_str()).to_owned());
            return Some(found.map(Val::text));
        }
        (".findAll", [text, wanted], 2 | 3) => {
            let limit = match args.get(2) {
                None => usize::MAX,
                Some(Val::Int(limit)) => times(*limit),
                Some(_) => return None,
            };
            return Some(
                pattern(wanted)
                    .map(|regex| Val::list(regex.find_iter(text).take(limit).map(|m| Val::text(m.as_str())).collect())),
            );
        }
        ("jsonpatch.escapeKey", [text], 1) => return ok(text.replace('~', "~0").replace('/', "~1")),
        (".lowerAscii", [text], 1) => return ok(text.to_ascii_lowercase()),
        (".upperAscii", [text], 1) => return ok(text.to_ascii_uppercase()),
        (".trim", [text], 1) => return ok(text.trim().to_owned()),
        (".reverse", [text], 1) => return ok(text.chars().rev().collect()),
        (".indexOf", [text, part], 2) => return Some(index_of(text, part, None, false)),
        (".lastIndexOf", [text, part], 2) => return Some(index_of(text, part, None, true)),
        (".indexOf" | ".lastIndexOf", [text, part], 3) => {
            let last = name == ".lastIndexOf";
            return Some(place(&args[2]).and_then(|from| index_of(text, part, Some(from), last)));
        }
        (".replace", [text, from, to], 3) => return Some(replace(text, from, to, -1, budget)),
        (".replace", [text, from, to], 4) => {
            let Val::Int(count) = args[3] else { return None };
            return Some(replace(text, from, to, count, budget));
        }
        (".split", [text, by], 2) => return Some(Ok(split(text, by, -1))),
        (".split", [text, by], 3) => {
            let Val::Int(limit) = args[2] else { return None };
            return Some(Ok(split(text, by, limit)));
        }
        ("strings.quote", [text], 1) => return ok(machinery::field::go_quote(text)),
        ("base64.decode", [text], 1) => {
            let decoded = BASE64_STANDARD.decode(text);
            return Some(decoded.map(|b| Val::Bytes(b.into())).map_err(|_| failed("illegal base64 data")));
        }
        _ => {}
    }
    match (name, text, args) {
        (".charAt", Some(text), [_, at]) => Some(place(at).and_then(|at| {
            let length = text.chars().count();
            match text.chars().nth(at) {
                Some(c) => Ok(Val::text(c.to_string())),
                None if at == length => Ok(Val::text("")),
                None => Err(failed(format!("index out of range: {at}"))),
            }
        })),
        (".substring", Some(text), [_, from]) => Some(place(from).and_then(|from| substring(text, from, None))),
        (".substring", Some(text), [_, from, to]) => {
            Some(place(from).and_then(|from| substring(text, from, Some(place(to)?))))
        }
        (".format", Some(text), [_, list]) => Some(format(text, &list.items()?)),
        ("base64.encode", None, [Val::Bytes(bytes)]) => ok(BASE64_STANDARD.encode(bytes)),
        (".join", None, [list]) | (".join", None, [list, _]) => {
            let by = args.get(1).map_or(Some(""), Val::as_str)?;
            let items = list.items()?;
            let parts: Option<Vec<&str>> = items.iter().map(Val::as_str).collect();
            ok(parts?.join(by))
        }
        _ => None,
    }
}

/// `"%s is %d".format([...])`.
fn format<'a>(template: &str, args: &[Val<'_>]) -> Outcome<'a> {
    let mut out = String::new();
    let mut args = args.iter();
    let mut rest = template.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut precision = String::new();
        let mut verb = rest.next();
        if verb == Some('.') {
            verb = rest.next();
            while let Some(digit) = verb.filter(char::is_ascii_digit) {
                precision.push(digit);
                verb = rest.next();
            }
        }
        let precision: usize = precision.parse().unwrap_or(6).min(100);
        if verb == Some('%') {
            out.push('%');
            continue;
        }
        let Some(verb) = verb else {
            return Err(failed("could not parse formatting clause: unexpected end of string"));
        };
        let Some(value) = args.next() else { return Err(failed("index out of range: too few arguments")) };
        out.push_str(&clause(verb, precision, value)?);
        if out.len() > MAX_TEXT {
            return Err(EvalError::OutOfBudget);
        }
    }
    Ok(Val::text(out))
}

fn clause(verb: char, precision: usize, value: &Val<'_>) -> Result<String, EvalError> {
    let number = match value {
        Val::Int(n) => Some(*n as f64),
        Val::Uint(n) => Some(*n as f64),
        Val::Double(n) => Some(*n),
        _ => None,
    };
    let text = match (verb, value, number) {
        ('s', value, _) => Some(shown(value)),
        ('d', Val::Int(_) | Val::Uint(_), _) => show(value),
        ('f', _, Some(n)) => Some(format!("{n:.precision$}")),
        ('e', _, Some(n)) => Some(format!("{n:.precision$e}")),
        ('b', Val::Int(n), _) => Some(format!("{n:b}")),
        ('b', Val::Uint(n), _) => Some(format!("{n:b}")),
        ('b', Val::Bool(b), _) => Some(u8::from(*b).to_string()),
        ('o', Val::Int(n), _) => Some(format!("{n:o}")),
        ('o', Val::Uint(n), _) => Some(format!("{n:o}")),
        ('x', Val::Int(n), _) => Some(format!("{n:x}")),
        ('x', Val::Uint(n), _) => Some(format!("{n:x}")),
        ('X', Val::Int(n), _) => Some(format!("{n:X}")),
        ('X', Val::Uint(n), _) => Some(format!("{n:X}")),
        ('x' | 'X', value, _) => {
            let bytes = match value {
                Val::Bytes(bytes) => bytes.to_vec(),
                value => value.as_str().map(|t| t.as_bytes().to_vec()).unwrap_or_default(),
            };
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            Some(if verb == 'X' { hex.to_uppercase() } else { hex })
        }
        _ => None,
    };
    text.ok_or_else(|| failed(format!("error during formatting: unrecognized or unfit formatting clause \"{verb}\"")))
}

/// A value as `%s` shows it.
fn shown(value: &Val<'_>) -> String {
    if let Some(items) = value.items() {
        return format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", "));
    }
    if let Some(entries) = value.entries() {
        let mut texts: Vec<String> = entries.iter().map(|(k, v)| format!("{}: {}", shown(k), shown(v))).collect();
        texts.sort();
        return format!("{{{}}}", texts.join(", "));
    }
    show(value).unwrap_or_default()
}
