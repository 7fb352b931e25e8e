//! Values against a schema. Parts of an object that an update leaves as they were are not looked at again.

use machinery::field::{ErrorList, Path, go_quote};
use serde_json::{Map, Number, Value};

use super::{
    Limits, ListType, Schema, Type, formats,
    lists::{duplicates, identity},
};

/// Most errors reported of one object.
const MAX_ERRORS: usize = 100;

/// Checks an object; `old` is its former state on updates.
pub fn validate(object: &Value, old: Option<&Value>, schema: &Schema) -> ErrorList {
    let mut walk = Walk { errors: ErrorList::default(), matched: 0 };
    walk.value(object, old, schema, &Path::default());
    let mut errors = walk.errors;
    let mut left = MAX_ERRORS;
    errors.retain(|_| {
        let keep = left > 0;
        left = left.saturating_sub(1);
        keep
    });
    errors
}

struct Walk {
    errors: ErrorList,
    /// Checks passed through, by which the alternative that fits best is told.
    matched: usize,
}

/// The type of a value as texts name it.
fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_integral(number: &Number) -> bool {
    !number.is_f64() || number.as_f64().is_some_and(|f| f.fract() == 0.0)
}

fn fits(kind: Type, value: &Value) -> bool {
    match (kind, value) {
        (Type::Object, Value::Object(_))
        | (Type::Array, Value::Array(_))
        | (Type::String, Value::String(_))
        | (Type::Number, Value::Number(_))
        | (Type::Boolean, Value::Bool(_)) => true,
        (Type::Integer, Value::Number(number)) => is_integral(number),
        _ => false,
    }
}

/// A bound as texts show it: without a fraction that is none.
fn show(number: f64) -> String {
    if number.fract() == 0.0 && number.abs() < 1e15 { format!("{number:.0}") } else { format!("{number}") }
}

impl Walk {
    fn value(&mut self, value: &Value, old: Option<&Value>, schema: &Schema, path: &Path) {
        if old == Some(value) {
            return;
        }
        self.matched += 1;
        self.check_type(value, schema, path);
        if value.is_null() && schema.nullable {
            return;
        }
        if let Some(limits) = &schema.limits {
            self.alternatives(value, old, limits, path);
            self.limits(value, limits, path);
        }
        match value {
            Value::Object(map) => self.fields(map, old, schema, path),
            Value::Array(list) => self.items(list, old, schema, path),
            _ => {}
        }
    }

    fn check_type(&mut self, value: &Value, schema: &Schema, path: &Path) {
        let (fits, expected) = match (schema.int_or_string, schema.kind) {
            (true, _) => (value.is_string() || fits(Type::Integer, value), "integer,string"),
            (false, Some(kind)) => (fits(kind, value), kind.as_str()),
            (false, None) => return,
        };
        if fits || (value.is_null() && schema.nullable) {
            return;
        }
        let found = found(value);
        let text = format!("{path} in body must be of type {expected}: {}", go_quote(found));
        self.errors.type_invalid(path, &Value::from(found), &text);
    }

    fn invalid(&mut self, path: &Path, value: &Value, text: &str) {
        self.errors.invalid(path, value, &format!("{path} in body {text}"));
    }

    fn limits(&mut self, value: &Value, limits: &Limits, path: &Path) {
        match value {
            Value::String(text) => self.text(value, text, limits, path),
            Value::Number(number) => self.number(value, number, limits, path),
            Value::Array(list) => {
                let count = list.len() as u64;
                if let Some(min) = limits.min_items.filter(|min| count < *min) {
                    self.invalid(path, &Value::from(count), &format!("should have at least {min} items"));
                }
                if let Some(max) = limits.max_items.filter(|max| count > *max) {
                    self.errors.too_many(path, list.len(), usize::try_from(max).unwrap_or(usize::MAX));
                }
            }
            _ => {}
        }
        if !limits.choices.is_empty() && !limits.choices.contains(value) {
            let texts: Vec<String> = limits
                .choices
                .iter()
                .map(|choice| choice.as_str().map_or_else(|| choice.to_string(), str::to_owned))
                .collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            self.errors.not_supported(path, value, &texts);
        }
        if let Value::Object(map) = value {
            let count = map.len() as u64;
            if let Some(min) = limits.min_properties.filter(|min| count < *min) {
                self.invalid(path, &Value::from(count), &format!("should have at least {min} properties"));
            }
            if let Some(max) = limits.max_properties.filter(|max| count > *max) {
                self.errors.too_many(path, map.len(), usize::try_from(max).unwrap_or(usize::MAX));
            }
            for name in limits.required.iter().filter(|name| !map.contains_key(&***name)) {
                self.errors.required(&path.child(name), "");
            }
        }
    }

    fn text(&mut self, value: &Value, text: &str, limits: &Limits, path: &Path) {
        let length = || text.chars().count() as u64;
        if let Some(max) = limits.max_length.filter(|max| length() > *max) {
            self.errors.too_long(path, usize::try_from(max).unwrap_or(usize::MAX));
        }
        if let Some(min) = limits.min_length.filter(|min| length() < *min) {
            self.invalid(path, value, &format!("should be at least {min} chars long"));
        }
        if let Some(pattern) = limits.pattern.as_ref().filter(|p| !p.matches(text)) {
            self.invalid(path, value, &format!("should match '{}'", pattern.text));
        }
        if let Some(format) = limits.format.as_deref().filter(|f| !formats::fits(f, text)) {
            let detail = format!("{path} in body must be of type {format}: {}", go_quote(text));
            self.errors.type_invalid(path, value, &detail);
        }
    }

    fn number(&mut self, value: &Value, number: &Number, limits: &Limits, path: &Path) {
        let Some(own) = number.as_f64() else { return };
        if let Some(of) = limits.multiple_of.filter(|of| *of != 0.0 && ((own / of) - (own / of).round()).abs() > 1e-9) {
            self.invalid(path, value, &format!("should be a multiple of {}", show(of)));
        }
        if let Some(max) = limits.maximum.filter(|m| own > m.value || (m.exclusive && own >= m.value)) {
            let or_equal = if max.exclusive { "" } else { " or equal to" };
            self.invalid(path, value, &format!("should be less than{or_equal} {}", show(max.value)));
        }
        if let Some(min) = limits.minimum.filter(|m| own < m.value || (m.exclusive && own <= m.value)) {
            let or_equal = if min.exclusive { "" } else { " or equal to" };
            self.invalid(path, value, &format!("should be greater than{or_equal} {}", show(min.value)));
        }
    }

    fn fields(&mut self, map: &Map<String, Value>, old: Option<&Value>, schema: &Schema, path: &Path) {
        for (name, inner) in map {
            let Some(property) = schema.field(name) else { continue };
            let before = old.and_then(|o| o.get(name));
            self.value(inner, before, property, &path.child(name));
        }
    }

    fn items(&mut self, list: &[Value], old: Option<&Value>, schema: &Schema, path: &Path) {
        let before = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if !had_duplicates(before, schema) {
            duplicates(list, schema, path, &mut self.errors);
        }
        let Some(items) = &schema.items else { return };
        for (at, item) in list.iter().enumerate() {
            let former = former_item(item, before, schema);
            self.value(item, former, items, &path.index(at));
        }
    }

    /// Errors of one alternative, and how far it got.
    fn attempt(value: &Value, old: Option<&Value>, schema: &Schema, path: &Path) -> Self {
        let mut walk = Self { errors: ErrorList::default(), matched: 0 };
        walk.value(value, old, schema, path);
        walk
    }

    fn whole(&mut self, path: &Path, text: &str) {
        let detail = format!("{} {text}", go_quote(path.as_str()));
        self.errors.invalid(&Path::new("<nil>"), &Value::from(""), &detail);
    }

    fn alternatives(&mut self, value: &Value, old: Option<&Value>, limits: &Limits, path: &Path) {
        let try_all = |schemas: &[Schema]| -> Vec<Self> {
            schemas.iter().map(|schema| Self::attempt(value, old, schema, path)).collect()
        };
        if !limits.any_of.is_empty() {
            let tried = try_all(&limits.any_of);
            if tried.iter().all(|t| !t.errors.is_empty()) {
                self.whole(path, "must validate at least one schema (anyOf)");
                self.take_best(tried);
            }
        }
        if !limits.one_of.is_empty() {
            let tried = try_all(&limits.one_of);
            match tried.iter().filter(|t| t.errors.is_empty()).count() {
                1 => {}
                0 => {
                    self.whole(path, "must validate one and only one schema (oneOf). Found none valid");
                    self.take_best(tried);
                }
                many => {
                    let text =
                        format!("must validate one and only one schema (oneOf). Found {many} valid alternatives");
                    self.whole(path, &text);
                }
            }
        }
        let tried = try_all(&limits.all_of);
        let valid = tried.iter().filter(|t| t.errors.is_empty()).count();
        if valid < tried.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            tried.into_iter().for_each(|t| self.errors.append(t.errors));
            self.whole(path, &format!("must validate all the schemas (allOf){none}"));
        }
        if let Some(not) = &limits.not
            && Self::attempt(value, None, not, path).errors.is_empty()
        {
            self.whole(path, "must not validate the schema (not)");
        }
    }

    fn take_best(&mut self, tried: Vec<Self>) {
        let best = tried.into_iter().reduce(|best, next| if next.matched > best.matched { next } else { best });
        if let Some(best) = best {
            self.errors.append(best.errors);
        }
    }
}

fn had_duplicates(list: &[Value], schema: &Schema) -> bool {
    let mut errors = ErrorList::default();
    duplicates(list, schema, &Path::default(), &mut errors);
    !errors.is_empty()
}

/// The former state of a list item: items of maps are told by their keys, of other lists nothing is known.
fn former_item<'a>(item: &Value, before: &'a [Value], schema: &Schema) -> Option<&'a Value> {
    if before.is_empty() || !matches!(schema.list, ListType::Map(_)) {
        return None;
    }
    let items = schema.items.as_deref();
    let own = identity(item, &schema.list, items)?;
    before.iter().find(|other| identity(other, &schema.list, items).as_ref() == Some(&own))
}
