//! Replacements: values of fields that are copied into others.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::{
    KustomizeError,
    file::{FieldOptions, Replacement, Selector, Target},
    item::{Choice, Item},
    load,
    load::Root,
};

/// Runs the replacements of a layer; some may be in files.
pub(super) fn run(all: &[Replacement], root: &Root, items: &mut [Item]) -> Result<(), KustomizeError> {
    for one in all {
        if one.path.is_empty() {
            apply(one, items)?;
            continue;
        }
        let text = load::inside(root, &one.path)?;
        for document in
            crate::resolve::files::documents(&text, &one.path).map_err(|e| KustomizeError::plain(e.to_string()))?
        {
            let listed = if document.is_array() { document } else { Value::Array(vec![document]) };
            let read: Vec<Replacement> =
                serde_json::from_value(listed).map_err(|e| KustomizeError::plain(e.to_string()))?;
            read.iter().try_for_each(|one| apply(one, items))?;
        }
    }
    Ok(())
}

fn apply(one: &Replacement, items: &mut [Item]) -> Result<(), KustomizeError> {
    let value = match (&one.source, &one.source_value) {
        (Some(_), Some(_)) => {
            return Err(KustomizeError::plain("cannot specify both a source and a sourceValue in a replacement"));
        }
        (None, Some(text)) => Value::from(text.as_str()),
        (Some(_), None) => source(one, items)?,
        (None, None) => {
            return Err(KustomizeError::plain("replacements must specify a source and at least one target"));
        }
    };
    one.targets.iter().try_for_each(|target| into(target, &value, items))
}

fn source(one: &Replacement, items: &[Item]) -> Result<Value, KustomizeError> {
    let Some(source) = &one.source else { return Ok(Value::Null) };
    let selector = Selector {
        group: regex::escape(&source.group),
        version: regex::escape(&source.version),
        kind: regex::escape(&source.kind),
        name: regex::escape(&source.name),
        namespace: regex::escape(&source.namespace),
        ..Selector::default()
    };
    let choice = Choice::new(&selector)?;
    let mut found = Vec::new();
    for item in items {
        if choice.fits(item)? {
            found.push(item);
        }
    }
    let shown = format!(
        "{}.{}.{}/{}.{}",
        or(&source.kind, "[noKind]"),
        or(&source.version, "[noVer]"),
        or(&source.group, "[noGrp]"),
        or(&source.name, "[noName]"),
        or(&source.namespace, "[noNs]")
    );
    let item = match found.as_slice() {
        [] => return Err(KustomizeError::plain(format!("nothing selected by {shown}"))),
        [one] => *one,
        _ => return Err(KustomizeError::plain(format!("multiple matches for selector {shown}"))),
    };
    let path = if source.field_path.is_empty() { "metadata.name" } else { &source.field_path };
    let mut object = item.object.clone();
    let mut value = None;
    at(&mut object, &parts(path), false, &mut |found| value = Some(found.clone()));
    let Some(value) = value else {
        return Err(KustomizeError::plain(format!("fieldPath `{path}` is missing for replacement source {shown}")));
    };
    cut(&value, &source.options)
}

fn or<'a>(text: &'a str, absent: &'a str) -> &'a str {
    if text.is_empty() { absent } else { text }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// The part of a value that the options choose.
fn cut(value: &Value, options: &FieldOptions) -> Result<Value, KustomizeError> {
    if options.delimiter.is_empty() {
        return Ok(value.clone());
    }
    let whole = text(value);
    let pieces: Vec<&str> = whole.split(&options.delimiter).collect();
    let piece = usize::try_from(options.index).ok().and_then(|index| pieces.get(index));
    piece.map(|piece| Value::from(*piece)).ok_or_else(|| {
        KustomizeError::plain(format!("options.index {} is out of bounds for value {whole}", options.index))
    })
}

fn into(target: &Target, value: &Value, items: &mut [Item]) -> Result<(), KustomizeError> {
    let choice = Choice::new(&target.select)?;
    let rejected = target.reject.iter().map(Choice::new).collect::<Result<Vec<_>, _>>()?;
    let default = vec!["metadata.name".to_owned()];
    let paths = if target.field_paths.is_empty() { &default } else { &target.field_paths };
    for item in items.iter_mut() {
        let mut is_rejected = false;
        for one in &rejected {
            is_rejected |= one.fits(item)?;
        }
        if is_rejected || !choice.fits(item)? {
            continue;
        }
        for path in paths {
            let (mut found, mut failed) = (false, None);
            at(&mut item.object, &parts(path), target.options.create, &mut |field| {
                found = true;
                match put(field, value, &target.options) {
                    Ok(new) => *field = new,
                    Err(error) => failed = Some(error),
                }
            });
            if let Some(error) = failed {
                return Err(error);
            }
            if !found && !target.options.create {
                return Err(KustomizeError::plain(format!("unable to find field {path:?} in replacement target")));
            }
        }
    }
    Ok(())
}

/// The new value of a field: the value, or the old one with a piece exchanged.
fn put(field: &Value, value: &Value, options: &FieldOptions) -> Result<Value, KustomizeError> {
    let value = match options.encoding.as_str() {
        "base64" => STANDARD.encode(text(value)).into(),
        _ => value.clone(),
    };
    if options.delimiter.is_empty() {
        // A number put where a text was stays a text.
        return Ok(if field.is_string() { text(&value).into() } else { value });
    }
    let whole = text(field);
    let mut pieces: Vec<String> = whole.split(&options.delimiter).map(ToOwned::to_owned).collect();
    match usize::try_from(options.index) {
        Err(_) => pieces.insert(0, text(&value)),
        Ok(index) if index >= pieces.len() => pieces.push(text(&value)),
        Ok(index) => pieces[index] = text(&value),
    }
    Ok(pieces.join(&options.delimiter).into())
}

/// Parts of `spec.containers.[name=x].image`; `\.` is a dot in a name.
fn parts(path: &str) -> Vec<String> {
    let (mut all, mut part, mut depth) = (Vec::new(), String::new(), 0_u32);
    let mut letters = path.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if letters.peek() == Some(&'.') => part.extend(letters.next()),
            '.' if depth == 0 => all.push(std::mem::take(&mut part)),
            other => {
                depth = match other {
                    '[' => depth + 1,
                    ']' => depth.saturating_sub(1),
                    _ => depth,
                };
                part.push(other);
            }
        }
    }
    all.push(part);
    all.retain(|part| !part.is_empty());
    all
}

/// Calls `visit` with each field that a path means.
fn at(value: &mut Value, path: &[String], create: bool, visit: &mut impl FnMut(&mut Value)) {
    let Some((first, rest)) = path.split_first() else { return visit(value) };
    let condition = first.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    if value.is_null() && create {
        let is_list = condition.is_some() || first == "-";
        *value = if is_list { Value::Array(Vec::new()) } else { Value::Object(Map::new()) };
    }
    match value {
        Value::Object(map) if first == "*" => map.values_mut().for_each(|inner| at(inner, rest, create, visit)),
        Value::Object(map) => {
            if create && !map.contains_key(first) {
                map.insert(first.clone(), Value::Null);
            }
            if let Some(inner) = map.get_mut(first) {
                at(inner, rest, create, visit);
            }
        }
        Value::Array(items) => match condition {
            Some(condition) => {
                let (key, wanted) = condition.split_once('=').unwrap_or(("", condition));
                let fits = |item: &Value| match key {
                    "" => text(item) == wanted,
                    key => item.get(key).is_some_and(|found| text(found) == wanted),
                };
                if create && !key.is_empty() && !items.iter().any(fits) {
                    items.push(Value::Object(Map::from_iter([(key.to_owned(), Value::from(wanted))])));
                }
                items.iter_mut().filter(|item| fits(item)).for_each(|item| at(item, rest, create, visit));
            }
            None if first == "*" => items.iter_mut().for_each(|item| at(item, rest, create, visit)),
            None => {
                let index = if first == "-" { Some(items.len()) } else { first.parse::<usize>().ok() };
                if first == "-" && create {
                    items.push(Value::Null);
                }
                if let Some(item) = index.and_then(|index| items.get_mut(index)) {
                    at(item, rest, create, visit);
                }
            }
        },
        _ => {}
    }
}
