//! The Ingress controller as a process, with a real API server and back ends that listen, in a network namespace of
//! their own: addresses of EndpointSlices cannot be loopback.
//!
//! Processes, because watches, TLS, status and the end of the process are tested; decisions are unit tests.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::{Router, extract::Request, http::StatusCode, routing::any};
use harness::{
    ApiServer,
    process::{Process, binary, free_port},
    server::ADMIN_TOKEN,
    wait_until,
};
use k8s_openapi::api::{
    core::v1::{Event, Secret, Service},
    discovery::v1::EndpointSlice,
    networking::v1::{Ingress, IngressClass},
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Address of back ends and of the controller.
const ADDRESS: &str = "10.61.0.1";

struct Scene {
    server: ApiServer,
    client: Client,
    controller: Process,
    http: u16,
    https: u16,
    health: u16,
}

/// Runs a test on a network of its own.
fn on_a_network<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace; the tests need root");
    for arguments in [&["link", "set", "lo", "up"][..], &["address", "add", "10.61.0.1/32", "dev", "lo"]] {
        assert!(Command::new("ip").args(arguments).status().expect("ip").success());
    }
    // The threads of the runtime are made by this one, and so are on the same network.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test());
}

impl Scene {
    async fn new(flags: &[&str]) -> Self {
        let server = ApiServer::start().await;
        let client = server.admin().await;
        let (http, https, health) = (free_port(), free_port(), free_port());
        let mut arguments = vec![
            format!("--kubeconfig={}", server.kubeconfig_file(ADMIN_TOKEN).display()),
            format!("--http-port={http}"),
            format!("--https-port={https}"),
            format!("--healthz-port={health}"),
            format!("--publish-status-address={ADDRESS}"),
        ];
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let controller = Process::start(&binary("timonel-ingress"), &arguments, server.path().join("ingress.log"));
        let scene = Self { server, client, controller, http, https, health };
        let class = json!({"metadata": {"name": "nginx",
            "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
            "spec": {"controller": "k8s.io/ingress-nginx"}});
        let class: IngressClass = serde_json::from_value(class).expect("valid");
        Api::all(scene.client.clone()).create(&PostParams::default(), &class).await.expect("created");
        scene.sees(&format!("curl -s -m 5 http://127.0.0.1:{health}/readyz"), "ok").await;
        scene
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn put<K>(&self, object: Value)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        let mut object = object;
        object["apiVersion"] = K::api_version(&()).into();
        object["kind"] = K::kind(&()).into();
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        let params = PatchParams::apply("test").force();
        self.api::<K>().patch(&name, &params, &Patch::Apply(&object)).await.expect("applied");
    }

    /// A Service with back ends at some ports.
    async fn service(&self, name: &str, ports: &[u16]) {
        let spec = json!({"ports": [{"name": "http", "port": 80}]});
        self.put::<Service>(json!({"metadata": {"name": name}, "spec": spec})).await;
        for (number, port) in ports.iter().enumerate() {
            self.put::<EndpointSlice>(json!({
                "metadata": {"name": format!("{name}-{number}"), "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4", "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
                "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": true}}]}))
                .await;
        }
    }

    async fn ingress(&self, name: &str, annotations: Value, spec: Value) {
        let mut prefixed = serde_json::Map::new();
        for (key, value) in annotations.as_object().into_iter().flatten() {
            prefixed.insert(format!("nginx.ingress.kubernetes.io/{key}"), value.clone());
        }
        self.put::<Ingress>(json!({"metadata": {"name": name, "annotations": prefixed}, "spec": spec})).await;
    }

    /// Types a line until it prints this.
    async fn sees(&self, line: &str, wanted: &str) -> String {
        wait_until(&format!("{wanted:?} from {line}"), || async {
            let said = shell(line).await;
            if said.contains(wanted) { Ok(said) } else { Err(format!("{said}\n{}", self.controller.output())) }
        })
        .await
    }

    fn curl(&self, host: &str, path: &str) -> String {
        format!("curl -s -i -m 20 -H 'Host: {host}' 'http://{ADDRESS}:{}{path}'", self.http)
    }

    fn curl_tls(&self, host: &str, path: &str, more: &str) -> String {
        let port = self.https;
        format!("curl -s -i -m 20 {more} --resolve {host}:{port}:{ADDRESS} 'https://{host}:{port}{path}'")
    }
}

async fn shell(line: &str) -> String {
    let output = tokio::process::Command::new("bash").args(["-c", line]).output().await.expect("bash");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn path(path: &str, kind: &str, service: &str) -> Value {
    json!({"path": path, "pathType": kind, "backend": {"service": {"name": service, "port": {"number": 80}}}})
}

fn rule(host: &str, paths: &[Value]) -> Value {
    json!({"host": host, "http": {"paths": paths}})
}

/// A back end that tells its name and what it was asked.
async fn backend(name: &'static str) -> u16 {
    let answer = move |request: Request| async move {
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 16 << 20).await.map_or(0, |bytes| bytes.len());
        (StatusCode::OK, format!("{name} {} {} {:?} {body}\n", parts.method, parts.uri, parts.version))
    };
    let listener = TcpListener::bind((ADDRESS, 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(any(answer))).await });
    port
}

#[test]
fn rules_route_and_changes_are_followed() {
    on_a_network(|| async {
        let scene = Scene::new(&[]).await;
        let (one, two, blog) = (backend("one").await, backend("two").await, backend("blog").await);
        scene.service("service1", &[one]).await;
        scene.service("service2", &[two]).await;
        scene.service("myblog", &[blog]).await;
        let all =
            [path("/foo", "Prefix", "service1"), path("/bar", "Prefix", "service2"), path("/", "Prefix", "myblog")];
        let spec = json!({"rules": [rule("a.b.c", &all), rule("*.w.x", &[path("/", "Prefix", "service2")])]});
        scene.ingress("web", json!({}), spec).await;
        scene.sees(&scene.curl("a.b.c", "/"), "blog GET / HTTP/1.1").await;
        scene.sees(&scene.curl("a.b.c", "/foo/x?y=1"), "one GET /foo/x?y=1").await;
        scene.sees(&scene.curl("a.b.c", "/bar"), "two GET /bar").await;
        scene.sees(&scene.curl("a.b.c", "/foobar"), "blog GET").await;
        scene.sees(&scene.curl("q.w.x", "/"), "two GET").await;
        scene.sees(&scene.curl("unknown", "/"), "HTTP/1.1 404 Not Found").await;

        scene
            .ingress(
                "re",
                json!({"rewrite-target": "/admin/$1"}),
                json!({"rules": [rule("r.w", &[path("/foo/(.*)", "ImplementationSpecific", "service1")])]}),
            )
            .await;
        scene.sees(&scene.curl("r.w", "/foo/list?a=b"), "one GET /admin/list?a=b").await;

        // Addresses come into the status, events tell of every state.
        wait_until("the status", || async {
            let status = scene.api::<Ingress>().get("web").await.map_err(|e| e.to_string())?.status;
            let text = serde_json::to_string(&status).unwrap_or_default();
            if text.contains(&format!("\"ip\":\"{ADDRESS}\"")) { Ok(()) } else { Err(text) }
        })
        .await;
        wait_until("the event", || async {
            let events = scene.api::<Event>().list(&ListParams::default()).await.map_err(|e| e.to_string())?;
            let told =
                |e: &Event| (e.reason.as_deref(), e.message.as_deref()) == (Some("Sync"), Some("Scheduled for sync"));
            events.iter().any(told).then_some(()).ok_or_else(|| format!("{}", events.items.len()))
        })
        .await;
        scene.sees(&format!("curl -s http://127.0.0.1:{}/metrics", scene.health),
            "nginx_ingress_controller_requests{host=\"a.b.c\",ingress=\"web\",method=\"GET\",namespace=\"default\",path=\"/bar\",service=\"service2\",status=\"200\"}").await;

        // An endpoint that is gone is not asked; none at all is 503; a Service under another name is followed.
        scene.api::<EndpointSlice>().delete("service2-0", &DeleteParams::default()).await.expect("deleted");
        scene.sees(&scene.curl("a.b.c", "/bar"), "HTTP/1.1 503 Service Unavailable").await;
        scene.service("service2", &[one]).await;
        scene.sees(&scene.curl("a.b.c", "/bar"), "one GET /bar").await;
        scene.api::<Ingress>().delete("web", &DeleteParams::default()).await.expect("deleted");
        scene.sees(&scene.curl("a.b.c", "/"), "HTTP/1.1 404 Not Found").await;
    });
}

#[test]
fn no_request_is_lost_while_everything_changes() {
    on_a_network(|| async {
        let scene = Scene::new(&[]).await;
        let (one, two) = (backend("one").await, backend("two").await);
        scene.service("web", &[one, two]).await;
        let spec = |extra: usize| {
            let paths: Vec<Value> = (0..=extra).map(|n| path(&format!("/p{n}"), "Prefix", "web")).collect();
            json!({"rules": [rule("a.b", &[paths, vec![path("/", "Prefix", "web")]].concat())]})
        };
        scene.ingress("web", json!({}), spec(0)).await;
        scene.sees(&scene.curl("a.b", "/"), "HTTP/1.1 200").await;
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let port = scene.http;
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
                // One connection each, for the whole time.
                tokio::spawn(async move {
                    let mut stream = TcpStream::connect((ADDRESS, port)).await.expect("connected");
                    while !stop.load(Ordering::Relaxed) {
                        stream.write_all(b"GET /p0 HTTP/1.1\r\nHost: a.b\r\n\r\n").await.expect("sent");
                        let answer = read_answer(&mut stream).await;
                        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for turn in 1..20 {
            scene.ingress("web", json!({"proxy-read-timeout": format!("{}", 60 + turn)}), spec(turn)).await;
            let ports = if turn % 2 == 0 { [two, one] } else { [one, two] };
            scene.service("web", &ports).await;
            let before = count.load(Ordering::Relaxed);
            wait_until("requests", || async {
                let now = count.load(Ordering::Relaxed);
                if now > before + 20 || clients.iter().any(tokio::task::JoinHandle::is_finished) {
                    Ok(())
                } else {
                    Err(now.to_string())
                }
            })
            .await;
        }
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.expect("every request was answered");
        }
    });
}

/// Reads one answer with a Content-Length.
async fn read_answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        let count = stream.read(&mut buffer).await.expect("an answer");
        assert!(count > 0, "the connection ended after {text:?}");
        bytes.extend_from_slice(&buffer[..count]);
    }
}

fn certificate(directory: &std::path::Path, file: &str, host: &str) -> (String, String, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).expect("a name");
    params.distinguished_name.push(rcgen::DnType::CommonName, host);
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    let path = directory.join(file);
    std::fs::write(&path, &certificate).expect("written");
    (certificate, key.serialize_pem(), path.display().to_string())
}

#[test]
fn tls_by_name_redirects_and_new_certificates() {
    on_a_network(|| async {
        let scene = Scene::new(&[]).await;
        scene.service("web", &[backend("web").await]).await;
        let (crt, key, file) = certificate(scene.server.path(), "one.pem", "a.b.c");
        let secret = |crt: &str, key: &str| {
            json!({"metadata": {"name": "https-secret"}, "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": crt, "tls.key": key}})
        };
        let spec = json!({"tls": [{"hosts": ["a.b.c"], "secretName": "https-secret"}],
            "rules": [rule("a.b.c", &[path("/", "Prefix", "web")]), rule("plain", &[path("/", "Prefix", "web")])]});
        scene.ingress("web", json!({}), spec.clone()).await;
        // Until the Secret is there, the certificate is the controller's own.
        let subject = format!("curl -s -v -k --resolve a.b.c:{0}:{ADDRESS} https://a.b.c:{0}/ 2>&1", scene.https);
        scene.sees(&subject, "Fake Certificate").await;
        wait_until("a warning", || async {
            let events = scene.api::<Event>().list(&ListParams::default()).await.map_err(|e| e.to_string())?;
            let told = |e: &Event| e.reason.as_deref() == Some("InvalidCertificate");
            events.iter().any(told).then_some(()).ok_or_else(|| format!("{}", events.items.len()))
        })
        .await;
        scene.put::<Secret>(secret(&crt, &key)).await;
        let answer = scene.sees(&scene.curl_tls("a.b.c", "/", &format!("--cacert {file}")), "web GET / HTTP/1.1").await;
        assert!(answer.contains("HTTP/2 200") && answer.contains("strict-transport-security:"), "{answer}");
        let moved = scene.sees(&scene.curl("a.b.c", "/x?y"), "HTTP/1.1 308").await;
        assert!(moved.contains(&format!("location: https://a.b.c:{}/x?y", scene.https)), "{moved}");
        scene.sees(&scene.curl("plain", "/"), "web GET").await;
        // Another certificate, without a restart.
        let (crt, key, file) = certificate(scene.server.path(), "two.pem", "a.b.c");
        scene.put::<Secret>(secret(&crt, &key)).await;
        scene.sees(&scene.curl_tls("a.b.c", "/", &format!("--http1.1 --cacert {file}")), "web GET").await;
        scene.ingress("web", json!({"ssl-redirect": "false"}), spec).await;
        scene.sees(&scene.curl("a.b.c", "/"), "web GET").await;
    });
}

#[test]
fn other_protocols_and_limits() {
    on_a_network(|| async {
        let scene = Scene::new(&["--shutdown-grace-period=0"]).await;
        scene.service("web", &[backend("web").await]).await;
        let all = || json!({"rules": [rule("a.b", &[path("/", "Prefix", "web")])]});
        scene.ingress("web", json!({"proxy-body-size": "8k"}), all()).await;
        let post = |size: usize| format!("head -c {size} /dev/zero | {} --data-binary @-", scene.curl("a.b", "/"));
        scene.sees(&post(8192), "web POST / HTTP/1.1 8192").await;
        scene.sees(&post(8193), "HTTP/1.1 413 Payload Too Large").await;
        scene.sees(&format!("{} -H 'Transfer-Encoding: chunked'", post(9000)), "HTTP/1.1 413").await;
        scene
            .ingress(
                "grpc",
                json!({"backend-protocol": "GRPC"}),
                json!({"rules": [rule("g.rpc", &[path("/", "Prefix", "web")])]}),
            )
            .await;
        scene.sees(&scene.curl("g.rpc", "/"), "web GET http://g.rpc/ HTTP/2.0").await;
        smuggling(&scene).await;
        web_socket(&scene).await;
    });
}

/// Requests that two servers could understand differently are not passed on.
async fn smuggling(scene: &Scene) {
    for request in [
        "POST / HTTP/1.1\r\nHost: a.b\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nHost: a.b\r\nTransfer-Encoding: gzip\r\n\r\nabcd",
        "GET / HTTP/1.1\r\nHost: a.b\r\nHost: c.d\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET /../x HTTP/1.1\r\nHost: a.b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.b\r\nX : y\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect((ADDRESS, scene.http)).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{request:?}: {answer}");
    }
    // One length counts, the other goes no further, and nothing that follows is taken for a request.
    let both = "POST / HTTP/1.1\r\nHost: a.b\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x";
    let mut stream = TcpStream::connect((ADDRESS, scene.http)).await.expect("connected");
    stream.write_all(both.as_bytes()).await.expect("sent");
    let answer = read_answer(&mut stream).await;
    assert!(answer.contains("connection: close") && answer.ends_with("web POST / HTTP/1.1 0\n"), "{answer}");
}

/// A connection that was upgraded carries bytes both ways, and outlives the order to stop until it ends by itself.
async fn web_socket(scene: &Scene) {
    let listener = TcpListener::bind((ADDRESS, 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a request"));
        }
        let head = String::from_utf8_lossy(&head).to_lowercase();
        assert!(head.contains("upgrade: websocket") && head.contains("sec-websocket-key: x"), "{head}");
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.expect("sent");
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await.expect("echoed");
    });
    scene.service("chat", &[port]).await;
    scene.ingress("chat", json!({}), json!({"rules": [rule("c.hat", &[path("/", "Prefix", "chat")])]})).await;
    let requests = format!("curl -s http://127.0.0.1:{}/metrics", scene.health);
    scene.sees(&requests, "nginx_ingress_controller_ingresses 3").await;
    let mut stream = TcpStream::connect((ADDRESS, scene.http)).await.expect("connected");
    let request = "GET /ws HTTP/1.1\r\nHost: c.hat\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sent");
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let mut buffer = [0; 5];
    for text in [b"hello", b"again"] {
        stream.write_all(text).await.expect("sent");
        stream.read_exact(&mut buffer).await.expect("an echo");
        assert_eq!(&buffer, text);
    }
    let stopped = shell(&format!("kill -TERM {}", scene.controller.id())).await;
    assert_eq!(stopped, "");
    scene.sees(&format!("curl -s -m 5 http://{ADDRESS}:{}/ || echo refused", scene.http), "refused").await;
    stream.write_all(b"still").await.expect("sent");
    stream.read_exact(&mut buffer).await.expect("an echo");
    assert_eq!(&buffer, b"still");
}
