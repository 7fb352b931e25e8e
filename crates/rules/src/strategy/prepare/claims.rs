//! Claims of storage and of devices.

use serde_json::Value;

/// Where a claim's volume is filled from is told in two fields; each follows from the other.
pub(super) fn data_sources(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    let set = |value: Option<&Value>| value.filter(|value| !value.is_null()).cloned();
    if let Some(reference) = spec.get_mut("dataSourceRef").and_then(Value::as_object_mut) {
        reference.remove("namespace");
    }
    let (source, reference) = (set(spec.get("dataSource")), set(spec.get("dataSourceRef")));
    match (source, reference) {
        (Some(source), None) => {
            if is_volume_source(&source) {
                spec.insert("dataSourceRef".into(), source);
            } else {
                spec.remove("dataSource");
            }
        }
        (None, Some(reference)) if is_volume_source(&reference) => {
            spec.insert("dataSource".into(), reference);
        }
        _ => {}
    }
}

fn is_volume_source(source: &Value) -> bool {
    let text = |field: &str| source.get(field).and_then(Value::as_str).unwrap_or("");
    matches!(
        (text("apiGroup"), text("kind")),
        ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
    )
}

/// What a status says of devices is dropped with their allocation.
pub(super) fn devices_of_allocation(object: &mut Value) {
    let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) else { return };
    let results = status.get("allocation").and_then(|allocation| allocation.pointer("/devices/results"));
    let key = |device: &Value| ["driver", "pool", "device"].map(|field| device.get(field).cloned());
    let allocated: Vec<_> = results.and_then(Value::as_array).into_iter().flatten().map(key).collect();
    if let Some(devices) = status.get_mut("devices").and_then(Value::as_array_mut) {
        devices.retain(|device| allocated.contains(&key(device)));
        if devices.is_empty() {
            status.remove("devices");
        }
    }
}

#[cfg(test)]
mod tests {
    use machinery::meta;
    use serde_json::json;

    use super::*;

    #[test]
    fn sources_follow_each_other() {
        let claim = json!({"apiGroup": "", "kind": "PersistentVolumeClaim", "name": "a"});
        let cases = [
            (json!({"dataSource": claim}), json!({"dataSource": claim, "dataSourceRef": claim})),
            (json!({"dataSourceRef": claim}), json!({"dataSource": claim, "dataSourceRef": claim})),
            (json!({"dataSource": {"kind": "Other", "name": "a"}}), json!({})),
            (
                json!({"dataSourceRef": {"apiGroup": "x.y", "kind": "Z", "name": "a", "namespace": "n"}}),
                json!({"dataSourceRef": {"apiGroup": "x.y", "kind": "Z", "name": "a"}}),
            ),
        ];
        for (sent, expected) in cases {
            let mut object = json!({"spec": sent});
            data_sources(&mut object);
            assert_eq!(object["spec"], expected);
        }
    }

    #[test]
    fn devices_go_with_their_allocation() {
        let device = |name: &str| json!({"driver": "d", "pool": "p", "device": name});
        let mut object = json!({"status": {"devices": [device("a"), device("b")],
            "allocation": {"devices": {"results": [device("a")]}}}});
        devices_of_allocation(&mut object);
        assert_eq!(object["status"]["devices"], json!([device("a")]));
        meta::object_mut(&mut object["status"]).remove("allocation");
        devices_of_allocation(&mut object);
        assert!(object["status"].get("devices").is_none());
    }
}
