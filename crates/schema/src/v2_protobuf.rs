//! The OpenAPI v2 document in the protobuf form of gnostic's `openapi.v2.Document`, which kubectl before 1.29 asks for.
//! Field numbers are those of gnostic's OpenAPIv2.proto.

use serde_json::{Map, Value};

/// Media type that clients ask for.
pub const MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// Content-Type of the form; the media type asked for is not one that clients can parse.
pub const CONTENT_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A message under construction.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap_or(0));
    }

    fn bytes(mut self, number: u64, bytes: &[u8]) -> Self {
        self.varint(number << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(self, number: u64, text: &str) -> Self {
        if text.is_empty() { self } else { self.bytes(number, text.as_bytes()) }
    }

    fn message(self, number: u64, inner: Self) -> Self {
        self.bytes(number, &inner.0)
    }

    fn named(self, number: u64, name: &str, value: Self) -> Self {
        self.message(number, Self::default().text(1, name).message(2, value))
    }

    fn flag(mut self, number: u64, value: bool) -> Self {
        if value {
            self.varint(number << 3);
            self.varint(1);
        }
        self
    }

    /// `x-` members as `NamedAny`.
    fn extensions(self, number: u64, map: &Map<String, Value>) -> Self {
        map.iter().filter(|(key, _)| key.starts_with("x-")).fold(self, |message, (key, value)| {
            message.named(number, key, Self::default().text(2, &format!("{value}\n")))
        })
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

fn members<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.get(key).and_then(Value::as_object).into_iter().flatten()
}

fn texts<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    value.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// Encodes a document as [`crate::v2::document`] makes it.
pub fn encode(document: &Value) -> Vec<u8> {
    let info = document.get("info").unwrap_or(&Value::Null);
    let info = Message::default().text(1, text(info, "title")).text(2, text(info, "version"));
    let paths =
        members(document, "paths").fold(Message::default(), |all, (path, item)| all.named(2, path, path_item(item)));
    let definitions =
        members(document, "definitions").fold(Message::default(), |all, (name, s)| all.named(1, name, schema(s)));
    Message::default().text(1, text(document, "swagger")).message(2, info).message(8, paths).message(9, definitions).0
}

fn path_item(item: &Value) -> Message {
    let methods = [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)];
    methods.iter().fold(Message::default(), |message, (method, number)| match item.get(*method) {
        Some(one) => message.message(*number, operation(one)),
        None => message,
    })
}

fn operation(operation: &Value) -> Message {
    let mut message = Message::default();
    for produces in texts(operation, "produces") {
        message = message.text(6, produces);
    }
    for consumes in texts(operation, "consumes") {
        message = message.text(7, consumes);
    }
    for parameter in operation.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        let query = Message::default()
            .text(2, text(parameter, "in"))
            .text(4, text(parameter, "name"))
            .text(6, text(parameter, "type"));
        let parameter = Message::default().message(2, Message::default().message(3, query));
        message = message.message(8, Message::default().message(1, parameter));
    }
    let responses = members(operation, "responses").fold(Message::default(), |all, (code, response)| {
        let mut body = Message::default().text(1, text(response, "description"));
        if let Some(inner) = response.get("schema") {
            body = body.message(2, Message::default().message(1, schema(inner)));
        }
        all.named(1, code, Message::default().message(1, body))
    });
    message = message.message(9, responses);
    operation.as_object().into_iter().fold(message, |message, map| message.extensions(13, map))
}

fn schema(value: &Value) -> Message {
    let mut message = Message::default()
        .text(1, text(value, "$ref"))
        .text(2, text(value, "format"))
        .text(4, text(value, "description"));
    if let Some(default) = value.get("default") {
        message = message.message(5, Message::default().text(2, &format!("{default}\n")));
    }
    message = message.flag(16, value.get("uniqueItems").and_then(Value::as_bool).unwrap_or(false));
    for required in texts(value, "required") {
        message = message.text(19, required);
    }
    if let Some(inner) = value.get("additionalProperties").filter(|v| v.is_object()) {
        message = message.message(21, Message::default().message(1, schema(inner)));
    }
    if !text(value, "type").is_empty() {
        message = message.message(22, Message::default().text(1, text(value, "type")));
    }
    if let Some(items) = value.get("items") {
        message = message.message(23, Message::default().message(1, schema(items)));
    }
    if value.get("properties").is_some() {
        let all = members(value, "properties").fold(Message::default(), |all, (name, s)| all.named(1, name, schema(s)));
        message = message.message(25, all);
    }
    value.as_object().into_iter().fold(message, |message, map| message.extensions(31, map))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages_nest_by_length() {
        let bytes =
            encode(&json!({"swagger": "2.0", "info": {"title": "t"}, "definitions": {"a": {"type": "string"}}}));
        assert!(bytes.starts_with(b"\x0a\x032.0\x12\x03\x0a\x01t"));
        assert_eq!(bytes.windows(2).filter(|w| *w == b"\xb2\x01").count(), 1);
        assert!(bytes.ends_with(b"\xb2\x01\x08\x0a\x06string"));
    }
}
