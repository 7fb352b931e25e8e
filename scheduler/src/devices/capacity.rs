//! Capacities of devices that several claims share: how much a request takes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::resource::v1::CapacityRequestPolicy, apimachinery::pkg::api::resource::Quantity as ApiQuantity,
};
use machinery::quantity::Quantity;

use super::ledger::Usage;
use crate::objects::{CapacityOf, DeviceView, amount};

/// Amounts by the name of the capacity.
pub(super) type Amounts = Vec<(String, Quantity)>;

/// What a request takes of a capacity; `None` if it cannot be given at all.
fn taken(asked: Option<Quantity>, capacity: &CapacityOf) -> Option<Quantity> {
    let amount = match (&capacity.policy, asked) {
        (None, None) => capacity.value,
        (None, Some(asked)) => asked,
        (Some(policy), None) => policy.default.as_ref().map_or(capacity.value, |default| amount(&default.0)),
        (Some(policy), Some(asked)) => rounded(asked, policy)?,
    };
    (amount <= capacity.value).then_some(amount)
}

/// The next amount that a policy allows.
fn rounded(asked: Quantity, policy: &CapacityRequestPolicy) -> Option<Quantity> {
    if let Some(values) = policy.valid_values.as_ref().filter(|values| !values.is_empty()) {
        return values.iter().map(|value| amount(&value.0)).filter(|value| *value >= asked).min();
    }
    let Some(range) = &policy.valid_range else { return Some(asked) };
    let min = amount(&range.min.0);
    let mut rounded = asked.max(min);
    if let Some(step) = range.step.as_ref().map(|step| amount(&step.0).milli_value()).filter(|step| *step > 0) {
        let above = rounded.milli_value().saturating_sub(min.milli_value());
        let steps = above / step + i64::from(above % step > 0);
        rounded = Quantity::from_milli(min.milli_value().saturating_add(steps.saturating_mul(step)), asked.format());
    }
    match &range.max {
        Some(max) if rounded > amount(&max.0) => None,
        _ => Some(rounded),
    }
}

/// What a request takes of each capacity of a device; `None` if the device does not have that much. What takes the whole
/// device takes no amounts.
pub(super) fn consumption(device: &DeviceView, asked: &BTreeMap<String, ApiQuantity>) -> Option<Amounts> {
    let mut wanted: BTreeMap<&str, Quantity> = BTreeMap::new();
    for (name, quantity) in asked {
        let (own, _) = device.capacity(name)?;
        wanted.insert(own, amount(&quantity.0));
    }
    let mut amounts = Amounts::new();
    for (name, capacity) in &device.capacity {
        let asked = wanted.get(name.as_str()).copied();
        if asked.is_none() && !device.shareable {
            continue;
        }
        amounts.push((name.clone(), taken(asked, capacity)?));
    }
    if !device.shareable {
        amounts.clear();
    }
    Some(amounts)
}

/// Whether a device still has so much besides what others take.
pub(super) fn fits(device: &DeviceView, amounts: &Amounts, usage: &[Option<&Usage>]) -> bool {
    amounts.iter().all(|(name, wanted)| {
        let Some(capacity) = device.capacity.get(name) else { return false };
        let mut sum = *wanted;
        for used in usage.iter().flatten().filter_map(|usage| usage.amounts.get(name)) {
            sum += *used;
        }
        sum <= capacity.value
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::devices::testing::device;

    fn asked(list: &[(&str, &str)]) -> BTreeMap<String, ApiQuantity> {
        list.iter().map(|(name, text)| ((*name).to_owned(), ApiQuantity((*text).to_owned()))).collect()
    }

    fn shared(policy: serde_json::Value) -> DeviceView {
        let capacity = json!({"memory": {"value": "80Gi", "requestPolicy": policy}});
        device(json!({"name": "d", "allowMultipleAllocations": true, "capacity": capacity}))
    }

    #[test]
    fn policies_round_up() {
        let values = json!({"default": "10Gi", "validValues": ["10Gi", "20Gi", "40Gi"]});
        let range = json!({"default": "4Gi", "validRange": {"min": "4Gi", "max": "64Gi", "step": "4Gi"}});
        let cases = [
            (serde_json::Value::Null, Some("5Gi"), Some("5Gi")),
            (serde_json::Value::Null, None, Some("80Gi")),
            (serde_json::Value::Null, Some("81Gi"), None),
            (values.clone(), None, Some("10Gi")),
            (values.clone(), Some("11Gi"), Some("20Gi")),
            (values, Some("41Gi"), None),
            (range.clone(), Some("1Gi"), Some("4Gi")),
            (range.clone(), Some("9Gi"), Some("12Gi")),
            (range.clone(), Some("64Gi"), Some("64Gi")),
            (range, Some("65Gi"), None),
        ];
        for (policy, ask, expected) in cases {
            let list: Vec<_> = ask.iter().map(|text| ("memory", *text)).collect();
            let got = consumption(&shared(policy.clone()), &asked(&list)).map(|amounts| amounts[0].1);
            assert_eq!(got, expected.map(amount), "{policy} {ask:?}");
        }
    }

    #[test]
    fn whole_devices_have_to_be_large_enough() {
        let whole = device(json!({"name": "d", "capacity": {"memory": {"value": "8Gi"}}}));
        assert_eq!(consumption(&whole, &asked(&[("gpu.example.com/memory", "8Gi")])), Some(Vec::new()));
        assert_eq!(consumption(&whole, &asked(&[("memory", "9Gi")])), None);
        assert_eq!(consumption(&whole, &asked(&[("cores", "1")])), None);
    }

    #[test]
    fn parts_share_what_there_is() {
        let device = shared(serde_json::Value::Null);
        let mut usage = Usage::default();
        usage.take(Some(&[("memory".to_owned(), amount("50Gi"))]));
        let want = |text: &str| vec![("memory".to_owned(), amount(text))];
        assert!(fits(&device, &want("30Gi"), &[Some(&usage), None]));
        assert!(!fits(&device, &want("31Gi"), &[Some(&usage), None]));
        assert!(!fits(&device, &want("16Gi"), &[Some(&usage), Some(&usage)]));
    }
}
