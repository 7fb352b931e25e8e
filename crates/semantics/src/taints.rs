//! Which tolerations are for which taints, of nodes and of devices.

use k8s_openapi::api::{
    core::v1::{Taint, Toleration},
    resource::v1::{DeviceTaint, DeviceToleration},
};

fn said(text: Option<&String>) -> &str {
    text.map(String::as_str).unwrap_or_default()
}

/// Whether key and effect of a toleration are those of a taint; what is empty is for all.
fn concerns(toleration: (Option<&String>, Option<&String>), taint: (&str, &str)) -> bool {
    let (key, effect) = (said(toleration.0), said(toleration.1));
    (key.is_empty() || key == taint.0) && (effect.is_empty() || effect == taint.1)
}

/// Whether a toleration is for a taint of a node.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    if !concerns((toleration.key.as_ref(), toleration.effect.as_ref()), (&taint.key, &taint.effect)) {
        return false;
    }
    let (value, of_taint) = (said(toleration.value.as_ref()), said(taint.value.as_ref()));
    let numbers = || of_taint.parse::<i64>().ok().zip(value.parse::<i64>().ok());
    match said(toleration.operator.as_ref()) {
        "Exists" => true,
        "" | "Equal" => value == of_taint,
        "Lt" => numbers().is_some_and(|(have, bound)| have < bound),
        "Gt" => numbers().is_some_and(|(have, bound)| have > bound),
        _ => false,
    }
}

/// Whether a toleration is for a taint of a device.
pub fn tolerates_device(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    if !concerns((toleration.key.as_ref(), toleration.effect.as_ref()), (&taint.key, &taint.effect)) {
        return false;
    }
    match said(toleration.operator.as_ref()) {
        "Exists" => true,
        "" | "Equal" => said(toleration.value.as_ref()) == said(taint.value.as_ref()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_effects_and_values_have_to_be_the_same() {
        let taint = DeviceTaint {
            key: "sick".to_owned(),
            value: Some("yes".to_owned()),
            effect: "NoExecute".to_owned(),
            ..DeviceTaint::default()
        };
        let cases = [
            (("", "Exists", "", ""), true),
            (("sick", "Exists", "", "NoExecute"), true),
            (("sick", "Exists", "", "NoSchedule"), false),
            (("well", "Exists", "", ""), false),
            (("sick", "", "yes", ""), true),
            (("sick", "Equal", "no", ""), false),
            (("sick", "Gt", "yes", ""), false),
        ];
        for ((key, operator, value, effect), expected) in cases {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let toleration = DeviceToleration {
                key: some(key),
                operator: some(operator),
                value: some(value),
                effect: some(effect),
                ..DeviceToleration::default()
            };
            assert_eq!(tolerates_device(&toleration, &taint), expected, "{toleration:?}");
        }
    }
}
