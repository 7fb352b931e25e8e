//! Protobuf messages of the API: field numbers and types for a codec.
//!
//! `data/protobuf.txt` holds a line `message <full name>` per message, followed by a line `<number> <field> <type>`
//! per field. A `*` before the type marks a repeated field, a `.` a message of the same package.

use std::{collections::HashMap, sync::LazyLock};

use machinery::GroupVersionKind;

/// Type of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Wire {
    String,
    Bytes,
    Bool,
    Int32,
    Int64,
    UInt32,
    UInt64,
    Double,
    Float,
    /// Message of this full name.
    Message(String),
    /// Map from text.
    Map(Box<Wire>),
}

/// A field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageField {
    /// Name, as in JSON; embedded messages whose fields JSON inlines have a name of their own.
    pub name: String,
    /// Number.
    pub number: u32,
    /// Whether it is repeated.
    pub repeated: bool,
    /// Type.
    pub wire: Wire,
}

/// A message, its fields by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Name, without its package.
    pub name: String,
    /// Fields, in the order of their numbers.
    pub fields: Vec<MessageField>,
}

impl Message {
    /// The field of a number.
    pub fn by_number(&self, number: u32) -> Option<&MessageField> {
        self.fields.binary_search_by_key(&number, |f| f.number).ok().and_then(|at| self.fields.get(at))
    }

    /// The field of a name.
    pub fn by_name(&self, name: &str) -> Option<&MessageField> {
        self.fields.iter().find(|f| f.name == name)
    }
}

static MESSAGES: LazyLock<HashMap<String, Message>> = LazyLock::new(|| load(include_str!("../data/protobuf.txt")));

/// The message of a full name, such as `k8s.io.api.core.v1.Pod`.
pub fn message(name: &str) -> Option<&'static Message> {
    MESSAGES.get(name)
}

/// The message that an OpenAPI definition (`io.k8s.api.core.v1.Pod`) has.
pub fn message_of(definition: &str) -> Option<&'static Message> {
    message(&name_of(definition)?)
}

/// Full name of the message that an OpenAPI definition has.
pub fn name_of(definition: &str) -> Option<String> {
    definition.strip_prefix("io.k8s.").map(|rest| format!("k8s.io.{}", rest.replace('-', "_")))
}

/// Package of the kinds that are about other kinds.
const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1";

/// The message of a kind: that of its definition, of a list of such, or of `meta.k8s.io`, whose kinds are served in every
/// group version.
pub fn message_for(gvk: &GroupVersionKind) -> Option<&'static Message> {
    let definition = |kind: &str| {
        let gvk = GroupVersionKind::new(gvk.group.clone(), gvk.version.clone(), kind);
        crate::api().definition(&gvk).and_then(name_of)
    };
    if let Some(name) = definition(&gvk.kind) {
        return message(&name);
    }
    let list = gvk.kind.strip_suffix("List").and_then(definition).and_then(|name| message(&format!("{name}List")));
    list.or_else(|| message(&format!("{META}.{}", gvk.kind)))
}

/// Whether a message stands for a Go slice.
pub(crate) fn is_list_of_its_own(message: &Message) -> bool {
    matches!(message.fields.as_slice(), [only] if only.name == "items" && only.repeated)
}

fn load(text: &str) -> HashMap<String, Message> {
    let mut messages = HashMap::with_capacity(1200);
    let mut current: Option<(String, Message)> = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("message ") {
            messages.extend(current.take());
            let short = name.rsplit('.').next().unwrap_or(name).to_owned();
            current = Some((name.to_owned(), Message { name: short, fields: Vec::new() }));
        } else if let Some((name, message)) = &mut current {
            message.fields.extend(field(line, name.rsplit_once('.').map_or("", |(package, _)| package)));
        }
    }
    messages.extend(current);
    messages
}

fn field(line: &str, package: &str) -> Option<MessageField> {
    let mut words = line.split(' ');
    let (number, name, notation) = (words.next()?, words.next()?, words.next()?);
    let (repeated, notation) = match notation.strip_prefix('*') {
        Some(rest) => (true, rest),
        None => (false, notation),
    };
    Some(MessageField { name: name.to_owned(), number: number.parse().ok()?, repeated, wire: wire(notation, package) })
}

fn wire(notation: &str, package: &str) -> Wire {
    if let Some((_, value)) = notation.strip_prefix("map<").and_then(|m| m.strip_suffix('>')?.split_once(',')) {
        return Wire::Map(Box::new(wire(value, package)));
    }
    match notation {
        "string" => Wire::String,
        "bytes" => Wire::Bytes,
        "bool" => Wire::Bool,
        "int32" => Wire::Int32,
        "int64" => Wire::Int64,
        "uint32" => Wire::UInt32,
        "uint64" => Wire::UInt64,
        "double" => Wire::Double,
        "float" => Wire::Float,
        name => Wire::Message(name.strip_prefix('.').map_or_else(|| name.to_owned(), |n| format!("{package}.{n}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_complete() {
        let mut missing = Vec::new();
        for message in MESSAGES.values() {
            assert!(message.fields.is_sorted_by_key(|f| f.number));
            for field in &message.fields {
                let wire = match &field.wire {
                    Wire::Map(value) => value,
                    other => other,
                };
                if let Wire::Message(name) = wire
                    && !MESSAGES.contains_key(name)
                {
                    missing.push(name.clone());
                }
            }
        }
        assert_eq!(missing, Vec::<String>::new());
        assert!(MESSAGES.len() > 1000);
    }

    #[test]
    fn every_stored_kind_has_a_message_but_those_that_are_json() {
        for kind in crate::api().kinds().iter().filter(|k| k.is_stored()) {
            let definition = crate::api().definition(&kind.gvk).expect("definition");
            assert!(message_of(definition).is_some(), "{definition}");
        }
        let volume = message("k8s.io.api.core.v1.Volume").expect("volume");
        assert_eq!(volume.by_number(2).map(|f| f.name.as_str()), Some("volumeSource"));
        let limits = message("k8s.io.api.core.v1.ResourceRequirements").and_then(|m| m.by_name("limits"));
        let quantity = Wire::Message("k8s.io.apimachinery.pkg.api.resource.Quantity".into());
        assert_eq!(limits.map(|f| &f.wire), Some(&Wire::Map(Box::new(quantity))));
    }
}
