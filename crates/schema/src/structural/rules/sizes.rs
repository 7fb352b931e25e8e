//! How large the values of a schema may be, for what its rules may cost.

use std::{collections::BTreeMap, sync::Arc};

use cel::Size;

use crate::structural::{Additional, Schema, Type as Kind};

/// The largest request, bytes: nothing in one can be larger.
const MAX_REQUEST: u64 = 3 * 1024 * 1024;
/// Sizes in requests, with their quotation marks.
const DATE: u64 = 12;
const LONGEST_TIME: u64 = 32;
const SHORTEST_TIME: u64 = 21;
const LONGEST_DURATION: u64 = 32;
const SHORTEST_DURATION: u64 = 3;

/// Size of the values of a schema, and what the shortest takes in a request, bytes.
pub(in crate::structural) struct Sized {
    pub(in crate::structural) size: Size,
    pub(in crate::structural) least: u64,
}

impl Sized {
    fn text(most: u64, least: u64) -> Self {
        Self { size: Size::Text(most), least }
    }

    fn fixed(least: u64) -> Self {
        Self { size: Size::Fixed, least }
    }

    /// How many values of the schema one request can hold.
    pub(in crate::structural) fn cardinality(&self) -> u64 {
        MAX_REQUEST / (self.least + 1)
    }
}

/// The size of the values of a schema.
pub(in crate::structural) fn sized(schema: &Schema) -> Sized {
    if schema.int_or_string {
        return Sized { size: Size::Text(MAX_REQUEST - 2), least: 1 };
    }
    let limits = schema.limits.as_deref();
    match schema.kind {
        None => Sized { size: Size::Unknown, least: 1 },
        Some(Kind::Boolean) => Sized::fixed(4),
        Some(Kind::Integer | Kind::Number) => Sized::fixed(1),
        Some(Kind::String) => {
            let declared = limits.and_then(|limits| limits.max_length);
            match schema.format() {
                Some("duration") => Sized::text(LONGEST_DURATION, SHORTEST_DURATION),
                Some("date") => Sized::text(DATE, DATE),
                Some("date-time") => Sized::text(LONGEST_TIME, SHORTEST_TIME),
                Some("byte") => Sized::text(declared.unwrap_or(MAX_REQUEST - 2), 2),
                _ => Sized::text(longest_text(schema, declared), 2),
            }
        }
        Some(Kind::Array) => {
            let item = schema.items.as_deref().map_or(Sized { size: Size::Unknown, least: 1 }, sized);
            let declared = limits.and_then(|limits| limits.max_items);
            let most = declared.unwrap_or((MAX_REQUEST - 2) / (item.least + 1));
            Sized { size: Size::List(most, item.size.into()), least: 2 }
        }
        Some(Kind::Object) => object(schema),
    }
}

/// Characters are up to four bytes long.
fn longest_text(schema: &Schema, declared: Option<u64>) -> u64 {
    let choices = schema.limits.as_deref().map_or(&[][..], |limits| &limits.choices);
    let longest = choices.iter().filter_map(|choice| choice.as_str()).map(|text| text.len() as u64).max();
    declared.map(|length| length.saturating_mul(4)).or(longest).unwrap_or(MAX_REQUEST - 2)
}

fn object(schema: &Schema) -> Sized {
    if let Additional::Of(values) = &schema.additional {
        let values = sized(values);
        let declared = schema.limits.as_deref().and_then(|limits| limits.max_properties);
        let most = declared.unwrap_or((MAX_REQUEST - 2) / (values.least + 6));
        return Sized { size: Size::Map(most, values.size.into()), least: 2 };
    }
    if let Additional::Any = schema.additional {
        return Sized { size: Size::Map((MAX_REQUEST - 2) / 7, Arc::new(Size::Unknown)), least: 2 };
    }
    let required =
        |name: &str| schema.limits.as_deref().is_some_and(|limits| limits.required.iter().any(|own| &**own == name));
    let mut least = 2;
    let mut fields = BTreeMap::new();
    for (name, property) in &schema.properties {
        let own = sized(property);
        if required(name) && property.default.is_none() {
            least += name.len() as u64 + own.least + 4;
        }
        fields.insert(cel::escape(name).unwrap_or_default(), own.size);
    }
    Sized { size: Size::Object(fields.into()), least }
}
