//! What each subresource does to an object that is there.

use serde_json::{Value, json};

use super::{
    NAMESPACE, Subresource,
    life::{Life, PATCHES, contains},
    wire::{ENCODINGS, Encoding, ask, read},
};

/// Tries all verbs of a subresource.
pub(super) async fn check(life: &mut Life<'_>, subresource: &Subresource, status: Option<&Value>) {
    let path = life.subresource(&subresource.name);
    let verbs: Vec<&str> = subresource.verbs.iter().map(String::as_str).collect();
    match (life.resource.plural.as_str(), subresource.name.as_str(), verbs.as_slice()) {
        (_, "status", ["get", "patch", "update"]) => change(life, &path, &json!({"status": told(life, status)})).await,
        (_, "scale", ["get", "patch", "update"]) => scale(life, &path, subresource).await,
        ("pods", "ephemeralcontainers", ["get", "patch", "update"]) => {
            let container = json!({"name": "debug", "image": "i:1"});
            life.get(&path).await;
            let part = json!({"spec": {"ephemeralContainers": [container]}});
            life.patch(&path, PATCHES[2], &part).await;
            life.update(&path, Encoding::Json, |_| ()).await;
        }
        ("pods", "resize", ["get", "patch", "update"]) => {
            life.get(&path).await;
            let part =
                |cpu: &str| json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
            life.patch(&path, PATCHES[2], &part("200m")).await;
            let resized = life
                .update(&path, Encoding::Json, |pod| {
                    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "300m".into()
                })
                .await;
            assert!(contains(&resized, &part("300m")), "{resized}");
        }
        ("pods", "binding", ["create"]) => {
            let target = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "b"}, "target": {"kind": "Node", "name": "n1"}});
            let pod = other_pod(life, "b").await;
            assert_eq!(post(life, &format!("{pod}/binding"), &target).await.0, 201);
            assert_eq!(life.get(&pod).await["spec"]["nodeName"], "n1");
        }
        ("pods", "eviction", ["create"]) => {
            let pod = other_pod(life, "v").await;
            let eviction =
                json!({"apiVersion": subresource.api_version, "kind": subresource.kind, "metadata": {"name": "v"}});
            assert_eq!(post(life, &format!("{pod}/eviction"), &eviction).await.0, 201);
            assert_eq!(read(life.client, &pod, Encoding::Json).await.0, 404);
        }
        // Nothing is behind these here; what they do has its own tests.
        ("pods", "log" | "exec" | "attach" | "portforward", [.., "get"]) => {
            let query = if subresource.name == "exec" { "?command=true&stdout=true" } else { "?stdout=true" };
            let (code, answer) = read(life.client, &format!("{path}{query}"), Encoding::Json).await;
            let expected = if subresource.name == "log" { 200 } else { 400 };
            assert_eq!(code, expected, "{path}: {answer}");
        }
        ("pods" | "services" | "nodes", "proxy", ["create", "delete", "get", "patch", "update"]) => {
            let (code, answer) = read(life.client, &format!("{path}/"), Encoding::Json).await;
            assert!(matches!(code, 400 | 500..=503), "{path}: {code} {answer}");
        }
        ("serviceaccounts", "token", ["create"]) => {
            let request =
                json!({"apiVersion": subresource.api_version, "kind": subresource.kind, "spec": {"audiences": []}});
            for encoding in ENCODINGS {
                let (code, answer) = ask(life.client, "POST", &path, encoding, &request).await;
                assert_eq!((code, answer["status"]["token"].is_string()), (201, true), "{encoding:?}: {answer}");
            }
        }
        // Each life of a namespace ends with it.
        ("namespaces", "finalize", ["update"]) => (),
        ("certificatesigningrequests", "approval", ["get", "patch", "update"]) => {
            let condition = json!({"type": "Approved", "status": "True", "reason": "R", "message": "m"});
            let approved = life
                .update(&path, Encoding::Json, |request| {
                    let conditions = request["status"]["conditions"].as_array().cloned().unwrap_or_default();
                    request["status"]["conditions"] = conditions.into_iter().chain([condition.clone()]).collect();
                })
                .await;
            assert!(contains(&approved["status"], &json!({"conditions": [condition]})), "{approved}");
            life.patch(&path, PATCHES[1], &json!({})).await;
        }
        other => panic!("no case for {other:?}"),
    }
}

/// The status that the table has for a kind.
fn told<'a>(life: &Life<'_>, status: Option<&'a Value>) -> &'a Value {
    status.unwrap_or_else(|| panic!("objects.yaml has no status for {}", life.resource.kind))
}

/// Changes a part of an object through a subresource in every way.
async fn change(life: &mut Life<'_>, path: &str, part: &Value) {
    life.get(path).await;
    for encoding in ENCODINGS {
        let updated = life
            .update(path, encoding, |object| {
                for (name, value) in part.as_object().into_iter().flatten() {
                    match (object.get_mut(name), value) {
                        (Some(Value::Object(own)), Value::Object(new)) => own.extend(new.clone()),
                        _ => object[name] = value.clone(),
                    }
                }
            })
            .await;
        assert!(contains(&updated, part), "PUT {path} {encoding:?}: {updated}");
    }
    for content_type in PATCHES {
        life.patch(path, content_type, part).await;
    }
    assert!(contains(&life.get(path).await, part), "{path}");
}

async fn scale(life: &mut Life<'_>, path: &str, subresource: &Subresource) {
    for (replicas, encoding) in ENCODINGS.into_iter().enumerate() {
        let scaled = life.update(path, encoding, |scale| scale["spec"] = json!({"replicas": replicas + 1})).await;
        assert_eq!(
            (&scaled["kind"], &scaled["apiVersion"]),
            (&json!(subresource.kind), &json!(subresource.api_version))
        );
        assert_eq!(life.get(&life.item()).await["spec"]["replicas"], replicas + 1, "{path}");
    }
    for (replicas, content_type) in PATCHES.into_iter().enumerate().take(3) {
        life.patch(path, content_type, &json!({"spec": {"replicas": replicas + 1}})).await;
        assert_eq!(life.get(&life.item()).await["spec"]["replicas"], replicas + 1, "{path}");
    }
}

async fn post(life: &Life<'_>, path: &str, object: &Value) -> (u16, Value) {
    ask(life.client, "POST", path, Encoding::Json, object).await
}

/// A Pod that the life does not watch.
async fn other_pod(life: &Life<'_>, name: &str) -> String {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"containers": [{"name": "c", "image": "i:1"}]},
    });
    let (code, answer) = post(life, &life.resource.collection(), &pod).await;
    assert_eq!(code, 201, "{answer}");
    life.resource.item(name)
}
