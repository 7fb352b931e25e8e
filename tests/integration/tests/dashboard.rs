//! The dashboard as a process, with a real API server: what it serves, passes on, and refuses.
//!
//! Processes, because what counts is whose rights a request has at the end; which requests are refused is unit tested.

use harness::{
    ApiServer,
    process::{Process, binary, free_port},
    server::{ADMIN_TOKEN, NOBODY_TOKEN},
    wait_until,
};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, ServiceAccount},
    rbac::v1::{Role, RoleBinding},
};
use kube::{Api, api::PostParams};
use serde_json::json;

struct Scene {
    server: ApiServer,
    dashboard: Process,
    port: u16,
}

impl Scene {
    async fn new() -> Self {
        let server = ApiServer::start().await;
        let (port, metrics) = (free_port(), free_port());
        // Credentials of an administrator are lent to it, and must not be used.
        let arguments = [
            format!("--kubeconfig={}", server.kubeconfig_file(ADMIN_TOKEN).display()),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--port={port}"),
            format!("--metrics-bind-address=127.0.0.1:{metrics}"),
        ];
        let log = server.path().join("dashboard.log");
        let dashboard = Process::start(&binary("timonel-dashboard"), &arguments, log);
        let scene = Self { server, dashboard, port };
        scene.sees("/", "", "HTTP/2 200").await;
        scene
    }

    async fn curl(&self, path: &str, more: &str) -> String {
        let line = format!("curl -s -k -i -m 20 {more} 'https://127.0.0.1:{}{path}'", self.port);
        let output = tokio::process::Command::new("bash").args(["-c", &line]).output().await.expect("bash");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    async fn sees(&self, path: &str, more: &str, wanted: &str) -> String {
        wait_until(&format!("{wanted:?} from {path}"), || async {
            let said = self.curl(path, more).await;
            if said.contains(wanted) { Ok(said) } else { Err(format!("{said}\n{}", self.dashboard.output())) }
        })
        .await
    }

    async fn says(&self, path: &str, more: &str, parts: &[&str]) -> String {
        let said = self.curl(path, more).await;
        assert!(parts.iter().all(|part| said.contains(part)), "{path} {more} lacks one of {parts:?}:\n{said}");
        said
    }
}

fn bearer(token: &str) -> String {
    format!("-H 'Authorization: Bearer {token}'")
}

#[tokio::test]
async fn the_page_and_its_rules() {
    let scene = Scene::new().await;
    let page = scene.says("/", "", &["<div id=\"app\">", "content-type: text/html"]).await;
    for header in [
        "content-security-policy: default-src 'none'; script-src 'self';",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "x-frame-options: DENY",
        "referrer-policy: no-referrer",
    ] {
        assert!(page.contains(header), "{header} is not in {page}");
    }
    assert!(!page.to_lowercase().contains("set-cookie"));
    let script = scene.says("/js/main.js", "", &["text/javascript", "import "]).await;
    let tag = script.lines().find_map(|line| line.strip_prefix("etag: ")).expect("a tag").trim().to_owned();
    scene.says("/js/main.js", &format!("-H 'If-None-Match: {tag}'"), &["HTTP/2 304"]).await;
    scene.says("/js/none.js", "", &["HTTP/2 404"]).await;
    scene.says("/metrics", "", &["HTTP/2 404"]).await;
}

#[tokio::test]
async fn requests_have_the_rights_of_their_token_and_no_others() {
    let scene = Scene::new().await;
    let pods = "/api/v1/namespaces/default/pods";
    scene.says(pods, "", &["HTTP/2 401", "Unauthorized"]).await;
    scene.says(pods, &bearer("wrong"), &["HTTP/2 401"]).await;
    scene.says(pods, &bearer(NOBODY_TOKEN), &["HTTP/2 403", "User \\\"nobody\\\" cannot list resource"]).await;
    let admin = bearer(ADMIN_TOKEN);
    let table = format!("{admin} -H 'Accept: application/json;as=Table;v=v1;g=meta.k8s.io'");
    scene.says(pods, &table, &["HTTP/2 200", "columnDefinitions", "cache-control: no-store"]).await;
    // Impersonation and other headers do not pass.
    scene.says(pods, &format!("{} -H 'Impersonate-User: admin'", bearer(NOBODY_TOKEN)), &["403", "nobody"]).await;

    // A service account that may read ConfigMaps of one namespace.
    let client = scene.server.admin().await;
    let created = PostParams::default();
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), "default");
    accounts
        .create(&created, &serde_json::from_value(json!({"metadata": {"name": "reader"}})).expect("valid"))
        .await
        .expect("created");
    let role: Role = serde_json::from_value(json!({"metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]}))
    .expect("valid");
    Api::<Role>::namespaced(client.clone(), "default").create(&created, &role).await.expect("created");
    let binding: RoleBinding = serde_json::from_value(json!({"metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}]}))
    .expect("valid");
    Api::<RoleBinding>::namespaced(client.clone(), "default").create(&created, &binding).await.expect("created");
    let spec = TokenRequestSpec { audiences: Some(Vec::new()), ..TokenRequestSpec::default() };
    let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
    let token = accounts.create_token_request("reader", &created, &request).await.expect("a token");
    let reader = bearer(&token.status.and_then(|status| status.token).expect("a token"));
    let review = "-X POST -H 'Content-Type: application/json' -d '{\"apiVersion\":\"authentication.k8s.io/v1\",\"kind\":\"SelfSubjectReview\"}'";
    let who = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    scene.says(who, &format!("{reader} {review}"), &["system:serviceaccount:default:reader"]).await;
    scene.sees("/api/v1/namespaces/default/configmaps", &reader, "HTTP/2 200").await;
    scene.says("/api/v1/namespaces/default/secrets", &reader, &["HTTP/2 403"]).await;
    scene.says("/api/v1/namespaces/kube-system/configmaps", &reader, &["HTTP/2 403"]).await;
}

#[tokio::test]
async fn edits_and_watches_pass_and_foreign_requests_do_not() {
    let scene = Scene::new().await;
    let admin = bearer(ADMIN_TOKEN);
    let maps = Api::<ConfigMap>::namespaced(scene.server.admin().await, "default");
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "settings"}, "data": {"a": "1"}})).expect("valid");
    let made = maps.create(&PostParams::default(), &map).await.expect("created");
    let revision = made.metadata.resource_version.expect("a version");
    let path = "/api/v1/namespaces/default/configmaps/settings?fieldManager=timonel-dashboard&force=true";
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata:\n  a: \"2\"\n";
    std::fs::write(scene.server.path().join("edit.yaml"), yaml).expect("written");
    let edit = format!(
        "{admin} -X PATCH -H 'Content-Type: application/apply-patch+yaml' --data-binary @{}",
        scene.server.path().join("edit.yaml").display()
    );
    scene.says(path, &edit, &["HTTP/2 200", "\"a\":\"2\""]).await;
    let watch = format!(
        "/api/v1/namespaces/default/configmaps?watch=true&resourceVersion={revision}&timeoutSeconds=1&fieldSelector=metadata.name=settings"
    );
    scene.says(&watch, &admin, &["HTTP/2 200", "\"type\":\"MODIFIED\"", "\"a\":\"2\""]).await;

    for (path, more) in [
        ("/api/v1/pods", "-H 'Sec-Fetch-Site: cross-site'"),
        ("/api/v1/pods", "-H 'Origin: https://evil.example' -H 'Sec-Fetch-Site: cross-site'"),
        ("/api/v1/namespaces/default/services/web/proxy/", ""),
        ("/api/v1/namespaces/default/pods/web/pro%78y/", ""),
        ("/api/v1/nodes/n/proxy/", ""),
    ] {
        scene.says(path, &format!("{admin} {more}"), &["HTTP/2 403", "\"kind\":\"Status\""]).await;
    }
    scene.says("/metrics", &admin, &["HTTP/2 404"]).await;
    let big = format!("head -c 4000000 /dev/zero >{0}/big", scene.server.path().display());
    tokio::process::Command::new("bash").args(["-c", &big]).status().await.expect("bash");
    let post = format!("{admin} -X POST --data-binary @{}/big", scene.server.path().display());
    // curl may lose the answer when the stream ends while it still sends.
    scene.sees("/api/v1/namespaces/default/configmaps", &post, "HTTP/2 413").await;

    // A WebSocket shows its token as a subprotocol.
    let token = data_encoding(ADMIN_TOKEN);
    let socket = |protocol: &str| {
        format!(
            "--http1.1 -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' \
             -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==' -H 'Sec-WebSocket-Protocol: v5.channel.k8s.io{protocol}'"
        )
    };
    let exec = "/api/v1/namespaces/default/pods/none/exec?command=sh&stdin=true&stdout=true&tty=true";
    scene.says(exec, &socket(""), &["401 Unauthorized"]).await;
    let with_token = socket(&format!(", base64url.bearer.authorization.k8s.io.{token}"));
    scene.says(exec, &with_token, &["404 Not Found", "pods \\\"none\\\" not found"]).await;
}

/// Base64 for URLs, without padding.
fn data_encoding(text: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for group in text.as_bytes().chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..=group.len() {
            out.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    out
}
