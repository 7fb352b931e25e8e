//! Checks that fields of many kinds share.

use std::{collections::HashSet, net::IpAddr};

use machinery::{
    field::{ErrorList, Path},
    names,
    quantity::Quantity,
};
use serde_json::{Value, json};

use super::read::{list, number, present, same, text};

pub(super) const IMMUTABLE: &str = "field is immutable";
pub(super) const NEGATIVE: &str = "must be greater than or equal to 0";
pub(super) const NOT_POSITIVE: &str = "must be greater than zero";
const PORT_TEXT: &str = "must be between 1 and 65535, inclusive";
const MAX_ID: i64 = i32::MAX as i64;
const CONDITION_REASON_LIMIT: usize = 1024;
const CONDITION_MESSAGE_LIMIT: usize = 32_768;

/// Checks that a set field has one of `values`.
pub(super) fn enumeration(value: &Value, field: &str, values: &[&str], path: &Path, errors: &mut ErrorList) {
    let have = text(value, field);
    if !have.is_empty() && !values.contains(&have) {
        errors.not_supported(&path.child(field), &json!(have), values);
    }
}

/// Checks that a field is set to one of `values`.
pub(super) fn choice(value: &Value, field: &str, values: &[&str], path: &Path, errors: &mut ErrorList) {
    if text(value, field).is_empty() {
        errors.required(&path.child(field), "");
    } else {
        enumeration(value, field, values, path, errors);
    }
}

/// Checks that text fields are there; answers whether all are.
pub(super) fn required(value: &Value, fields: &[&str], path: &Path, errors: &mut ErrorList) -> bool {
    let missing: Vec<&&str> = fields.iter().filter(|field| text(value, field).is_empty()).collect();
    missing.iter().for_each(|field| errors.required(&path.child(field), ""));
    missing.is_empty()
}

/// Checks a number that may not be negative.
pub(super) fn non_negative(value: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
    if let Some(have) = number(value, field).filter(|n| *n < 0) {
        errors.invalid(&path.child(field), &json!(have), NEGATIVE);
    }
}

/// Checks that a number, if set, lies between two others.
pub(super) fn within(value: &Value, field: &str, low: i64, high: i64, path: &Path, errors: &mut ErrorList) {
    if let Some(have) = number(value, field).filter(|n| !(low..=high).contains(n)) {
        let text = format!("must be between {low} and {high}, inclusive");
        errors.invalid(&path.child(field), &json!(have), &text);
    }
}

/// Checks user and group ids.
pub(super) fn ids(value: &Value, fields: &[&str], path: &Path, errors: &mut ErrorList) {
    fields.iter().for_each(|field| within(value, field, 0, MAX_ID, path, errors));
}

/// Checks a port number.
pub(super) fn port_number(have: i64, path: &Path, errors: &mut ErrorList) {
    if !(1..=65535).contains(&have) {
        errors.invalid(path, &json!(have), PORT_TEXT);
    }
}

/// Checks a port given by number or name.
pub(super) fn port_or_name(value: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    match value {
        Some(Value::String(name)) => errors.invalid_all(path, &json!(name), names::port_name(name)),
        other => port_number(other.and_then(Value::as_i64).unwrap_or(0), path, errors),
    }
}

/// A quantity in any of its JSON forms.
pub(super) fn quantity(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => Quantity::parse(text).ok(),
        Value::Number(number) => Quantity::parse(&number.to_string()).ok(),
        _ => None,
    }
}

/// Checks a file mode.
pub(super) fn mode(value: &Value, field: &str, path: &Path, errors: &mut ErrorList) {
    if let Some(have) = number(value, field).filter(|n| !(0..=0o777).contains(n)) {
        let text = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.invalid(&path.child(field), &json!(have), text);
    }
}

/// Paths inside a volume: relative, never upwards.
pub(super) fn descending(text: &str, path: &Path, errors: &mut ErrorList) {
    if text.starts_with('/') {
        errors.invalid(path, &json!(text), "must be a relative path");
    }
    no_backsteps(text, path, errors);
}

/// Paths without `..`.
pub(super) fn no_backsteps(text: &str, path: &Path, errors: &mut ErrorList) {
    if text.split('/').any(|part| part == "..") {
        errors.invalid(path, &json!(text), "must not contain '..'");
    }
}

/// Paths of projected files: descending, and no name that starts in two dots.
pub(super) fn unreserved(text: &str, path: &Path, errors: &mut ErrorList) {
    descending(text, path, errors);
    if text.starts_with("..") && !text.starts_with("../") {
        errors.invalid(path, &json!(text), "must not start with '..'");
    }
}

/// Checks labels of a map, all errors at its path.
pub(super) fn labels(value: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    for (key, value) in value.and_then(Value::as_object).into_iter().flatten() {
        errors.invalid_all(path, &json!(key), names::qualified_name(key));
        let text = value.as_str().unwrap_or("");
        errors.invalid_all(path, &json!(text), names::label_value(text));
    }
}

/// Checks a label selector, if there is one.
pub(super) fn selector(value: Option<&Value>, path: &Path, errors: &mut ErrorList) {
    let Some(value) = value.filter(|v| !v.is_null()) else { return };
    labels(value.get("matchLabels"), &path.child("matchLabels"), errors);
    for (at, expression) in list(value, "matchExpressions").iter().enumerate() {
        let path = path.child("matchExpressions").index(at);
        let values = list(expression, "values");
        match text(expression, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                let text = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.required(&path.child("values"), text);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.forbidden(&path.child("values"), text);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&path.child("operator"), &json!(other), "not a valid selector operator"),
        }
        let key = text(expression, "key");
        errors.invalid_all(&path.child("key"), &json!(key), names::qualified_name(key));
        label_values(values, &path.child("values"), errors);
    }
}

/// Checks a list of label values.
pub(super) fn label_values(values: &[Value], path: &Path, errors: &mut ErrorList) {
    for (at, value) in values.iter().enumerate() {
        let text = value.as_str().unwrap_or("");
        errors.invalid_all(&path.index(at), &json!(text), names::label_value(text));
    }
}

/// Checks that fields of an object keep their value.
pub(super) fn immutable(new: &Value, old: &Value, fields: &[&str], path: &Path, errors: &mut ErrorList) {
    for field in fields {
        if !same(field, new.get(*field), old.get(*field)) {
            let value = new.get(*field).unwrap_or(&Value::Null);
            errors.invalid(&path.child(field), value, IMMUTABLE);
        }
    }
}

/// An address as lenient parsers read it: leading zeros of IPv4 parts are dropped.
pub(crate) fn lenient_ip(text: &str) -> Option<IpAddr> {
    let trimmed = || {
        let parts = text.split('.').map(|part| match part.trim_start_matches('0') {
            "" if !part.is_empty() => "0",
            rest => rest,
        });
        parts.collect::<Vec<_>>().join(".")
    };
    let plain = text.parse().ok();
    plain.or_else(|| if text.contains(':') { None } else { trimmed().parse().ok() })
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(six) if six.to_ipv4_mapped().is_some())
}

/// Checks an IP address; answers it.
pub(super) fn ip(text: &str, path: &Path, errors: &mut ErrorList) -> Option<IpAddr> {
    let value = json!(text);
    let Some(address) = lenient_ip(text) else {
        errors.invalid(path, &value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
        return None;
    };
    if text.parse::<IpAddr>().is_err() {
        errors.invalid(path, &value, "must not have leading 0s");
    }
    if is_mapped(address) {
        errors.invalid(path, &value, "must not be an IPv4-mapped IPv6 address");
    }
    Some(address)
}

/// The address and prefix length of a CIDR.
pub(crate) fn lenient_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address = lenient_ip(address)?;
    if length.is_empty() || length.len() > 4 || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length: u8 = length.parse().ok()?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

/// Checks a CIDR; answers its network.
pub(super) fn cidr(text: &str, path: &Path, errors: &mut ErrorList) -> Option<ipnet::IpNet> {
    let value = json!(text);
    let net = lenient_cidr(text).and_then(|(address, length)| ipnet::IpNet::new(address, length).ok());
    let Some(net) = net else {
        errors.invalid(path, &value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
        return None;
    };
    let (address, length) = text.split_once('/').unwrap_or((text, ""));
    if address.parse::<IpAddr>().is_err() || (length.len() > 1 && length.starts_with('0')) {
        errors.invalid(path, &value, "must not have leading 0s in IP or prefix length");
    }
    if is_mapped(net.addr()) {
        errors.invalid(path, &value, "must not have an IPv4-mapped IPv6 address");
    }
    if net.trunc().addr() != net.addr() {
        errors.invalid(path, &value, "must not have bits set beyond the prefix length");
    }
    Some(net)
}

/// Checks an address that traffic is sent to from outside its host.
pub(super) fn endpoint_ip(text: &str, path: &Path, errors: &mut ErrorList) {
    let Some(address) = lenient_ip(text) else { return };
    let value = json!(text);
    if address.is_unspecified() {
        errors.invalid(path, &value, &format!("may not be unspecified ({text})"));
    }
    if address.is_loopback() {
        errors.invalid(path, &value, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (local, multicast) = match address {
        IpAddr::V4(four) => (four.is_link_local(), four.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(six) => (six.segments()[0] & 0xffc0 == 0xfe80, six.segments()[0] & 0xff0f == 0xff02),
    };
    if local {
        errors.invalid(path, &value, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        errors.invalid(path, &value, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// Checks a list of `metav1.Condition`.
pub(super) fn conditions(conditions: &[Value], path: &Path, errors: &mut ErrorList) {
    let mut seen = HashSet::new();
    for (at, condition) in conditions.iter().enumerate() {
        let path = path.index(at);
        let kind = text(condition, "type");
        if !kind.is_empty() && !seen.insert(kind) {
            errors.duplicate(&path.child("type"), &json!(kind));
        }
        one_condition(condition, &path, errors);
    }
}

fn one_condition(condition: &Value, path: &Path, errors: &mut ErrorList) {
    let kind = text(condition, "type");
    errors.invalid_all(&path.child("type"), &json!(kind), names::qualified_name(kind));
    let statuses = ["False", "True", "Unknown"];
    if !statuses.contains(&text(condition, "status")) {
        errors.not_supported(&path.child("status"), &json!(text(condition, "status")), &statuses);
    }
    if let Some(generation) = number(condition, "observedGeneration").filter(|n| *n < 0) {
        let path = path.child("observedGeneration");
        errors.invalid(&path, &json!(generation), "must be greater than or equal to zero");
    }
    if present(condition, "lastTransitionTime").is_none() {
        errors.required(&path.child("lastTransitionTime"), "must be set");
    }
    let reason = text(condition, "reason");
    if reason.is_empty() {
        errors.required(&path.child("reason"), "must be set");
    } else {
        if !is_reason(reason) {
            let text = "a condition reason must start with alphabetic character, optionally followed by a string of \
                        alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. \
                        'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex \
                        used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";
            errors.invalid(&path.child("reason"), &json!(reason), text);
        }
        if reason.len() > CONDITION_REASON_LIMIT {
            errors.too_long(&path.child("reason"), CONDITION_REASON_LIMIT);
        }
    }
    if text(condition, "message").len() > CONDITION_MESSAGE_LIMIT {
        errors.too_long(&path.child("message"), CONDITION_MESSAGE_LIMIT);
    }
}

fn is_reason(reason: &str) -> bool {
    let bytes = reason.as_bytes();
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || matches!(b, b',' | b':'))
}

/// Checks an absolute number or a percentage; answers its value whatever it is a part of.
pub(super) fn share(value: &Value, field: &str, at_most_all: bool, path: &Path, errors: &mut ErrorList) -> i64 {
    use machinery::intstr::IntOrString;
    let path = path.child(field);
    let Some(raw) = present(value, field) else { return 0 };
    match IntOrString::from_value(raw) {
        Some(IntOrString::Int(n)) => {
            if n < 0 {
                errors.invalid(&path, raw, NEGATIVE);
            }
            i64::from(n)
        }
        Some(IntOrString::Text(text)) => {
            errors.invalid_all(&path, raw, names::percent(&text));
            let percent = text.trim_end_matches('%').parse::<i64>().unwrap_or(0);
            if at_most_all && percent > 100 {
                errors.invalid(&path, raw, "must not be greater than 100%");
            }
            percent
        }
        None => 0,
    }
}

/// Words of resources that the API itself defines.
pub(super) const STANDARD: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];
/// Objects that are counted whole.
const INTEGER: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];

pub(super) fn is_hugepages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether the name belongs to the API's own domain.
pub(super) fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether the name is one of an extended resource.
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Checks the name of a resource; answers whether it is good.
pub(super) fn resource_name(name: &str, path: &Path, errors: &mut ErrorList) -> bool {
    let before = errors.len();
    errors.invalid_all(path, &json!(name), names::qualified_name(name));
    let standard = STANDARD.contains(&name) || is_hugepages(name) || name.starts_with("requests.hugepages-");
    if errors.len() == before && !name.contains('/') && !standard {
        errors.invalid(path, &json!(name), "must be a standard resource type or fully qualified");
    }
    errors.len() == before
}

/// Checks the amount of a resource.
pub(super) fn resource_amount(name: &str, value: &Value, path: &Path, errors: &mut ErrorList) {
    let Some(amount) = quantity(value) else { return };
    let shown = json!(amount.to_string());
    if amount.is_negative() {
        errors.invalid(path, &shown, NEGATIVE);
    }
    let whole = INTEGER.contains(&name) || is_extended(name);
    if whole && amount.milli_value() % 1000 != 0 {
        errors.invalid(path, &shown, "must be an integer");
    }
}

/// Checks a name such as `example.com/path`.
pub(super) fn domain_path(text: &str, path: &Path, errors: &mut ErrorList) {
    let value = json!(text);
    if text.is_empty() {
        errors.required(path, "");
        return;
    }
    let Some((domain, rest)) = text.split_once('/').filter(|(domain, _)| !domain.is_empty()) else {
        errors.invalid(path, &value, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        return;
    };
    errors.invalid_all(path, &json!(domain), names::dns1123_subdomain(domain));
    if rest.is_empty() {
        errors.invalid(path, &value, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        return;
    }
    let good = |segment: &str| {
        !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"/.-_~!$&'()*+,;=:%@".contains(&b))
    };
    if !good(rest) {
        let text = r"Invalid path (regex used for validation is '[A-Za-z0-9/\-._~%!$&'()*+,;=:]+')";
        errors.invalid(path, &json!(rest), text);
    }
}
