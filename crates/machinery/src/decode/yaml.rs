//! YAML into value trees, by the rules of the YAML 1.1 reader that Kubernetes uses.

use std::{borrow::Cow, collections::HashMap};

use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Map, Number, Value};

use super::{DecodeError, FieldProblems, MAX_DEPTH};

/// Nodes (and 32-byte pieces of text) that anchors and aliases may copy in one document.
const MAX_COPIED: usize = 250_000;

pub(super) fn decode(bytes: &[u8]) -> Result<(Value, FieldProblems), DecodeError> {
    let fail = |e: String| DecodeError(format!("error converting YAML to JSON: yaml: {e}"));
    let text = std::str::from_utf8(bytes).map_err(|_| fail("invalid UTF-8".into()))?;
    let mut options = Options::default();
    options.emit_comments = false;
    let parser = Parser::new_from_str_with_options(text, options);
    let mut reader = Reader { parser, anchors: HashMap::new(), budget: MAX_COPIED, problems: FieldProblems::default() };
    let value = reader.document().map_err(fail)?;
    Ok((value, reader.problems))
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// Finished anchored values with their weight.
    anchors: HashMap<usize, (Value, usize)>,
    budget: usize,
    problems: FieldProblems,
}

/// A value, whether it is the plain scalar `<<`, and how much a copy of it weighs.
struct Node {
    value: Value,
    is_merge_key: bool,
    weight: usize,
}

fn at(span: &Span, text: &str) -> String {
    format!("line {}: {text}", span.start.line())
}

fn scan_error(error: &ScanError) -> String {
    format!("line {}: {}", error.marker().line(), error.info())
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, String> {
        loop {
            match self.parser.next() {
                None => return Ok(None),
                Some(Err(e)) => return Err(scan_error(&e)),
                Some(Ok((Event::StreamStart | Event::DocumentStart(..) | Event::Anchor(..), _))) => {}
                Some(Ok(found)) => return Ok(Some(found)),
            }
        }
    }

    fn document(&mut self) -> Result<Value, String> {
        match self.next()? {
            None | Some((Event::StreamEnd | Event::DocumentEnd, _)) => Ok(Value::Null),
            Some((event, span)) => self.node(event, &span, 0).map(|n| n.value),
        }
    }

    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, String> {
        if depth > MAX_DEPTH {
            return Err(at(span, "exceeded max depth"));
        }
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, tag) => (anchor, scalar(&text, style, tag).map_err(|e| at(span, &e))?),
            Event::SequenceStart(_, anchor, _) => (anchor, self.sequence(depth)?),
            Event::MappingStart(_, anchor, _) => (anchor, self.mapping(depth)?),
            Event::Alias(id) => return self.alias(id, span),
            _ => return Err(at(span, "did not find expected node content")),
        };
        if anchor != 0 {
            self.charge(node.weight, span)?;
            self.anchors.insert(anchor, (node.value.clone(), node.weight));
        }
        Ok(node)
    }

    fn charge(&mut self, weight: usize, span: &Span) -> Result<(), String> {
        let left = self.budget.checked_sub(weight);
        self.budget = left.ok_or_else(|| at(span, "document contains excessive aliasing"))?;
        Ok(())
    }

    fn alias(&mut self, id: usize, span: &Span) -> Result<Node, String> {
        let Some((_, weight)) = self.anchors.get(&id) else {
            return Err(at(span, "anchor value contains itself or is not defined"));
        };
        let weight = *weight;
        self.charge(weight, span)?;
        let value = self.anchors.get(&id).map(|(v, _)| v.clone()).unwrap_or_default();
        Ok(Node { value, is_merge_key: false, weight })
    }

    fn sequence(&mut self, depth: usize) -> Result<Node, String> {
        let mut list = Vec::new();
        let mut weight = 1_usize;
        loop {
            match self.next()? {
                None => return Err("unexpected end of document".into()),
                Some((Event::SequenceEnd, _)) => break,
                Some((event, span)) => {
                    let item = self.node(event, &span, depth + 1)?;
                    weight = weight.saturating_add(item.weight);
                    list.push(item.value);
                }
            }
        }
        Ok(Node { value: Value::Array(list), is_merge_key: false, weight })
    }

    fn mapping(&mut self, depth: usize) -> Result<Node, String> {
        let mut map = Map::new();
        let mut merged = Map::new();
        let mut weight = 1_usize;
        loop {
            let Some((event, span)) = self.next()? else { return Err("unexpected end of document".into()) };
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let key = self.node(event, &span, depth + 1)?;
            let Some((event, value_span)) = self.next()? else { return Err("unexpected end of document".into()) };
            let value = self.node(event, &value_span, depth + 1)?;
            weight = weight.saturating_add(key.weight).saturating_add(value.weight);
            if key.is_merge_key {
                merge(&mut merged, value.value).map_err(|e| at(&value_span, e))?;
                continue;
            }
            let name = key_text(key.value).map_err(|e| at(&span, e))?;
            if map.contains_key(&name) {
                let quoted = crate::field::go_quote(&name);
                self.problems.add_yaml(at(&span, &format!("key {quoted} already set in map")));
            }
            map.insert(name, value.value);
        }
        for (key, value) in merged {
            map.entry(key).or_insert(value);
        }
        Ok(Node { value: Value::Object(map), is_merge_key: false, weight })
    }
}

/// `<<: *base` or `<<: [*a, *b]`: earlier values win.
fn merge(into: &mut Map<String, Value>, value: Value) -> Result<(), &'static str> {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                into.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(list) if list.iter().all(Value::is_object) => {
            list.into_iter().try_for_each(|item| merge(into, item))
        }
        _ => Err("map merge requires map or sequence of maps as the value"),
    }
}

fn key_text(key: Value) -> Result<String, &'static str> {
    match key {
        Value::String(text) => Ok(text),
        Value::Bool(b) => Ok(b.to_string()),
        Value::Number(n) => Ok(n.to_string()),
        _ => Err("invalid map key"),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<Cow<'_, Tag>>) -> Result<Node, String> {
    let named = tag.map(|t| t.to_string());
    let is_text = match named.as_deref() {
        None => style != ScalarStyle::Plain,
        Some(tag) => !["int", "float", "bool", "null"].iter().any(|known| tag.ends_with(known)),
    };
    let value = if is_text { Value::String(text.to_owned()) } else { resolve(text)? };
    let is_merge_key = style == ScalarStyle::Plain && text == "<<";
    Ok(Node { value, is_merge_key, weight: 1 + text.len() / 32 })
}

/// What a plain scalar means.
fn resolve(text: &str) -> Result<Value, String> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf"
        | "-.INF" => return Err(format!("json: unsupported value: {text}")),
        _ if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) => {
            number(text).map_or_else(|| Value::String(text.to_owned()), Value::Number)
        }
        _ => Value::String(text.to_owned()),
    })
}

fn number(text: &str) -> Option<Number> {
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    let (negative, digits) = match plain.as_bytes().first()? {
        b'-' => (true, &plain[1..]),
        b'+' => (false, &plain[1..]),
        _ => (false, plain.as_str()),
    };
    if let Some(magnitude) = integer(digits) {
        return if negative {
            i64::try_from(-i128::from(magnitude)).ok().map(Number::from)
        } else {
            Some(Number::from(magnitude))
        };
    }
    if !is_float(digits) {
        return None;
    }
    let value: f64 = plain.parse().ok()?;
    #[allow(clippy::cast_possible_truncation)]
    if value.fract() == 0.0 && value.abs() < 9.0e15 {
        return Some(Number::from(value as i64));
    }
    Number::from_f64(value)
}

/// Unsigned integer with the prefixes `0x`, `0b`, `0o` and `0` (octal).
fn integer(digits: &str) -> Option<u64> {
    let all = |radix| digits.chars().all(|c: char| c.is_digit(radix));
    let prefixed = [("0x", 16), ("0X", 16), ("0b", 2), ("0B", 2), ("0o", 8), ("0O", 8)]
        .into_iter()
        .find_map(|(prefix, radix)| digits.strip_prefix(prefix).map(|rest| (rest, radix)));
    match prefixed {
        Some((rest, radix)) if rest.starts_with(|c: char| c.is_digit(radix)) => u64::from_str_radix(rest, radix).ok(),
        Some(_) => None,
        None if digits.len() > 1 && digits.starts_with('0') && all(8) => u64::from_str_radix(digits, 8).ok(),
        None if digits == "0" || (!digits.is_empty() && !digits.starts_with('0') && all(10)) => digits.parse().ok(),
        None => None,
    }
}

/// `^(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$`
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent_fits = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['-', '+']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty()) && exponent_fits
}
