//! A kube-apiserver of its own for a test.

use std::path::{Path, PathBuf};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    process::{Process, binary, free_port},
    wait::wait_until,
};

/// Token of a member of `system:masters`.
pub const ADMIN_TOKEN: &str = "admin-token";
/// Token of a user without any rights.
pub const NOBODY_TOKEN: &str = "nobody-token";

/// A running server on the embedded store (or on etcd).
pub struct ApiServer {
    directory: TempDir,
    port: u16,
    arguments: Vec<String>,
    process: Option<Process>,
}

impl ApiServer {
    /// Starts a server on the embedded store and waits until it is ready.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with more flags.
    pub async fn start_with(more: &[&str]) -> Self {
        let directory = TempDir::new().expect("temporary directory");
        let path = directory.path();
        let tokens = format!("{ADMIN_TOKEN},admin,1,\"system:masters\"\n{NOBODY_TOKEN},nobody,2\n");
        std::fs::write(path.join("tokens.csv"), tokens).expect("token file");
        let port = free_port();
        let mut arguments = vec![
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", path.join("certs").display()),
            format!("--token-auth-file={}", path.join("tokens.csv").display()),
        ];
        let told = |flag: &&str| flag.starts_with("--etcd-servers") || flag.starts_with("--embedded-store-dir");
        if !more.iter().any(told) {
            arguments.push(format!("--embedded-store-dir={}", path.join("store").display()));
        }
        if more.iter().any(|flag| flag.starts_with("--etcd-servers=")) {
            let key = path.join("signing.key");
            std::fs::write(&key, rcgen::KeyPair::generate().expect("a key").serialize_pem()).expect("key file");
            arguments.push(format!("--service-account-signing-key-file={}", key.display()));
            arguments.push("--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned());
        }
        if !more.iter().any(|flag| flag.starts_with("--authorization-")) {
            arguments.push("--authorization-mode=Node,RBAC".to_owned());
        }
        arguments.extend(more.iter().map(|flag| (*flag).to_owned()));
        let mut server = Self { directory, port, arguments, process: None };
        server.restart().await;
        server
    }

    /// Starts the process (again) and waits until it is ready.
    pub async fn restart(&mut self) {
        self.kill();
        let log = self.directory.path().join("log");
        let mut process = Process::start(&binary("kube-apiserver"), &self.arguments, log);
        let client = self.client(ADMIN_TOKEN).await;
        wait_until("the server to be ready", || {
            let ended = process.ended();
            let log = process.output();
            let client = client.clone();
            async move {
                assert!(ended.is_none(), "kube-apiserver ended with {ended:?}: {log}");
                let request = http_get("/readyz");
                match client.request_text(request).await {
                    Ok(text) if text == "ok" => Ok(()),
                    Ok(text) => Err(text),
                    Err(error) => Err(error.to_string()),
                }
            }
        })
        .await;
        self.process = Some(process);
    }

    /// Kills the process as `kill -9` does.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Process id of the server.
    pub fn id(&self) -> u32 {
        self.process.as_ref().map_or(0, Process::id)
    }

    /// Its exit code, if it has ended.
    pub fn ended(&mut self) -> Option<i32> {
        self.process.as_mut().and_then(Process::ended)
    }

    /// Base URL.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Files of the server.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A kubeconfig for a token.
    pub fn kubeconfig(&self, token: &str) -> Kubeconfig {
        let value = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url(), "insecure-skip-tls-verify": true}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        serde_json::from_value(value).expect("a kubeconfig")
    }

    /// A kubeconfig file for a token.
    pub fn kubeconfig_file(&self, token: &str) -> PathBuf {
        let path = self.path().join(format!("{token}.kubeconfig"));
        let text = serde_yaml::to_string(&self.kubeconfig(token)).expect("YAML");
        std::fs::write(&path, text).expect("kubeconfig file");
        path
    }

    /// A client for a token.
    pub async fn client(&self, token: &str) -> Client {
        Client::try_from(self.config(token).await).expect("client")
    }

    /// A client that shows every answer: it tries nothing again by itself.
    pub async fn plain_client(&self, token: &str) -> Client {
        let mut config = self.config(token).await;
        config.default_retry = false;
        Client::try_from(config).expect("client")
    }

    async fn config(&self, token: &str) -> Config {
        let options = KubeConfigOptions::default();
        Config::from_custom_kubeconfig(self.kubeconfig(token), &options).await.expect("configuration")
    }

    /// A client of the administrator.
    pub async fn admin(&self) -> Client {
        self.client(ADMIN_TOKEN).await
    }
}

/// A GET of a path.
pub fn http_get(path: &str) -> http::Request<Vec<u8>> {
    http::Request::get(path).body(Vec::new()).expect("a request")
}
