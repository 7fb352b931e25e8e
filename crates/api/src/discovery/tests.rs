use machinery::GroupVersionKind;

use super::*;

#[test]
fn versions_are_ordered_by_stability_then_number() {
    let want = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"];
    let mut versions = want;
    versions.reverse();
    versions.sort_by(|a, b| compare_versions(a, b));
    assert_eq!(versions, want);
}

#[test]
fn autoscaling_prefers_v2() {
    let group = Discovery::built_in().group("autoscaling").expect("group");
    assert_eq!(group["preferredVersion"]["groupVersion"], "autoscaling/v2");
    assert_eq!(group["versions"].as_array().map(Vec::len), Some(2));
}

#[test]
fn every_required_group_is_listed_in_order() {
    let discovery = Discovery::built_in();
    let names: Vec<&str> = discovery.groups().iter().map(|g| g.name.as_str()).collect();
    for group in [
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "apps",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "autoscaling",
        "batch",
        "certificates.k8s.io",
        "coordination.k8s.io",
        "discovery.k8s.io",
        "events.k8s.io",
        "flowcontrol.apiserver.k8s.io",
        "networking.k8s.io",
        "node.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "resource.k8s.io",
        "scheduling.k8s.io",
        "storage.k8s.io",
    ] {
        assert!(names.contains(&group), "{group}");
    }
    assert_eq!(names[..3], ["apiregistration.k8s.io", "", "apps"]);
    let listed = discovery.group_list();
    assert_eq!(listed["groups"].as_array().map(Vec::len), Some(names.len() - 1));
}

#[test]
fn lists_hold_subresources() {
    let discovery = Discovery::built_in();
    let list = discovery.resource_list("apps", "v1").expect("apps");
    let rows: Vec<&Value> = list["resources"].as_array().into_iter().flatten().collect();
    let scale = rows.iter().find(|r| r["name"] == "deployments/scale").expect("scale");
    assert_eq!(
        (&scale["group"], &scale["version"], &scale["kind"]),
        (&json!("autoscaling"), &json!("v1"), &json!("Scale"))
    );
    let deployments = rows.iter().find(|r| r["name"] == "deployments").expect("deployments");
    assert_eq!(deployments["shortNames"], json!(["deploy"]));
    assert_eq!(deployments["categories"], json!(["all"]));
    assert!(deployments["storageVersionHash"].is_string());
    assert!(discovery.resource_list("nope", "v1").is_none());
}

fn widgets(version: &str) -> Kind {
    Kind {
        gvk: GroupVersionKind::new("example.com", version, "Widget"),
        plural: "widgets".into(),
        singular: "widget".into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: true,
        verbs: vec!["get".into()],
        subresources: Vec::new(),
        storage_version_hash: String::new(),
    }
}

#[test]
fn custom_groups_come_last_with_their_best_version_first() {
    let versions = ["v1beta1", "v1"].map(|v| Version {
        name: v.into(),
        resources: vec![widgets(v)],
        priority: VERSION_PRIORITY,
        is_stale: v == "v1",
    });
    let extra = Group { name: "example.com".into(), priority: CUSTOM_GROUP_PRIORITY, versions: versions.into() };
    let discovery = Discovery::new(vec![extra]);
    assert_eq!(discovery.groups().last().map(|g| g.name.as_str()), Some("example.com"));
    let group = discovery.group("example.com").expect("group");
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let list = discovery.aggregated(false);
    let item = list["items"].as_array().and_then(|l| l.last()).expect("item");
    assert_eq!(item["versions"][0]["freshness"], "Stale");
    assert_eq!(item["versions"][1]["resources"][0]["scope"], "Namespaced");
}

#[test]
fn the_aggregated_core_group_has_no_name() {
    let list = Discovery::built_in().aggregated(true);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    assert!(list["items"][0]["metadata"].get("name").is_none());
    assert_eq!(list["items"][0]["versions"][0]["version"], "v1");
}
