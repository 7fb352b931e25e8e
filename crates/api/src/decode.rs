//! Decoding `application/vnd.kubernetes.protobuf` into value trees, driven by the tables.
//!
//! The format is the magic `k8s\0` and a proto2 `Unknown{typeMeta, raw}`. Go writes fields that are no pointers even
//! when they are zero; such zeros say nothing and are left out, as JSON's `omitempty` does.

use machinery::{
    GroupVersion, GroupVersionKind,
    schema::{SchemaRef, Shape},
    time::{format, format_micro},
};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::protobuf::{Message, MessageField, Wire, is_list_of_its_own, message, message_for};

/// What every encoded object starts with.
pub const MAGIC: &[u8; 4] = b"k8s\0";
/// Nesting beyond which a message is refused.
const MAX_DEPTH: usize = 100;

/// Bytes that are no encoded object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The magic is missing.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    /// The bytes end too early, or hold a field of an impossible type.
    #[error("unexpected EOF")]
    Malformed,
    /// Messages nest too deep.
    #[error("exceeded max depth")]
    Depth,
    /// The kind has no protobuf form.
    #[error("no kind {0:?} is registered for protobuf")]
    Unregistered(String),
}

type Outcome<T> = Result<T, ProtobufError>;

/// Pointers in Go, so that their zero is a value of its own. Those that are pointers in some types only are named with
/// their type.
const POINTERS: &[&str] = &[
    "activeDeadlineSeconds",
    "allocateLoadBalancerNodePorts",
    "allowPrivilegeEscalation",
    "allowVolumeExpansion",
    "TypedLocalObjectReference.apiGroup",
    "TypedObjectReference.apiGroup",
    "attachRequired",
    "automountServiceAccountToken",
    "averageUtilization",
    "backoffLimit",
    "backoffLimitPerIndex",
    "blockOwnerDeletion",
    "completions",
    "OwnerReference.controller",
    "currentCPUUtilizationPercentage",
    "currentVolumeAttributesClassName",
    "defaultMode",
    "deletionGracePeriodSeconds",
    "enableServiceLinks",
    "expirationSeconds",
    "failedJobsHistoryLimit",
    "fsGroup",
    "CSIVolumeSource.fsType",
    "gracePeriodSeconds",
    "LeaseSpec.holderIdentity",
    "hostUsers",
    "hostnameOverride",
    "immutable",
    "ingressClassName",
    "leaseDurationSeconds",
    "leaseTransitions",
    "lendablePercent",
    "loadBalancerClass",
    "manualSelector",
    "maxFailedIndexes",
    "minDomains",
    "minReplicas",
    "mode",
    "EndpointPort.name",
    "IngressClassParametersReference.namespace",
    "nominalConcurrencyShares",
    "HorizontalPodAutoscalerStatus.observedGeneration",
    "optional",
    "orphanDependents",
    "parallelism",
    "RollingUpdateStatefulSetStrategy.partition",
    "ServiceReference.path",
    "podInfoOnMount",
    "LeaseSpec.preferredHolder",
    "priority",
    "privileged",
    "progressDeadlineSeconds",
    "CSIVolumeSource.readOnly",
    "readOnlyRootFilesystem",
    "EndpointConditions.ready",
    "DeploymentSpec.replicas",
    "ReplicaSetSpec.replicas",
    "ReplicationControllerSpec.replicas",
    "StatefulSetSpec.replicas",
    "requiresRepublish",
    "revisionHistoryLimit",
    "runAsGroup",
    "runAsNonRoot",
    "runAsUser",
    "runtimeClassName",
    "IngressClassParametersReference.scope",
    "seLinuxMount",
    "GRPCAction.service",
    "serving",
    "setHostnameAsFQDN",
    "shareProcessNamespace",
    "stabilizationWindowSeconds",
    "started",
    "startingDeadlineSeconds",
    "storageCapacity",
    "PersistentVolumeClaimSpec.storageClassName",
    "successfulJobsHistoryLimit",
    "suspend",
    "targetCPUUtilizationPercentage",
    "terminating",
    "terminationGracePeriodSeconds",
    "ClientIPConfig.timeoutSeconds",
    "ListOptions.timeoutSeconds",
    "MutatingWebhook.timeoutSeconds",
    "ValidatingWebhook.timeoutSeconds",
    "tolerationSeconds",
    "ttlSecondsAfterFinished",
    "HostPathVolumeSource.type",
    "PodDNSConfigOption.value",
    "volumeAttributesClassName",
];

/// One field on the wire.
enum Item<'a> {
    Varint(u64),
    Fixed(u64),
    Bytes(&'a [u8]),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Outcome<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(ProtobufError::Malformed)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ProtobufError::Malformed)
    }

    fn take(&mut self, length: usize) -> Outcome<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(ProtobufError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn fixed(&mut self, length: usize) -> Outcome<u64> {
        let mut bytes = [0; 8];
        bytes[..length].copy_from_slice(self.take(length)?);
        Ok(u64::from_le_bytes(bytes))
    }

    fn next(&mut self) -> Outcome<Option<(u32, Item<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| ProtobufError::Malformed)?;
        let item = match key & 7 {
            0 => Item::Varint(self.varint()?),
            1 => Item::Fixed(self.fixed(8)?),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ProtobufError::Malformed)?;
                Item::Bytes(self.take(length)?)
            }
            5 => Item::Fixed(self.fixed(4)?),
            _ => return Err(ProtobufError::Malformed),
        };
        Ok(Some((number, item)))
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Decodes an object: its kind as the envelope names it, and its fields with `apiVersion` and `kind` set.
pub fn decode(bytes: &[u8]) -> Outcome<(GroupVersionKind, Value)> {
    let mut envelope = Reader(bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?);
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    while let Some((number, item)) = envelope.next()? {
        match (number, item) {
            (1, Item::Bytes(meta)) => {
                let mut meta = Reader(meta);
                while let Some((number, item)) = meta.next()? {
                    match (number, item) {
                        (1, Item::Bytes(b)) => api_version = text(b),
                        (2, Item::Bytes(b)) => kind = text(b),
                        _ => {}
                    }
                }
            }
            (2, Item::Bytes(b)) => raw = b,
            _ => {}
        }
    }
    let version = GroupVersion::parse(&api_version).unwrap_or_default();
    let gvk = GroupVersionKind::new(version.group, version.version, kind);
    let unregistered = || ProtobufError::Unregistered(gvk.kind.clone());
    let message = message_for(&gvk).ok_or_else(unregistered)?;
    let mut object = Map::new();
    fields(raw, message, crate::api().schema(&gvk), &mut object, 0)?;
    object.insert("apiVersion".into(), json!(api_version));
    object.insert("kind".into(), json!(gvk.kind));
    Ok((gvk, Value::Object(object)))
}

fn fields(
    bytes: &[u8],
    message: &Message,
    schema: Option<SchemaRef<'_>>,
    out: &mut Map<String, Value>,
    depth: usize,
) -> Outcome<()> {
    if depth > MAX_DEPTH {
        return Err(ProtobufError::Depth);
    }
    let mut reader = Reader(bytes);
    while let Some((number, item)) = reader.next()? {
        if let Some(field) = message.by_number(number) {
            put((message, field), item, schema, out, depth)?;
        }
    }
    Ok(())
}

/// Whether Go tells a zero of this field from none.
fn is_pointer(message: &Message, field: &str) -> bool {
    POINTERS.iter().any(|pointer| match pointer.split_once('.') {
        Some((owner, name)) => owner == message.name && name == field,
        None => *pointer == field,
    })
}

fn put(
    (owner, field): (&Message, &MessageField),
    item: Item<'_>,
    schema: Option<SchemaRef<'_>>,
    out: &mut Map<String, Value>,
    depth: usize,
) -> Outcome<()> {
    let known = schema.and_then(|s| s.field(&field.name));
    let is_embedding = is_struct(schema);
    match (&field.wire, item) {
        (Wire::Map(value), Item::Bytes(bytes)) => {
            let entries = out.entry(field.name.clone()).or_insert_with(|| json!({}));
            let (key, value) = entry(bytes, value, known, depth)?;
            if let Some(map) = entries.as_object_mut() {
                map.insert(key, value);
            }
            Ok(())
        }
        // Go embeds this struct: its fields stand in the outer object.
        (Wire::Message(name), Item::Bytes(bytes)) if known.is_none() && is_embedding && !field.repeated => {
            message(name).map_or(Ok(()), |inner| fields(bytes, inner, schema, out, depth + 1))
        }
        (wire, item) if field.repeated => packed(field, wire, item, known, out, depth),
        (wire, item) => {
            let value = one(wire, item, known, depth)?;
            let required = schema.and_then(|s| s.field_fact(&field.name)).is_some_and(|f| f.required);
            // Go leaves out no struct, though JSON may show one as a number or a text.
            let is_struct = matches!(wire, Wire::Message(_));
            let said = required || is_struct || !is_zero(&value) || is_pointer(owner, &field.name);
            if said && !value.is_null() {
                out.insert(field.name.clone(), value);
            }
            Ok(())
        }
    }
}

fn packed(
    field: &MessageField,
    wire: &Wire,
    item: Item<'_>,
    known: Option<SchemaRef<'_>>,
    out: &mut Map<String, Value>,
    depth: usize,
) -> Outcome<()> {
    let inner = known.and_then(SchemaRef::item);
    let mut values = Vec::new();
    let scalar = matches!(wire, Wire::Bool | Wire::Int32 | Wire::Int64 | Wire::UInt32 | Wire::UInt64);
    match item {
        Item::Bytes(bytes) if scalar => {
            let mut reader = Reader(bytes);
            while !reader.0.is_empty() {
                let number = reader.varint()?;
                values.push(one(wire, Item::Varint(number), inner, depth)?);
            }
        }
        item => values.push(one(wire, item, inner, depth)?),
    }
    if let Some(list) = out.entry(field.name.clone()).or_insert_with(|| json!([])).as_array_mut() {
        list.extend(values);
    }
    Ok(())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// An entry of a map.
fn entry(bytes: &[u8], wire: &Wire, schema: Option<SchemaRef<'_>>, depth: usize) -> Outcome<(String, Value)> {
    let mut reader = Reader(bytes);
    let (mut key, mut value) = (String::new(), None);
    let inner = schema.and_then(|s| s.field(""));
    while let Some((number, item)) = reader.next()? {
        match (number, item) {
            (1, Item::Bytes(b)) => key = text(b),
            (2, item) => value = Some(one(wire, item, inner, depth)?),
            _ => {}
        }
    }
    let zero = || match wire {
        Wire::Message(_) => json!({}),
        _ => json!(""),
    };
    Ok((key, value.unwrap_or_else(zero)))
}

fn one(wire: &Wire, item: Item<'_>, schema: Option<SchemaRef<'_>>, depth: usize) -> Outcome<Value> {
    Ok(match (wire, item) {
        (Wire::String, Item::Bytes(b)) => json!(text(b)),
        (Wire::Bytes, Item::Bytes(b)) => json!(base64(b)),
        (Wire::Bool, Item::Varint(n)) => json!(n != 0),
        #[allow(clippy::cast_possible_wrap, clippy::cast_possible_truncation)]
        (Wire::Int32, Item::Varint(n)) => json!(n as i64 as i32),
        #[allow(clippy::cast_possible_wrap)]
        (Wire::Int64, Item::Varint(n)) => json!(n as i64),
        (Wire::UInt32 | Wire::UInt64, Item::Varint(n)) => json!(n),
        (Wire::Double, Item::Fixed(bits)) => json!(f64::from_bits(bits)),
        #[allow(clippy::cast_possible_truncation)]
        (Wire::Float, Item::Fixed(bits)) => json!(f32::from_bits(bits as u32)),
        (Wire::Message(name), Item::Bytes(b)) => return nested(name, b, schema, depth),
        _ => return Err(ProtobufError::Malformed),
    })
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Whether JSON has an object with fields.
fn is_struct(schema: Option<SchemaRef<'_>>) -> bool {
    schema.is_some_and(|s| matches!(s.shape(), Shape::Struct(_)))
}

/// A message, in the form JSON gives its type.
fn nested(name: &str, bytes: &[u8], schema: Option<SchemaRef<'_>>, depth: usize) -> Outcome<Value> {
    let Some(inner) = message(name) else { return Ok(Value::Null) };
    let mut map = Map::new();
    let short = name.rsplit('.').next().unwrap_or("");
    let plain = |map: &mut Map<String, Value>| fields(bytes, inner, None, map, depth + 1);
    match short {
        "Quantity" | "Time" | "MicroTime" | "IntOrString" | "RawExtension" | "FieldsV1" | "Duration" | "JSON" => {
            plain(&mut map)?;
            Ok(special(short, &map))
        }
        // Go slices with a message of their own.
        _ if is_list_of_its_own(inner) && !is_struct(schema) => {
            plain(&mut map)?;
            Ok(map.remove("items").unwrap_or_else(|| json!([])))
        }
        _ => {
            fields(bytes, inner, schema, &mut map, depth + 1)?;
            Ok(Value::Object(map))
        }
    }
}

fn special(name: &str, map: &Map<String, Value>) -> Value {
    let number = |key: &str| map.get(key).and_then(Value::as_i64).unwrap_or(0);
    match name {
        "Quantity" => map.get("string").cloned().unwrap_or_else(|| json!("0")),
        "Duration" => json!(machinery::duration::format(machinery::duration::GoDuration(number("duration")))),
        "IntOrString" if number("type") == 0 => json!(number("intVal")),
        "IntOrString" => map.get("strVal").cloned().unwrap_or_else(|| json!("")),
        "Time" | "MicroTime" => {
            // The zero time is how Go writes an absent one.
            if map.is_empty() {
                return Value::Null;
            }
            let Ok(at) = OffsetDateTime::from_unix_timestamp(number("seconds")) else { return Value::Null };
            let at = at + time::Duration::nanoseconds(number("nanos"));
            json!(if name == "Time" { format(at) } else { format_micro(at) })
        }
        _ => {
            use base64::Engine;
            let raw = map.get("raw").or_else(|| map.get("Raw")).and_then(Value::as_str).unwrap_or("");
            let bytes = base64::engine::general_purpose::STANDARD.decode(raw).unwrap_or_default();
            serde_json::from_slice(&bytes).unwrap_or(Value::Null)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u64, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![u8::try_from(number << 3 | 2).expect("small"), u8::try_from(bytes.len()).expect("short")];
        out.extend_from_slice(bytes);
        out
    }

    fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &meta), field(2, raw)].concat()
    }

    #[test]
    fn config_maps() {
        let metadata = [field(1, b"cm"), field(2, b""), field(8, b"")].concat();
        let data = [field(1, b"a"), field(2, b"b")].concat();
        let raw = [field(1, &metadata), field(2, &data)].concat();
        let (gvk, object) = decode(&envelope("v1", "ConfigMap", &raw)).expect("object");
        assert_eq!(gvk.kind, "ConfigMap");
        assert_eq!(
            object,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": {"a": "b"}})
        );
    }

    #[test]
    fn embedded_structs_are_inlined() {
        // Pod{spec{volumes{name, volumeSource{emptyDir{}}}}}
        let volume = [field(1, b"v"), field(2, &field(2, b""))].concat();
        let raw = field(2, &field(1, &volume));
        let (_, object) = decode(&envelope("v1", "Pod", &raw)).expect("object");
        assert_eq!(object["spec"]["volumes"], json!([{"name": "v", "emptyDir": {}}]));
    }

    #[test]
    fn hostile_bytes_are_refused() {
        assert_eq!(decode(b"{}"), Err(ProtobufError::Magic));
        assert_eq!(decode(b"k8s\0\x0a\xff"), Err(ProtobufError::Malformed));
        assert!(matches!(decode(&envelope("v1", "Nothing", b"")), Err(ProtobufError::Unregistered(_))));
    }
}
