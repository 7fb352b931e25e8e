//! Amounts are kept to a thousandth; finer ones are rounded up.

use machinery::quantity::Quantity;
use serde_json::{Map, Value, json};

use super::items;

/// Rounds the amounts of a map.
pub(super) fn list(map: &mut Map<String, Value>, field: &str) {
    let amounts = map.get_mut(field).and_then(Value::as_object_mut).into_iter().flatten();
    for (_, amount) in amounts {
        if let Some(rounded) = rounded(amount) {
            *amount = json!(rounded);
        }
    }
}

/// The rounded amount, if it is finer than a thousandth.
fn rounded(amount: &Value) -> Option<String> {
    let text = amount.as_str()?;
    // Only these can be that fine.
    let fine = text.contains('.') || text.ends_with('u') || text.ends_with('n') || text.contains(['e', 'E']);
    let amount = fine.then(|| Quantity::parse(text).ok()).flatten()?;
    let whole = amount.round_up_milli();
    (whole != amount).then(|| whole.to_string())
}

/// Rounds the limits and requests of what has resources.
pub(super) fn resources(holder: &mut Map<String, Value>) {
    if let Some(resources) = holder.get_mut("resources").and_then(Value::as_object_mut) {
        list(resources, "limits");
        list(resources, "requests");
    }
}

/// Rounds the amounts of a LimitRange.
pub(super) fn limits(spec: &mut Map<String, Value>) {
    for limit in items(spec, "limits") {
        for field in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            list(limit, field);
        }
    }
}

/// Rounds amounts in the status of an object.
pub(super) fn status(object: &mut Value, fields: &[&str]) {
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        fields.iter().for_each(|field| list(status, field));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_finer_than_a_thousandth_are_rounded_up() {
        for (sent, kept) in [("100u", "1m"), ("1.0001", "1001m"), ("1.5", "1.5"), ("1e3", "1e3"), ("64Mi", "64Mi")] {
            let mut map = Map::from_iter([("a".to_owned(), json!({"cpu": sent}))]);
            list(&mut map, "a");
            assert_eq!(map["a"]["cpu"], kept);
        }
    }
}
