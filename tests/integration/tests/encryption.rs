//! Encryption at rest: what the files of the store hold, and how keys are changed.

use std::{fs, path::Path};

use harness::{ApiServer, kms::KmsPlugin, server::http_get, wait_until};
use http::Request;
use kube::Client;
use serde_json::{Value, json};

const SECRET: &str = "dGhlIHBsYWluIHdvcmRz";

fn configure(path: &Path, providers: &str) {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  \
         providers: [{providers}]\n"
    );
    fs::write(path, text).expect("the configuration");
}

fn key(provider: &str, name: &str, byte: char) -> String {
    // 43 times the same letter is base64 of 32 bytes.
    format!("{{{provider}: {{keys: [{{name: {name}, secret: {}=}}]}}}}", byte.to_string().repeat(43))
}

fn stored(server: &ApiServer, text: &str) -> bool {
    let mut directories = vec![server.path().join("store")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                directories.push(entry);
            } else if fs::read(entry).expect("a file").windows(text.len()).any(|window| window == text.as_bytes()) {
                return true;
            }
        }
    }
    false
}

async fn secret(client: &Client) -> Option<String> {
    let found: Value = client.request(http_get("/api/v1/namespaces/default/secrets/s")).await.ok()?;
    found["data"]["k"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn secrets_are_sealed_and_keys_are_changed() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("encryption.yaml");
    configure(&file, &key("aesgcm", "old", 'A'));
    let flag = format!("--encryption-provider-config={}", file.display());
    let mut server = ApiServer::start_with(&[flag.as_str()]).await;
    let client = server.admin().await;
    for (plural, kind) in [("secrets", "Secret"), ("configmaps", "ConfigMap")] {
        let value = if kind == "Secret" { SECRET } else { "in the open" };
        let object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "s"}, "data": {"k": value}});
        let request = Request::post(format!("/api/v1/namespaces/default/{plural}"));
        let request = request.header("content-type", "application/json").body(object.to_string().into_bytes());
        client.request::<Value>(request.expect("a request")).await.expect("created");
    }
    assert_eq!(secret(&client).await.as_deref(), Some(SECRET));
    assert!(stored(&server, "in the open") && stored(&server, "k8s:enc:aesgcm:v1:old:"));
    assert!(!stored(&server, SECRET), "the plain value is nowhere");

    let both = format!("{}, {}", key("secretbox", "new", 'E'), key("aesgcm", "old", 'A'));
    configure(&file, &both);
    server.restart().await;
    let client = server.admin().await;
    assert_eq!(secret(&client).await.as_deref(), Some(SECRET), "the old key still opens");
    let same: Value = client.request(http_get("/api/v1/namespaces/default/secrets/s")).await.expect("the Secret");
    let request = Request::put("/api/v1/namespaces/default/secrets/s").header("content-type", "application/json");
    let request = request.body(same.to_string().into_bytes()).expect("a request");
    let written: Value = client.request(request).await.expect("replaced");
    assert_ne!(written["metadata"]["resourceVersion"], same["metadata"]["resourceVersion"], "written with the new key");

    configure(&file, &key("secretbox", "new", 'E'));
    server.restart().await;
    assert_eq!(secret(&server.admin().await).await.as_deref(), Some(SECRET), "the old key is needed no more");

    configure(&file, "{identity: {}}");
    server.restart().await;
    let client = server.admin().await;
    assert_eq!(secret(&client).await, None, "without its key a Secret is lost, and nothing else is");
    let map: Value = client.request(http_get("/api/v1/namespaces/default/configmaps/s")).await.expect("the ConfigMap");
    assert_eq!(map["data"]["k"], "in the open");
}

async fn write(client: &Client, method: &str, path: &str, object: &Value) -> Value {
    let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    client.request(request.body(object.to_string().into_bytes()).expect("a request")).await.expect("written")
}

#[tokio::test]
async fn a_plugin_keeps_the_key() {
    let plugin = KmsPlugin::start();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("encryption.yaml");
    let kms = format!("{{kms: {{apiVersion: v2, name: p, endpoint: 'unix://{}'}}}}", plugin.socket().display());
    configure(&file, &format!("{kms}, {{identity: {{}}}}"));
    let flag = format!("--encryption-provider-config={}", file.display());
    let mut server = ApiServer::start_with(&[flag.as_str()]).await;
    let client = server.admin().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": SECRET}});
    let first = write(&client, "POST", secrets, &object).await;
    assert_eq!(secret(&client).await.as_deref(), Some(SECRET));
    assert!(stored(&server, "k8s:enc:kms:v2:p:") && !stored(&server, SECRET));
    let health = client.request_text(http_get("/readyz?verbose")).await.expect("ready");
    assert!(health.contains("[+]kms-provider-0 ok"), "{health}");

    plugin.rotate();
    server.restart().await;
    let client = server.admin().await;
    assert_eq!(secret(&client).await.as_deref(), Some(SECRET), "the old key still opens");
    let again = write(&client, "PUT", &format!("{secrets}/s"), &first).await;
    assert_ne!(again["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"], "written with the new key");
    let same = write(&client, "PUT", &format!("{secrets}/s"), &again).await;
    assert_eq!(same["metadata"]["resourceVersion"], again["metadata"]["resourceVersion"], "and that once only");
}

#[tokio::test]
async fn the_configuration_is_followed() {
    let plugin = KmsPlugin::start();
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("encryption.yaml");
    configure(&file, "{identity: {}}");
    let flag = format!("--encryption-provider-config={}", file.display());
    let server = ApiServer::start_with(&[flag.as_str(), "--encryption-provider-config-automatic-reload"]).await;
    let client = server.admin().await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": SECRET}});
    let first = write(&client, "POST", secrets, &object).await;
    assert!(stored(&server, SECRET));
    let reloads = async |status: &str| {
        wait_until("the file to be read", || {
            let (client, status) = (client.clone(), format!("status=\"{status}\"}} "));
            async move {
                let metrics = client.request_text(http_get("/metrics")).await.map_err(|error| error.to_string())?;
                let name = "apiserver_encryption_config_controller_automatic_reloads_total";
                let found = metrics.lines().any(|line| line.starts_with(name) && line.contains(&status));
                if found { Ok(()) } else { Err("it has not been read".to_owned()) }
            }
        })
        .await;
    };
    configure(&file, "{kms: {apiVersion: v3, name: p, endpoint: 'unix:///none'}}");
    reloads("failure").await;
    assert_eq!(secret(&client).await.as_deref(), Some(SECRET), "a wrong file is ignored");
    let kms = format!("{{kms: {{apiVersion: v2, name: p, endpoint: 'unix://{}'}}}}", plugin.socket().display());
    configure(&file, &format!("{kms}, {{identity: {{}}}}"));
    reloads("success").await;
    write(&client, "PUT", &format!("{secrets}/s"), &first).await;
    assert!(stored(&server, "k8s:enc:kms:v2:p:"));
    assert_eq!(secret(&client).await.as_deref(), Some(SECRET));
    let health = client.request_text(http_get("/readyz?verbose")).await.expect("ready");
    assert!(health.contains("[+]kms-providers ok"), "{health}");
}
