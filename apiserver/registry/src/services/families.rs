//! Which families of addresses a Service has: pure.

use machinery::field::{ErrorList, Path};
use rules::validation::cluster_addresses;
use serde_json::{Value, json};

use super::{spec, text};

const SINGLE: &str = "SingleStack";
const PREFER: &str = "PreferDualStack";
const REQUIRE: &str = "RequireDualStack";

/// What Services call the families.
pub(super) fn family(v4: bool) -> &'static str {
    if v4 { "IPv4" } else { "IPv6" }
}

fn other(family: &str) -> &'static str {
    self::family(family != "IPv4")
}

/// The strings of a list in the spec.
pub(super) fn strings(service: &Value, field: &str) -> Vec<String> {
    let list = service.get("spec").and_then(|spec| spec.get(field)).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

pub(super) fn is_external(service: &Value) -> bool {
    text(service, "/spec/type") == "ExternalName"
}

pub(super) fn is_headless(service: &Value) -> bool {
    text(service, "/spec/clusterIP") == "None"
}

fn is_unselected(service: &Value) -> bool {
    service.pointer("/spec/selector").and_then(Value::as_object).is_none_or(serde_json::Map::is_empty)
}

fn set(service: &mut Value, field: &str, value: Value) {
    spec(service).insert(field.to_owned(), value);
}

fn truncate(service: &mut Value, field: &str) {
    if let Some(list) = spec(service).get_mut(field).and_then(Value::as_array_mut) {
        list.truncate(1);
    }
}

/// Makes `clusterIP` and `clusterIPs` agree where a client knows only one of them or took over the other one from what
/// it had read.
pub(super) fn synchronize(new: &mut Value, old: Option<&Value>) {
    let (single, list) = (text(new, "/spec/clusterIP").to_owned(), strings(new, "clusterIPs"));
    let Some(old) = old else {
        if !single.is_empty() && list.is_empty() {
            set(new, "clusterIPs", json!([single]));
        }
        return;
    };
    let (single_before, list_before) = (text(old, "/spec/clusterIP"), strings(old, "clusterIPs"));
    if single == single_before {
        if list.is_empty() && !list_before.is_empty() {
            set(new, "clusterIPs", json!(list_before));
        }
    } else if list == list_before {
        if single.is_empty() {
            spec(new).remove("clusterIPs");
        } else {
            set(new, "clusterIPs", json!([single]));
        }
    }
}

/// Whether an update leaves a Service that prefers two families alone: it does not gain or lose one because the cluster
/// has changed.
fn keeps_preference(new: &Value, old: &Value) -> bool {
    let same = |field| strings(new, field) == strings(old, field);
    let prefers = |service| text(service, "/spec/ipFamilyPolicy") == PREFER;
    prefers(new) && prefers(old) && !strings(new, "ipFamilies").is_empty() && same("clusterIPs") && same("ipFamilies")
}

/// Fills in `ipFamilyPolicy` and `ipFamilies`. `cluster` are the families of the cluster, the first one by default.
pub(super) fn settle(service: &mut Value, old: Option<&Value>, cluster: &[&'static str]) -> Result<(), ErrorList> {
    if is_external(service) || old.is_some_and(|old| keeps_preference(service, old)) {
        return Ok(());
    }
    let free = is_headless(service) && is_unselected(service);
    if text(service, "/spec/ipFamilyPolicy").is_empty() {
        let before = old.map_or("", |old| text(old, "/spec/ipFamilyPolicy"));
        let policy = match before {
            "" if free => REQUIRE,
            "" => SINGLE,
            before => before,
        };
        set(service, "ipFamilyPolicy", json!(policy));
    }
    sound(cluster_addresses(service))?;
    let mut errors = ErrorList::default();
    let path = Path::new("spec");
    if let Some(old) = old {
        release(service, old, &path, &mut errors);
    }
    agree(service, &path, &mut errors);
    infer(service, cluster, &path, &mut errors);
    sound(errors)?;
    if !free {
        sound(configured(service, cluster, &path))?;
    }
    if strings(service, "ipFamilies").is_empty() {
        set(service, "ipFamilies", json!([cluster.first().copied().unwrap_or("IPv4")]));
    }
    let families = strings(service, "ipFamilies");
    let dual = text(service, "/spec/ipFamilyPolicy") != SINGLE && (free || cluster.len() == 2);
    if let ([first], true) = (families.as_slice(), dual) {
        set(service, "ipFamilies", json!([first, other(first)]));
    }
    Ok(())
}

fn sound(errors: ErrorList) -> Result<(), ErrorList> {
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Gives up the second family of a Service that shall have one; nobody loses it who does not say so.
fn release(service: &mut Value, old: &Value, path: &Path, errors: &mut ErrorList) {
    let policy = text(service, "/spec/ipFamilyPolicy").to_owned();
    for (field, what) in [("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")] {
        let (before, after) = (strings(old, field), strings(service, field));
        if policy == SINGLE && before == after {
            truncate(service, field);
        } else if policy != SINGLE && before.len() == 2 && after.len() == 1 {
            let detail = format!("must be 'SingleStack' to release the secondary {what}");
            errors.invalid(&path.child("ipFamilyPolicy"), &json!(policy), &detail);
        }
    }
}

fn agree(service: &Value, path: &Path, errors: &mut ErrorList) {
    let policy = text(service, "/spec/ipFamilyPolicy");
    for (field, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
        if policy == SINGLE && strings(service, field).len() == 2 {
            let detail = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            errors.invalid(&path.child("ipFamilyPolicy"), &json!(policy), &detail);
        }
    }
}

/// Families of addresses that were asked for.
fn infer(service: &mut Value, cluster: &[&str], path: &Path, errors: &mut ErrorList) {
    let (addresses, mut families) = (strings(service, "clusterIPs"), strings(service, "ipFamilies"));
    for (at, address) in addresses.iter().enumerate().skip(families.len()) {
        if matches!(address.as_str(), "" | "None") {
            break;
        }
        let found = family(!address.contains(':'));
        if cluster.contains(&found) {
            families.push(found.to_owned());
        } else {
            let detail = format!("{found} is not configured on this cluster");
            errors.invalid(&path.child("clusterIPs").index(at), &json!(addresses), &detail);
        }
    }
    if !families.is_empty() {
        set(service, "ipFamilies", json!(families));
    }
}

/// What the cluster does not have.
fn configured(service: &Value, cluster: &[&str], path: &Path) -> ErrorList {
    let mut errors = ErrorList::default();
    let policy = text(service, "/spec/ipFamilyPolicy");
    if policy == REQUIRE && cluster.len() < 2 {
        let detail = "this cluster is not configured for dual-stack services";
        errors.invalid(&path.child("ipFamilyPolicy"), &json!(policy), detail);
    }
    for (at, family) in strings(service, "ipFamilies").iter().enumerate() {
        if !cluster.contains(&family.as_str()) {
            errors.invalid(&path.child("ipFamilies").index(at), &json!(family), "not configured on this cluster");
        }
    }
    errors
}

#[cfg(test)]
mod tests;
