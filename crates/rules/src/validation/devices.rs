//! The resource group: claims, their templates, classes and slices of devices.

use std::collections::HashSet;

use machinery::{
    field::{ErrorList, Path},
    names,
};
use serde_json::{Value, json};

use super::{
    checks::{IMMUTABLE, enumeration, immutable, is_extended},
    read::{list, number, present, same, text},
    spec_path, storage,
};

const MAX_REQUESTS: usize = 32;
const MAX_ALTERNATIVES: usize = 8;
const MAX_SELECTORS: usize = 32;
const MAX_EXPRESSION: usize = 10 * 1024;
const MAX_RESERVED: usize = 256;
const MAX_DEVICES: usize = 128;
const MAX_RICH_DEVICES: usize = 64;

/// Checks a ResourceClaim.
pub(super) fn claim(object: &Value, errors: &mut ErrorList) {
    claim_spec(object.get("spec").unwrap_or(&Value::Null), &spec_path(), errors);
}

/// Checks a ResourceClaimTemplate.
pub(super) fn template(object: &Value, errors: &mut ErrorList) {
    let spec = object.pointer("/spec/spec").unwrap_or(&Value::Null);
    claim_spec(spec, &spec_path().child("spec"), errors);
}

/// Checks that a claim or template keeps its spec.
pub(super) fn same_spec(new: &Value, old: &Value, errors: &mut ErrorList) {
    if !same("spec", new.get("spec"), old.get("spec")) {
        errors.invalid(&spec_path(), new.get("spec").unwrap_or(&Value::Null), IMMUTABLE);
    }
}

fn claim_spec(spec: &Value, path: &Path, errors: &mut ErrorList) {
    let devices = spec.get("devices").unwrap_or(&Value::Null);
    let path = path.child("devices");
    let requests = list(devices, "requests");
    if requests.len() > MAX_REQUESTS {
        errors.too_many(&path.child("requests"), requests.len(), MAX_REQUESTS);
    }
    let mut seen = HashSet::new();
    for (at, request) in requests.iter().enumerate() {
        let path = path.child("requests").index(at);
        request_name(request, &mut seen, &path, errors);
        let (exactly, alternatives) = (present(request, "exactly"), list(request, "firstAvailable"));
        if exactly.is_some() != alternatives.is_empty() {
            let text = "exactly one of `exactly` or `firstAvailable` is required";
            if exactly.is_none() {
                errors.required(&path, text);
            } else {
                errors.invalid(&path, &Value::Null, text);
            }
        }
        if let Some(exactly) = exactly {
            device_request(exactly, &path.child("exactly"), errors);
        }
        let path = path.child("firstAvailable");
        if alternatives.len() > MAX_ALTERNATIVES {
            errors.too_many(&path, alternatives.len(), MAX_ALTERNATIVES);
        }
        let mut seen = HashSet::new();
        for (at, alternative) in alternatives.iter().enumerate() {
            request_name(alternative, &mut seen, &path.index(at), errors);
            device_request(alternative, &path.index(at), errors);
        }
    }
}

fn request_name<'a>(request: &'a Value, seen: &mut HashSet<&'a str>, path: &Path, errors: &mut ErrorList) {
    let name = text(request, "name");
    if name.is_empty() {
        errors.required(&path.child("name"), "");
        return;
    }
    errors.invalid_all(&path.child("name"), &json!(name), names::dns1123_label(name));
    if !seen.insert(name) {
        errors.duplicate(&path.child("name"), &json!(name));
    }
}

fn device_request(request: &Value, path: &Path, errors: &mut ErrorList) {
    let class = text(request, "deviceClassName");
    if class.is_empty() {
        errors.required(&path.child("deviceClassName"), "");
    } else {
        errors.invalid_all(&path.child("deviceClassName"), &json!(class), names::dns1123_subdomain(class));
    }
    selectors(request, path, errors);
    let count = number(request, "count").unwrap_or(0);
    match text(request, "allocationMode") {
        "All" if count != 0 => {
            let text = "must not be specified when allocationMode is 'All'";
            errors.invalid(&path.child("count"), &json!(count), text);
        }
        "ExactCount" if count <= 0 => {
            errors.invalid(&path.child("count"), &json!(count), "must be greater than zero");
        }
        _ => enumeration(request, "allocationMode", &["All", "ExactCount"], path, errors),
    }
}

fn selectors(holder: &Value, path: &Path, errors: &mut ErrorList) {
    let selectors = list(holder, "selectors");
    let path = path.child("selectors");
    if selectors.len() > MAX_SELECTORS {
        errors.too_many(&path, selectors.len(), MAX_SELECTORS);
    }
    for (at, selector) in selectors.iter().enumerate() {
        let path = path.index(at).child("cel");
        match present(selector, "cel") {
            None => errors.required(&path, ""),
            Some(cel) if text(cel, "expression").len() > MAX_EXPRESSION => {
                errors.too_long(&path.child("expression"), MAX_EXPRESSION);
            }
            Some(_) => {}
        }
    }
}

/// Checks the status of a ResourceClaim against the stored one.
pub(super) fn claim_status(new: &Value, old: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let (sent, stored) = (new.get("status").unwrap_or(&none), old.get("status").unwrap_or(&none));
    let path = Path::new("status");
    let reserved = list(sent, "reservedFor");
    let at = path.child("reservedFor");
    if reserved.len() > MAX_RESERVED {
        errors.too_many(&at, reserved.len(), MAX_RESERVED);
    }
    let mut seen = HashSet::new();
    for (index, consumer) in reserved.iter().enumerate() {
        let path = at.index(index);
        for field in ["resource", "name", "uid"] {
            if text(consumer, field).is_empty() {
                errors.required(&path.child(field), "");
            }
        }
        if !seen.insert(text(consumer, "uid")) {
            errors.duplicate(&path.child("uid"), &json!(text(consumer, "uid")));
        }
    }
    let (allocation, before) = (present(sent, "allocation"), present(stored, "allocation"));
    if !reserved.is_empty() && allocation.is_none() {
        errors.forbidden(&at, "may not be specified when `allocated` is not set");
    }
    if let (Some(allocation), Some(before)) = (allocation, before)
        && !same("allocation", Some(allocation), Some(before))
    {
        errors.invalid(&path.child("allocation"), allocation, IMMUTABLE);
    }
}

/// Checks a DeviceClass.
pub(super) fn class(object: &Value, errors: &mut ErrorList) {
    let spec = object.get("spec").unwrap_or(&Value::Null);
    selectors(spec, &spec_path(), errors);
    if let Some(name) = present(spec, "extendedResourceName").and_then(Value::as_str)
        && !is_extended(name)
    {
        let text = "doesn't follow extended resource name standard";
        errors.invalid(&spec_path().child("extendedResourceName"), &json!(name), text);
    }
}

/// Checks a ResourceSlice.
pub(super) fn slice(object: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let spec = object.get("spec").unwrap_or(&none);
    let path = spec_path();
    storage::driver_name(text(spec, "driver"), &path.child("driver"), errors);
    let pool = spec.get("pool").unwrap_or(&none);
    let at = path.child("pool");
    if text(pool, "name").is_empty() {
        errors.required(&at.child("name"), "");
    }
    let count = number(pool, "resourceSliceCount").unwrap_or(0);
    if count <= 0 {
        errors.invalid(&at.child("resourceSliceCount"), &json!(count), "must be greater than zero");
    }
    if let Some(generation) = number(pool, "generation").filter(|generation| *generation < 0) {
        let text = "must be greater than or equal to zero";
        errors.invalid(&at.child("generation"), &json!(generation), text);
    }
    let devices = list(spec, "devices");
    let at = path.child("devices");
    let rich = devices.iter().any(|device| ["taints", "consumesCounters"].iter().any(|f| !list(device, f).is_empty()));
    let most = if rich { MAX_RICH_DEVICES } else { MAX_DEVICES };
    if devices.len() > most {
        errors.too_many(&at, devices.len(), most);
    }
    let mut seen = HashSet::new();
    for (index, device) in devices.iter().enumerate() {
        request_name(device, &mut seen, &at.index(index), errors);
    }
}

/// Checks what may change of a stored ResourceSlice.
pub(super) fn slice_update(new: &Value, old: &Value, errors: &mut ErrorList) {
    let none = Value::Null;
    let (new, old) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    let path = spec_path();
    immutable(new, old, &["driver", "nodeName"], &path, errors);
    let pool = |spec: &Value| spec.get("pool").cloned().unwrap_or_default();
    immutable(&pool(new), &pool(old), &["name"], &path.child("pool"), errors);
}
