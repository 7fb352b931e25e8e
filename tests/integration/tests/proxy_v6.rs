//! kube-proxy with Services of IPv6, with real connections in a network namespace. What it watches comes from a small
//! stand-in for the API server: a Service needs a cluster IP of the other family, whatever ranges a server has.

use std::path::Path;

use harness::{
    Netns,
    process::{Process, binary},
    wait_until,
};
use serde_json::{Value, json};

/// Answers lists with fixed objects, and watches with silence.
const API: &str = r#"
import json, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

objects = json.load(open(sys.argv[1]))

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, code, body):
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if "sendInitialEvents=true" in query:
            return self.answer(422, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Invalid",
                "message": "lists only", "code": 422})
        if "watch=true" in query:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            return threading.Event().wait()
        kind = path.rsplit("/", 1)[1]
        self.answer(200, {"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"},
            "items": objects.get(kind, [])})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answer(201, {"kind": "Event", "apiVersion": "v1", "metadata": {"name": "e", "namespace": "default"}})

ThreadingHTTPServer(("127.0.0.1", 8001), Handler).serve_forever()
"#;

fn meta(name: &str) -> Value {
    json!({"name": name, "namespace": "default", "uid": name, "resourceVersion": "1"})
}

fn objects() -> Value {
    let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}]);
    let service = |name: &str, ip: &str, more: Value| {
        let mut spec = json!({"clusterIP": ip, "clusterIPs": [ip], "ports": ports, "type": "ClusterIP"});
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        json!({"metadata": meta(name), "spec": spec})
    };
    let slice = |name: &str| {
        let mut metadata = meta(name);
        metadata["labels"] = json!({"kubernetes.io/service-name": name});
        json!({"metadata": metadata, "addressType": "IPv6", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["fd00:50::1"], "nodeName": "node"}, {"addresses": ["fd00:50::2"]}]})
    };
    let node_ports = json!([{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}]);
    let addresses = ["10.60.0.1", "fd00:60::1"].map(|ip| json!({"type": "InternalIP", "address": ip}));
    json!({
        "nodes": [{"metadata": {"name": "node", "uid": "node", "resourceVersion": "1"},
            "status": {"addresses": addresses}}],
        "services": [
            service("web", "fd00:10::99", json!({"type": "NodePort", "ports": node_ports, "externalIPs": ["2001:db8::7"]})),
            service("sticky", "fd00:10::97", json!({"sessionAffinity": "ClientIP"})),
            service("empty", "fd00:10::98", json!({})),
        ],
        "endpointslices": [slice("web"), slice("sticky")],
        "servicecidrs": [{"metadata": {"name": "kubernetes", "uid": "c", "resourceVersion": "1"},
            "spec": {"cidrs": ["fd00:10::/112"]}}],
    })
}

struct Host {
    // Processes end before the namespace goes.
    processes: Vec<Process>,
    namespace: Netns,
    directory: tempfile::TempDir,
}

impl Host {
    fn spawn(&mut self, program: &Path, arguments: &[&str]) {
        let log = self.directory.path().join(format!("log-{}", self.processes.len()));
        let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        self.processes.push(self.namespace.start(program, &arguments, log));
    }

    fn curl(&self, url: &str) -> Result<String, String> {
        let output = self.namespace.run("curl", &["-sSg", "--max-time", "5", url]);
        if output.code == 0 { Ok(output.out) } else { Err(output.err) }
    }

    fn start(mode: &str) -> Self {
        let directory = tempfile::TempDir::new().expect("temporary directory");
        let mut host = Self { processes: Vec::new(), namespace: Netns::new(), directory };
        let path = host.directory.path().to_path_buf();
        let file = |name: &str, text: &str| {
            let path = path.join(name);
            std::fs::write(&path, text).expect("a file");
            path.display().to_string()
        };
        for (device, address) in [("uplink", "fd00:60::1/64"), ("lo", "fd00:50::1/128"), ("lo", "fd00:50::2/128")] {
            host.namespace.ok("ip", &["-6", "address", "add", address, "dev", device, "nodad"]);
        }
        host.namespace.ok("ip", &["-6", "route", "add", "default", "dev", "uplink"]);
        for (address, body) in [("fd00:50::1", "one"), ("fd00:50::2", "two")] {
            let root = path.join(body);
            std::fs::create_dir(&root).expect("directory");
            std::fs::write(root.join("index.html"), body).expect("page");
            let root = root.display().to_string();
            host.spawn(Path::new("python3"), &["-m", "http.server", "8080", "--bind", address, "--directory", &root]);
        }
        let (program, data) = (file("api.py", API), file("objects.json", &objects().to_string()));
        host.spawn(Path::new("python3"), &[&program, &data]);
        let kubeconfig = file(
            "kubeconfig",
            "{apiVersion: v1, kind: Config, current-context: c, clusters: [{name: c, cluster: {server: 'http://127.0.0.1:8001'}}], \
             users: [{name: c, user: {}}], contexts: [{name: c, context: {cluster: c, user: c}}]}",
        );
        let proxy = binary("kube-proxy");
        let kubeconfig = format!("--kubeconfig={kubeconfig}");
        let mode = format!("--proxy-mode={mode}");
        host.spawn(&proxy, &[&kubeconfig, &mode, "--hostname-override=node", "--cluster-cidr=fd00:50::/64"]);
        host
    }
}

async fn services_reach_their_endpoints(mode: &str) -> Host {
    let host = Host::start(mode);
    for wanted in ["one", "two"] {
        wait_until(&format!("endpoint {wanted} to answer on the cluster IP"), || {
            let answer = host.curl("http://[fd00:10::99]/");
            let log = host.processes.last().map(Process::output).unwrap_or_default();
            async move { if answer.as_deref() == Ok(wanted) { Ok(()) } else { Err(format!("{answer:?} {log}")) } }
        })
        .await;
    }
    host.curl("http://[fd00:60::1]:30080/").expect("the node port answers");
    host.curl("http://[2001:db8::7]/").expect("the external IP answers");
    let first = host.curl("http://[fd00:10::97]/").expect("the sticky one answers");
    assert!((0..20).all(|_| host.curl("http://[fd00:10::97]/").as_ref() == Ok(&first)), "always {first}");
    let refused = host.curl("http://[fd00:10::98]/").expect_err("no endpoints");
    assert!(refused.contains("curl: (7)"), "rejected at once: {refused}");
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn iptables_mode() {
    let host = services_reach_their_endpoints("iptables").await;
    let rules = host.namespace.ok("ip6tables-save", &["-t", "nat"]);
    assert!(rules.contains("--to-destination [fd00:50::1]:8080"), "{rules}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nftables_mode() {
    let host = services_reach_their_endpoints("nftables").await;
    let rules = host.namespace.ok("nft", &["list", "table", "ip6", "kube-proxy"]);
    for wanted in [
        "fd00:10::99 . tcp . 80 : goto service-",
        "0 : fd00:50::1 . 8080",
        "ip6 daddr fd00:10::/112 drop",
        "fd00:50::1 . fd00:50::1 . tcp . 8080",
    ] {
        assert!(rules.contains(wanted), "no {wanted:?} in {rules}");
    }
}
