//! Encryption at rest: what the files of the store hold, and how keys are changed.

use std::{fs, path::Path};

use harness::{ApiServer, server::http_get};
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
