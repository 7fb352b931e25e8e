use std::collections::HashSet;

use machinery::schema::{ListType, Shape, TypeId};
use serde_json::{Value, json};

use super::*;

#[test]
fn every_stored_kind_has_a_schema() {
    for kind in api().kinds() {
        assert!(api().schema(&kind.gvk).is_some(), "{:?}", kind.gvk);
    }
    assert!(api().kinds().len() > 60);
}

#[test]
fn pods_are_as_discovery_shows_them() {
    let pods = api().resource("", "v1", "pods").expect("pods");
    assert_eq!(pods.short_names, ["po"]);
    assert!(pods.namespaced && pods.is_stored());
    let eviction = pods.subresources.iter().find(|s| s.name == "eviction").expect("eviction");
    assert_eq!(eviction.gvk, GroupVersionKind::new("policy", "v1", "Eviction"));
    assert!(eviction.foreign);
}

#[test]
fn fields_carry_their_facts() {
    let schema = api().schema(&GroupVersionKind::new("", "v1", "Pod")).expect("schema");
    let containers = schema.field("spec").and_then(|s| s.field_fact("containers")).expect("containers");
    assert_eq!(containers.merge_key.as_deref(), Some("name"));
    assert!(containers.patch_merge && containers.protobuf > 0);
}

#[test]
fn keys_follow_upstreams_layout() {
    assert_eq!(storage_prefix("", "nodes"), "minions/");
    assert_eq!(storage_prefix("apps", "deployments"), "deployments/");
    assert_eq!(
        storage_prefix("apiextensions.k8s.io", "customresourcedefinitions"),
        "apiextensions.k8s.io/customresourcedefinitions/"
    );
}

fn schema(group: &str, version: &str, kind: &str) -> SchemaRef<'static> {
    api().schema(&GroupVersionKind::new(group, version, kind)).expect(kind)
}

#[test]
fn the_table_holds_all_facts() {
    let rows: Vec<Row> = serde_json::from_str(include_str!("../data/resources.json")).expect("rows");
    assert_eq!(rows.len(), 150);
    let types: HashMap<String, Value> = serde_json::from_str(include_str!("../data/types.json")).expect("types");
    assert_eq!(types.len(), 771);
    let ga = rows.iter().filter(|r| !r.group_version.contains("alpha") && !r.group_version.contains("beta"));
    let (main, sub): (Vec<&Row>, Vec<&Row>) = ga.partition(|r| !r.name.contains('/'));
    assert_eq!(api().kinds().len(), main.len());
    assert_eq!(api().kinds().iter().map(|k| k.subresources.len()).sum::<usize>(), sub.len());
    for row in main {
        let version = GroupVersion::parse(&row.group_version).expect("version");
        let kind = api().resource(&version.group, &version.version, &row.name).expect(&row.name);
        assert_eq!((&kind.verbs, kind.namespaced, &kind.gvk.kind), (&row.verbs, row.namespaced, &row.kind));
    }
    for (name, row) in &types {
        let id = api().types().named(name).expect(name);
        let known = row["fields"].as_object().map_or(0, serde_json::Map::len);
        if let Shape::Struct(fields) = api().types().get(id).shape() {
            assert_eq!(fields.len(), known, "{name}");
        }
    }
}

#[test]
fn every_type_of_a_kind_is_known() {
    fn walk(schema: SchemaRef<'static>, at: &str, seen: &mut HashSet<String>, free: &mut Vec<String>) {
        let name = &schema.get().name;
        if !name.is_empty() && !seen.insert(name.clone()) {
            return;
        }
        let inner: Vec<(String, TypeId)> = match schema.shape() {
            Shape::Struct(fields) => fields.iter().map(|(n, f)| (n.clone(), f.type_id)).collect(),
            Shape::List { item, .. } => vec![("[]".into(), *item)],
            Shape::Map { value } => vec![("{}".into(), *value)],
            Shape::Any => {
                free.push(format!("{at} {name}"));
                Vec::new()
            }
            _ => Vec::new(),
        };
        for (field, id) in inner {
            walk(schema.follow(id), &format!("{at}.{field}"), seen, free);
        }
    }
    let (mut seen, mut free) = (HashSet::new(), Vec::new());
    for kind in api().kinds() {
        let schema = api().schema(&kind.gvk).expect("schema");
        walk(schema, &kind.gvk.kind, &mut seen, &mut free);
    }
    let unnamed: Vec<&String> = free.iter().filter(|f| f.ends_with(' ')).collect();
    assert!(unnamed.is_empty(), "{unnamed:?}");
}

#[test]
fn lists_know_how_they_merge() {
    let spec = schema("", "v1", "Pod").field("spec").expect("spec");
    let ports = spec.field("containers").and_then(|c| c.item()).and_then(|c| c.field("ports")).expect("ports");
    let keys = Box::from(["containerPort".to_owned(), "protocol".to_owned()]);
    assert!(matches!(ports.shape(), Shape::List { merge, .. } if *merge == ListType::Map(keys)));
    let protocol = ports.item().and_then(|p| p.field_fact("protocol")).expect("protocol");
    assert_eq!(protocol.default, Some(json!("TCP")));
    assert!(spec.field("nodeSelector").is_some_and(|s| s.get().atomic));
    let claim = schema("", "v1", "PersistentVolume").field("spec").and_then(|s| s.field("claimRef"));
    assert!(claim.is_some_and(|s| s.get().atomic));
    let strategy = schema("apps", "v1", "Deployment").field("spec").and_then(|s| s.field_fact("strategy"));
    assert!(strategy.is_some_and(|f| f.retain_keys));
    assert!(matches!(schema("", "v1", "ConfigMap").field("binaryData").map(SchemaRef::shape), Some(Shape::Map { .. })));
}

#[test]
fn a_pod_is_patched_strategically() {
    let pod = json!({"metadata": {"name": "p", "labels": {"a": "1"}}, "spec": {
        "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}],
        "volumes": [{"name": "v", "emptyDir": {}}],
        "tolerations": [{"key": "x"}],
    }});
    let patch = json!({"metadata": {"labels": {"a": null, "b": "2"}}, "spec": {
        "containers": [{"name": "c", "ports": [{"containerPort": 81}]}, {"name": "d", "image": "j"}],
        "volumes": [{"$retainKeys": ["name", "configMap"], "name": "v", "configMap": {"name": "m"}}],
        "tolerations": [{"key": "y"}],
    }});
    let patched = machinery::patch::strategic::apply(&pod, &patch, schema("", "v1", "Pod")).expect("patched");
    assert_eq!(
        patched,
        json!({"metadata": {"name": "p", "labels": {"b": "2"}}, "spec": {
            "containers": [
                {"name": "c", "image": "i", "ports": [{"containerPort": 80}, {"containerPort": 81}]},
                {"name": "d", "image": "j"},
            ],
            "volumes": [{"name": "v", "configMap": {"name": "m"}}],
            "tolerations": [{"key": "y"}],
        }})
    );
}

#[test]
fn creating_a_deployment_is_tracked_as_upstream_does() {
    let mut deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"app": "d"}},
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "d"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
        "template": {"metadata": {"labels": {"app": "d"}}, "spec": {
            "containers": [{"name": "c", "image": "i", "resources": {}, "ports": [{"containerPort": 80, "protocol": "TCP"}]}],
            "securityContext": {},
        }},
    }});
    let writer = machinery::managed::Writer {
        manager: "kubectl-create",
        api_version: "apps/v1",
        subresource: "",
        now: "2024-01-01T00:00:00Z",
    };
    let schema = schema("apps", "v1", "Deployment");
    machinery::managed::update(None, &mut deployment, &writer, schema).expect("tracked");
    assert_eq!(
        deployment["metadata"]["managedFields"][0]["fieldsV1"],
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}}, "f:type": {}},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {
                        "f:containers": {"k:{\"name\":\"c\"}": {
                            ".": {}, "f:name": {}, "f:image": {}, "f:resources": {},
                            "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                                ".": {}, "f:containerPort": {}, "f:protocol": {},
                            }},
                        }},
                        "f:securityContext": {},
                    },
                },
            },
        })
    );
}

#[test]
fn mistyped_fields_are_named_as_go_names_them() {
    let mut pod = json!({"spec": {"containers": [{"name": "c", "image": 5}]}, "foo": 1});
    let problems = machinery::decode::check_fields(&mut pod, schema("", "v1", "Pod"));
    assert_eq!(
        problems.type_error(),
        Some("json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string")
    );
    assert_eq!(problems.texts(), ["unknown field \"foo\""]);
}

#[test]
fn protobuf_fields_have_the_names_of_json() {
    let types: Value = serde_json::from_str(include_str!("../data/types.json")).expect("JSON");
    let mut wrong = Vec::new();
    for (definition, facts) in types.as_object().expect("definitions") {
        let Some(message) = protobuf::message_of(definition) else { continue };
        for (name, fact) in facts["fields"].as_object().into_iter().flatten() {
            let Some(number) = fact["pb"].as_u64().and_then(|n| u32::try_from(n).ok()) else { continue };
            if message.by_number(number).is_some_and(|field| field.name != *name) {
                wrong.push(format!("{definition} {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn zeros_that_say_something_stay_in_protobuf() {
    let both_ways = |object: &Value| {
        let bytes = crate::encode::encode(object).expect("encoded");
        crate::decode::decode(&bytes).expect("decoded").1
    };
    for object in [
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.1"], "conditions": {"ready": false}}], "ports": [{"name": ""}]}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {}, "spec": {"holderIdentity": ""}}),
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {}, "spec": {
            "selector": {}, "template": {}, "updateStrategy": {"rollingUpdate": {"maxSurge": 0}}}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": [{"name": "c"}], "volumes": [
            {"name": "v", "projected": {"sources": [{"downwardAPI": {"items": [{"path": "p"}]}}]}}]}}),
    ] {
        assert_eq!(both_ways(&object), object);
    }
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {
        "containers": [{"name": "c", "env": [{"name": "A", "value": ""}]}], "tolerations": [{"key": "k", "value": ""}]}});
    let told = both_ways(&pod);
    assert_eq!(told["spec"]["containers"][0]["env"], json!([{"name": "A"}]), "Go writes this zero and means none");
    assert_eq!(told["spec"]["tolerations"], json!([{"key": "k"}]));
}
