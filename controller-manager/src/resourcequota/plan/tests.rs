use super::*;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn pods() -> GroupResource {
    GroupResource::new("", "pods")
}

fn pod(cpu: &str, phase: &str) -> Value {
    let pod = json!({
        "metadata": {"name": "a", "labels": {"a": "b"}},
        "spec": {"nodeName": "n", "containers": [
            {"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]},
        "status": {"phase": phase, "podIP": "1.2.3.4"},
    });
    trimmed(&pods(), &pod)
}

fn spec(value: Value) -> ResourceQuotaSpec {
    serde_json::from_value(value).unwrap()
}

fn used(spec: &ResourceQuotaSpec, old: Value, objects: &Objects<'_>) -> Value {
    let old: ResourceQuotaStatus = serde_json::from_value(old).unwrap();
    let status = status_of(spec, Some(&old), objects, NOW);
    assert_eq!(status.hard, spec.hard);
    serde_json::to_value(status.used).unwrap()
}

#[test]
fn names_say_what_they_count() {
    let of = |name: &str| counted(name).map(|r| format!("{}/{}", r.group, r.resource));
    for (name, wanted) in [
        ("cpu", Some("/pods")),
        ("limits.memory", Some("/pods")),
        ("hugepages-2Mi", Some("/pods")),
        ("requests.example.com/gpu", Some("/pods")),
        ("requests.storage", Some("/persistentvolumeclaims")),
        ("gpu.deviceclass.resource.k8s.io/devices", Some("resource.k8s.io/resourceclaims")),
        ("fast.storageclass.storage.k8s.io/requests.storage", Some("/persistentvolumeclaims")),
        ("services.nodeports", Some("/services")),
        ("secrets", Some("/secrets")),
        ("count/pods", Some("/pods")),
        ("count/deployments.apps", Some("apps/deployments")),
        ("count/widgets.stable.example.com", Some("stable.example.com/widgets")),
        ("widgets", None),
    ] {
        assert_eq!(of(name).as_deref(), wanted, "{name}");
    }
}

#[test]
fn sums_of_what_runs() {
    let spec = spec(json!({"hard": {"pods": "5", "count/pods": "9", "requests.cpu": "2", "limits.cpu": "1"}}));
    let (a, b, c) = (pod("100m", "Running"), pod("1", "Pending"), pod("1", "Succeeded"));
    let objects = Objects::from([(pods(), Some(vec![&a, &b, &c]))]);
    let wanted = json!({"pods": "2", "count/pods": "3", "requests.cpu": "1100m", "limits.cpu": "0"});
    assert_eq!(used(&spec, json!({}), &objects), wanted);
    let none = Objects::from([(pods(), Some(vec![]))]);
    let wanted = json!({"pods": "0", "count/pods": "0", "requests.cpu": "0", "limits.cpu": "0"});
    assert_eq!(used(&spec, json!({"used": {"pods": "7", "secrets": "1"}}), &none), wanted);
}

#[test]
fn what_is_not_known_stays() {
    let spec = spec(json!({"hard": {"pods": "5", "secrets": "9", "count/widgets.example.com": "1"}}));
    let secrets = GroupResource::new("", "secrets");
    let objects = Objects::from([(pods(), None), (secrets, Some(vec![&Value::Null, &Value::Null]))]);
    assert_eq!(used(&spec, json!({"used": {"pods": "3"}}), &objects), json!({"pods": "3", "secrets": "2"}));
}

#[test]
fn scopes_select() {
    let spec = spec(json!({"hard": {"pods": "5"}, "scopes": ["BestEffort"]}));
    let burstable = pod("100m", "Running");
    let best = trimmed(&pods(), &json!({"spec": {"containers": [{"name": "c"}]}}));
    let objects = Objects::from([(pods(), Some(vec![&burstable, &best]))]);
    assert_eq!(used(&spec, json!({}), &objects), json!({"pods": "1"}));
}

#[test]
fn changes_that_matter() {
    let matters = |old: &Value, new: &Value| matters(&pods(), old, new, NOW);
    assert!(matters(&pod("1", "Running"), &pod("1", "Succeeded")));
    assert!(matters(&pod("1", "Running"), &pod("2", "Running")));
    assert!(!matters(&pod("1", "Pending"), &pod("1", "Running")));
}

#[test]
fn amounts_are_compared_not_texts() {
    let status = |cpu: &str| -> ResourceQuotaStatus {
        serde_json::from_value(json!({"hard": {"cpu": "1"}, "used": {"cpu": cpu}})).unwrap()
    };
    assert!(same(Some(&status("1000m")), &status("1")));
    assert!(!same(Some(&status("1001m")), &status("1")));
    assert!(!same(None, &status("1")));
}
