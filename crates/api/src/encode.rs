//! Encoding value trees as `application/vnd.kubernetes.protobuf`, driven by the tables.
//!
//! Fields that are absent are left out, as proto2 has it; Go reads them as their zero.

use base64::{Engine, prelude::BASE64_STANDARD};
use machinery::{
    GroupVersion, GroupVersionKind, duration,
    schema::{SchemaRef, Shape},
    time::{parse, parse_micro},
};
use serde_json::{Map, Value};

use crate::{
    decode::MAGIC,
    protobuf::{Message, MessageField, Wire, is_list_of_its_own, message, message_for},
};

/// Nesting beyond which a value is refused.
const MAX_DEPTH: usize = 100;

/// A value that has no protobuf form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The kind has no message.
    #[error("no kind {0:?} is registered for protobuf")]
    Unregistered(String),
    /// A field does not have the type of its message.
    #[error("field {0:?} has a value of another type")]
    Type(String),
    /// Values nest too deep.
    #[error("exceeded max depth")]
    Depth,
}

type Outcome = Result<(), EncodeError>;

fn varint(mut number: u64, out: &mut Vec<u8>) {
    loop {
        #[allow(clippy::cast_possible_truncation)]
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn key(number: u32, wire_type: u32, out: &mut Vec<u8>) {
    varint(u64::from(number << 3 | wire_type), out);
}

/// A field of bytes.
fn bytes(number: u32, content: &[u8], out: &mut Vec<u8>) {
    key(number, 2, out);
    varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

/// A field of a number.
#[allow(clippy::cast_sign_loss)]
fn integer(number: u32, value: i64, out: &mut Vec<u8>) {
    key(number, 0, out);
    varint(value as u64, out);
}

/// Kind of an object by its `apiVersion` and `kind`.
pub fn kind_of(object: &Value) -> GroupVersionKind {
    let text = |field: &str| object.get(field).and_then(Value::as_str).unwrap_or_default();
    let version = GroupVersion::parse(text("apiVersion")).unwrap_or_default();
    GroupVersionKind::new(version.group, version.version, text("kind"))
}

/// Whether a kind can be encoded.
pub fn is_registered(gvk: &GroupVersionKind) -> bool {
    message_for(gvk).is_some()
}

/// Encodes an object with its envelope.
pub fn encode(object: &Value) -> Result<Vec<u8>, EncodeError> {
    let gvk = kind_of(object);
    let raw = encode_raw(object, &gvk)?;
    let mut out = envelope(&gvk, raw.len());
    out.extend_from_slice(&raw);
    out.extend_from_slice(ENVELOPE_END);
    Ok(out)
}

/// What follows the message in an envelope: no content encoding, no content type.
pub const ENVELOPE_END: &[u8] = &[0x1a, 0, 0x22, 0];

/// The beginning of an envelope, up to its message of `length` bytes.
pub fn envelope(gvk: &GroupVersionKind, length: usize) -> Vec<u8> {
    let mut kind = Vec::new();
    bytes(1, gvk.api_version().as_bytes(), &mut kind);
    bytes(2, gvk.kind.as_bytes(), &mut kind);
    let mut out = MAGIC.to_vec();
    bytes(1, &kind, &mut out);
    key(2, 2, &mut out);
    varint(length as u64, &mut out);
    out
}

/// Encodes the message of an object.
pub fn encode_raw(object: &Value, gvk: &GroupVersionKind) -> Result<Vec<u8>, EncodeError> {
    let message = message_for(gvk).ok_or_else(|| EncodeError::Unregistered(gvk.kind.clone()))?;
    let empty = Map::new();
    let mut out = Vec::with_capacity(1024);
    fields(object.as_object().unwrap_or(&empty), message, crate::api().schema(gvk), &mut out, 0)?;
    Ok(out)
}

/// The beginning of an item of a list, up to its message of `length` bytes.
pub fn item(length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(8);
    key(2, 2, &mut out);
    varint(length as u64, &mut out);
    out
}

/// The metadata of a list, as the first field of its message.
pub fn list_metadata(metadata: &Map<String, Value>) -> Result<Vec<u8>, EncodeError> {
    let meta = message("k8s.io.apimachinery.pkg.apis.meta.v1.ListMeta");
    let mut content = Vec::new();
    if let Some(meta) = meta {
        fields(metadata, meta, None, &mut content, 0)?;
    }
    let mut out = Vec::new();
    bytes(1, &content, &mut out);
    Ok(out)
}

/// A frame of a watch: the length, four bytes big-endian, and a `WatchEvent` with the enveloped object in it.
pub fn watch_frame(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(object.len() + 16);
    bytes(1, object, &mut raw);
    let mut event = Vec::with_capacity(raw.len() + 32);
    bytes(1, kind.as_bytes(), &mut event);
    bytes(2, &raw, &mut event);
    let length = u32::try_from(event.len()).unwrap_or(u32::MAX);
    let mut out = length.to_be_bytes().to_vec();
    out.extend_from_slice(&event);
    out
}

fn fields(
    object: &Map<String, Value>,
    message: &Message,
    schema: Option<SchemaRef<'_>>,
    out: &mut Vec<u8>,
    depth: usize,
) -> Outcome {
    if depth > MAX_DEPTH {
        return Err(EncodeError::Depth);
    }
    let is_struct = schema.is_some_and(|s| matches!(s.shape(), Shape::Struct(_)));
    for field in &message.fields {
        let known = schema.and_then(|s| s.field(&field.name));
        match (&field.wire, known) {
            // Go embeds this struct: its fields stand in the outer object.
            (Wire::Message(name), None) if is_struct && !field.repeated => {
                if let Some(inner) = self::message(name) {
                    let mut content = Vec::new();
                    fields(object, inner, schema, &mut content, depth + 1)?;
                    if !content.is_empty() {
                        bytes(field.number, &content, out);
                    }
                }
            }
            _ => match object.get(&field.name) {
                None | Some(Value::Null) => {}
                Some(value) => put(field, value, known, out, depth)?,
            },
        }
    }
    Ok(())
}

fn put(field: &MessageField, value: &Value, schema: Option<SchemaRef<'_>>, out: &mut Vec<u8>, depth: usize) -> Outcome {
    let wrong = || EncodeError::Type(field.name.clone());
    match &field.wire {
        Wire::Map(inner) => {
            let map = value.as_object().ok_or_else(wrong)?;
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            for name in keys {
                let mut entry = Vec::new();
                bytes(1, name.as_bytes(), &mut entry);
                if !map[name].is_null() {
                    one(2, &field.name, inner, &map[name], schema.and_then(|s| s.field("")), &mut entry, depth)?;
                }
                bytes(field.number, &entry, out);
            }
            Ok(())
        }
        wire if field.repeated => {
            let items = value.as_array().ok_or_else(wrong)?;
            let inner = schema.and_then(SchemaRef::item);
            items.iter().try_for_each(|item| one(field.number, &field.name, wire, item, inner, out, depth))
        }
        wire => one(field.number, &field.name, wire, value, schema, out, depth),
    }
}

fn one(
    number: u32,
    name: &str,
    wire: &Wire,
    value: &Value,
    schema: Option<SchemaRef<'_>>,
    out: &mut Vec<u8>,
    depth: usize,
) -> Outcome {
    let wrong = || EncodeError::Type(name.to_owned());
    match wire {
        Wire::String => bytes(number, value.as_str().ok_or_else(wrong)?.as_bytes(), out),
        Wire::Bytes => {
            let text = value.as_str().ok_or_else(wrong)?;
            bytes(number, &BASE64_STANDARD.decode(text).map_err(|_| wrong())?, out);
        }
        Wire::Bool => integer(number, i64::from(value.as_bool().ok_or_else(wrong)?), out),
        Wire::Int32 | Wire::Int64 | Wire::UInt32 => integer(number, whole(value).ok_or_else(wrong)?, out),
        Wire::UInt64 => {
            key(number, 0, out);
            varint(value.as_u64().ok_or_else(wrong)?, out);
        }
        Wire::Double => {
            key(number, 1, out);
            out.extend_from_slice(&value.as_f64().ok_or_else(wrong)?.to_le_bytes());
        }
        #[allow(clippy::cast_possible_truncation)]
        Wire::Float => {
            key(number, 5, out);
            out.extend_from_slice(&(value.as_f64().ok_or_else(wrong)? as f32).to_le_bytes());
        }
        Wire::Message(message) => {
            let mut content = Vec::new();
            nested(message, value, schema, &mut content, depth).map_err(|error| match error {
                EncodeError::Type(inner) if inner.is_empty() => wrong(),
                other => other,
            })?;
            bytes(number, &content, out);
        }
        Wire::Map(_) => return Err(wrong()),
    }
    Ok(())
}

/// A number that JSON may write with a fraction of zero.
#[allow(clippy::cast_possible_truncation)]
fn whole(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_f64().filter(|number| number.fract() == 0.0).map(|number| number as i64))
}

/// A message, from the form JSON gives its type. The error of a value of another type names no field.
fn nested(name: &str, value: &Value, schema: Option<SchemaRef<'_>>, out: &mut Vec<u8>, depth: usize) -> Outcome {
    let wrong = || EncodeError::Type(String::new());
    let inner = message(name).ok_or_else(wrong)?;
    let text = || value.as_str().ok_or_else(wrong);
    match name.rsplit('.').next().unwrap_or("") {
        "Quantity" => match value {
            Value::Number(number) => bytes(1, number.to_string().as_bytes(), out),
            _ => bytes(1, text()?.as_bytes(), out),
        },
        "Duration" => integer(1, duration::parse(text()?).map_err(|_| wrong())?.0, out),
        "IntOrString" => match whole(value) {
            Some(number) => {
                integer(1, 0, out);
                integer(2, number, out);
            }
            None => {
                integer(1, 1, out);
                bytes(3, text()?.as_bytes(), out);
            }
        },
        kind @ ("Time" | "MicroTime") => {
            let at = if kind == "Time" { parse(text()?) } else { parse_micro(text()?) }.map_err(|_| wrong())?;
            integer(1, at.unix_timestamp(), out);
            integer(2, if kind == "Time" { 0 } else { i64::from(at.nanosecond()) }, out);
        }
        "RawExtension" | "FieldsV1" | "JSON" => bytes(1, value.to_string().as_bytes(), out),
        // Go slices with a message of their own.
        _ if is_list_of_its_own(inner) && value.is_array() => {
            let field = &inner.fields[0];
            put(field, value, schema, out, depth + 1)?;
        }
        _ => fields(value.as_object().ok_or_else(wrong)?, inner, schema, out, depth + 1)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode::decode;

    fn round_trip(object: &Value) {
        let (gvk, back) = decode(&encode(object).expect("encoded")).expect("decoded");
        assert_eq!(gvk, kind_of(object));
        assert_eq!(back, *object);
    }

    #[test]
    fn objects_survive_the_round_trip() {
        round_trip(
            &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "labels": {"b": "1", "a": ""},
            "creationTimestamp": "2026-01-02T03:04:05Z", "managedFields": [{"manager": "m", "operation": "Update",
                "apiVersion": "v1", "time": "2026-01-02T03:04:05Z", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:data": {".": {}}}}]}, "data": {"k": "v"}, "binaryData": {"b": "AAE="}, "immutable": false}),
        );
        round_trip(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "w", "hostPath": {"path": "/"}}],
            "containers": [{"name": "c", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "100m"}}, "args": ["a", ""],
                "readinessProbe": {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 1},
                "livenessProbe": {"tcpSocket": {"port": 8080}, "initialDelaySeconds": 1}}],
            "tolerations": [{"key": "k", "operator": "Exists", "tolerationSeconds": 0}],
            "priority": -5, "terminationGracePeriodSeconds": 0}, "status": {"phase": "Running"}}));
        round_trip(&json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
            "spec": {"holderIdentity": "h", "renewTime": "2026-01-02T03:04:05.000006Z", "leaseDurationSeconds": 15}}));
        round_trip(&json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {},
            "spec": {"token": "t"}, "status": {"authenticated": true, "user": {"username": "u",
                "extra": {"k": ["a", "b"]}}}}));
    }

    #[test]
    fn metadata_kinds_have_messages() {
        let status = json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": "no",
            "reason": "NotFound", "details": {"name": "x", "kind": "pods"}, "code": 404});
        assert!(encode(&status).expect("encoded").starts_with(MAGIC));
        assert!(is_registered(&GroupVersionKind::new("", "v1", "PodList")));
        assert!(is_registered(&GroupVersionKind::new("meta.k8s.io", "v1", "PartialObjectMetadataList")));
        assert!(!is_registered(&GroupVersionKind::new("example.com", "v1", "Thing")));
    }

    #[test]
    fn lists_are_their_items() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}});
        let list = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "7"},
            "items": [{"metadata": {"name": "p"}}]});
        let gvk = GroupVersionKind::new("", "v1", "PodList");
        let raw = encode_raw(&pod, &kind_of(&pod)).expect("an item");
        let metadata = list["metadata"].as_object().expect("metadata");
        let body = [list_metadata(metadata).expect("metadata"), item(raw.len()), raw].concat();
        let whole = [envelope(&gvk, body.len()), body, ENVELOPE_END.to_vec()].concat();
        assert_eq!(whole, encode(&list).expect("encoded"));
    }

    #[test]
    fn values_of_another_type_are_errors() {
        let wrong = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": 5}]}});
        assert_eq!(encode(&wrong), Err(EncodeError::Type("name".into())));
    }

    #[test]
    fn frames_are_delimited() {
        let frame = watch_frame("ADDED", b"x");
        assert_eq!(frame, [0, 0, 0, 12, 10, 5, b'A', b'D', b'D', b'E', b'D', 18, 3, 10, 1, b'x']);
    }
}
