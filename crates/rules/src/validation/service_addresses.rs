//! What a Service says of its addresses: `clusterIP`, `clusterIPs`, `ipFamilies`, `ipFamilyPolicy`.

use std::{collections::HashSet, net::IpAddr};

use machinery::field::{ErrorList, Path};
use serde_json::{Value, json};

use super::{
    checks::{enumeration, ip, lenient_ip},
    read::{list, text},
    spec_path,
};

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
const FAMILY_POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
const FIXED: &str = "may not change once set";

/// Whether addresses and families of a Service are well formed and agree: asked before any address is given out.
pub fn cluster_addresses(service: &Value) -> ErrorList {
    let mut errors = ErrorList::default();
    check(service.get("spec").unwrap_or(&Value::Null), &spec_path(), &mut errors);
    errors
}

/// Checks the fields by themselves.
pub(super) fn check(spec: &Value, path: &Path, errors: &mut ErrorList) {
    addresses(spec, path, errors);
    families(spec, path, errors);
}

fn addresses(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let list = list(spec, "clusterIPs");
    let path = path.child("clusterIPs");
    let first = list.first().and_then(Value::as_str).unwrap_or("");
    let primary = text(spec, "clusterIP");
    if primary.is_empty() && !first.is_empty() {
        errors.invalid(&path, &json!(list), "must be empty when `clusterIP` is not specified");
    } else if !list.is_empty() && first != primary {
        errors.invalid(&path, &json!(list), "first value must match `clusterIP`");
    }
    if list.len() > 2 {
        errors.invalid(&path, &json!(list), "may only hold up to 2 values");
    }
    if list.len() > 1 && list.iter().any(|address| address == "None") {
        errors.invalid(&path, &json!(list), "'None' must be the first and only value");
        return;
    }
    let mut seen = Vec::new();
    for (at, address) in list.iter().filter_map(Value::as_str).enumerate() {
        if at == 0 && matches!(address, "None" | "") {
            continue;
        }
        seen.extend(ip(address, &path.index(at), errors).as_ref().map(IpAddr::is_ipv4));
    }
    if list.len() == 2 && matches!(seen.as_slice(), [a, b] if a == b) {
        errors.invalid(&path, &json!(list), "may specify no more than one IP for each IP family");
    }
}

fn families(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let families = list(spec, "ipFamilies");
    let own = path.child("ipFamilies");
    let mut seen = HashSet::new();
    for (at, family) in families.iter().enumerate() {
        let name = family.as_str().unwrap_or("");
        if !FAMILIES.contains(&name) {
            errors.not_supported(&own.index(at), family, &FAMILIES);
        }
        if !seen.insert(name) {
            errors.duplicate(&own.index(at), family);
        }
    }
    enumeration(spec, "ipFamilyPolicy", &FAMILY_POLICIES, path, errors);
    let pairs = list(spec, "clusterIPs").iter().zip(families).enumerate();
    for (at, (address, family)) in pairs {
        let found = address.as_str().and_then(lenient_ip).map(|ip| if ip.is_ipv4() { "IPv4" } else { "IPv6" });
        let wanted = family.as_str().unwrap_or("");
        if found.is_some_and(|found| found != wanted) && FAMILIES.contains(&wanted) {
            let text = format!("expected an {wanted} value as indicated by `ipFamilies[{at}]`");
            errors.invalid(&path.child("clusterIPs").index(at), address, &text);
        }
    }
}

/// Checks the fields of two specs, neither of them that of an ExternalName Service.
pub(super) fn update(new: &Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    let (sent, stored) = (list(new, "clusterIPs"), list(old, "clusterIPs"));
    let primary = |spec: &Value, list: &[Value]| match list.first().and_then(Value::as_str) {
        Some(first) => first.to_owned(),
        None => text(spec, "clusterIP").to_owned(),
    };
    let (before, after) = (primary(old, stored), primary(new, sent));
    let own = path.child("clusterIPs");
    if !before.is_empty() && before != after {
        let detail = if after.is_empty() { "primary clusterIP can not be unset" } else { FIXED };
        errors.invalid(&own.index(0), &json!(sent), detail);
    }
    let released = text(new, "ipFamilyPolicy") == "SingleStack";
    match (stored.get(1), sent.get(1)) {
        (Some(before), Some(after)) if before != after => errors.invalid(&own.index(1), &json!(sent), FIXED),
        (Some(_), None) if !sent.is_empty() && !released => {
            let detail = "must be set to 'SingleStack' when releasing the secondary clusterIP";
            errors.invalid(&path.child("ipFamilyPolicy"), &json!(text(new, "ipFamilyPolicy")), detail);
        }
        _ => {}
    }
    family_update(new, old, path, released, errors);
}

fn family_update(new: &Value, old: &Value, path: &Path, released: bool, errors: &mut ErrorList) {
    let (sent, stored) = (list(new, "ipFamilies"), list(old, "ipFamilies"));
    let own = path.child("ipFamilies");
    match (stored.first(), sent.first()) {
        (Some(_), None) => errors.invalid(&own.index(0), &json!(sent), "primary ipFamily can not be unset"),
        (Some(before), Some(after)) if before != after => errors.invalid(&own.index(0), &json!(sent), FIXED),
        _ => {}
    }
    match (stored.get(1), sent.get(1)) {
        (Some(before), Some(after)) if before != after => errors.invalid(&own.index(1), &json!(sent), FIXED),
        (Some(_), None) if !sent.is_empty() && !released => {
            let detail = "must be set to 'SingleStack' when releasing the secondary ipFamily";
            errors.invalid(&path.child("ipFamilyPolicy"), &json!(text(new, "ipFamilyPolicy")), detail);
        }
        _ => {}
    }
}
