//! When the Pods of a claim have to go.

use k8s_openapi::{
    api::resource::v1::{DeviceTaint, DeviceToleration, ResourceClaim},
    jiff::{SignedDuration, Timestamp},
};
use semantics::taints::tolerates_device;

use crate::resourceclaim::plan::devices;

/// When a taint drives users away; `None` for never.
fn due_by(taint: &DeviceTaint, tolerations: &[DeviceToleration], now: Timestamp) -> Option<Timestamp> {
    let since = taint.time_added.as_ref().map_or(now, |added| added.0);
    let matching: Vec<&DeviceToleration> = tolerations.iter().filter(|t| tolerates_device(t, taint)).collect();
    if matching.is_empty() {
        return Some(since);
    }
    let shortest = matching.iter().filter_map(|toleration| toleration.toleration_seconds).min()?;
    since.checked_add(SignedDuration::from_secs(shortest.max(0))).ok()
}

/// When the Pods of a claim have to go; `None` for never. `taints` gives those of a device that drive Pods away.
pub(super) fn due(
    claim: &ResourceClaim,
    taints: impl Fn(&str) -> Vec<DeviceTaint>,
    now: Timestamp,
) -> Option<Timestamp> {
    let each = devices(claim).flat_map(|(device, result)| {
        let tolerations = result.tolerations.as_deref().unwrap_or_default();
        taints(&device).into_iter().filter_map(move |taint| due_by(&taint, tolerations, now))
    });
    each.min()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_taint_that_is_not_tolerated_counts() {
        let claim = |tolerations: serde_json::Value| -> ResourceClaim {
            serde_json::from_value(json!({"spec": {}, "status": {"allocation": {"devices": {"results": [
                {"request": "r", "driver": "d", "pool": "p", "device": "a", "tolerations": tolerations},
                {"request": "r", "driver": "d", "pool": "p", "device": "b"}]}}}}))
            .unwrap()
        };
        let taint = |key: &str, at: i64| -> DeviceTaint {
            let added = Timestamp::from_second(at).unwrap();
            serde_json::from_value(json!({"key": key, "effect": "NoExecute", "timeAdded": added})).unwrap()
        };
        let now = Timestamp::from_second(1000).unwrap();
        let when = |tolerations: serde_json::Value, of_a: Vec<DeviceTaint>, of_b: Vec<DeviceTaint>| {
            let taints = |device: &str| if device == "d/p/a" { of_a.clone() } else { of_b.clone() };
            due(&claim(tolerations), taints, now).map(Timestamp::as_second)
        };
        let for_x = |seconds: Option<i64>| json!([{"key": "x", "operator": "Exists", "tolerationSeconds": seconds}]);
        assert_eq!(when(json!([]), vec![], vec![]), None);
        assert_eq!(when(json!([]), vec![taint("x", 900)], vec![]), Some(900));
        assert_eq!(when(for_x(None), vec![taint("x", 900)], vec![]), None);
        assert_eq!(when(for_x(Some(300)), vec![taint("x", 900)], vec![]), Some(1200));
        assert_eq!(when(for_x(Some(300)), vec![taint("x", 900)], vec![taint("x", 950)]), Some(950));
        assert_eq!(when(for_x(Some(-5)), vec![taint("x", 900), taint("y", 990)], vec![]), Some(900));
    }
}
