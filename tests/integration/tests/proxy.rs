//! kube-proxy with the host's iptables, in a network namespace of its own: real connections to real endpoints.

use std::path::Path;

use harness::{
    Kubectl, Netns,
    process::{Process, binary, free_port},
    wait_until,
};

const OBJECTS: &str = "
apiVersion: v1
kind: Node
metadata: {name: node}
status: {addresses: [{type: InternalIP, address: 10.50.0.1}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  clusterIP: 10.0.0.99
  ports: [{name: http, port: 80, nodePort: 30080}]
---
apiVersion: v1
kind: Service
metadata: {name: empty}
spec:
  clusterIP: 10.0.0.98
  ports: [{port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: [10.50.0.1], conditions: {ready: true}}
- {addresses: [10.50.0.2], conditions: {ready: true}}
";

struct Host {
    // Processes end before the namespace goes.
    processes: Vec<Process>,
    namespace: Netns,
    directory: tempfile::TempDir,
}

impl Host {
    async fn start() -> Self {
        let directory = tempfile::TempDir::new().expect("temporary directory");
        let namespace = Netns::new();
        let mut host = Self { processes: Vec::new(), namespace, directory };
        let path = host.directory.path().to_path_buf();
        std::fs::write(path.join("tokens.csv"), "t,admin,1,\"system:masters\"\n").expect("tokens");
        let port = free_port();
        host.spawn(
            &binary("kube-apiserver"),
            &[
                "--bind-address=127.0.0.1".to_owned(),
                "--advertise-address=127.0.0.1".to_owned(),
                format!("--secure-port={port}"),
                format!("--cert-dir={}", path.join("certs").display()),
                format!("--embedded-store-dir={}", path.join("store").display()),
                format!("--token-auth-file={}", path.join("tokens.csv").display()),
            ],
        );
        let kubeconfig = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, \
             clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{port}', insecure-skip-tls-verify: true}}}}], \
             users: [{{name: c, user: {{token: t}}}}], contexts: [{{name: c, context: {{cluster: c, user: c}}}}]}}"
        );
        std::fs::write(path.join("kubeconfig"), kubeconfig).expect("kubeconfig");
        std::fs::write(path.join("objects.yaml"), OBJECTS).expect("objects");
        host
    }

    fn spawn(&mut self, program: &Path, arguments: &[String]) {
        let log = self.directory.path().join(format!("log-{}", self.processes.len()));
        self.processes.push(self.namespace.start(program, arguments, log));
    }

    fn kubectl(&self, arguments: &[&str]) -> harness::kubectl::Output {
        let binary = Kubectl::stock().pop().expect("STOCK_KUBECTL names a kubectl");
        let kubeconfig = format!("--kubeconfig={}", self.directory.path().join("kubeconfig").display());
        let mut all = vec![kubeconfig.as_str()];
        all.extend(arguments);
        self.namespace.run(&binary.display().to_string(), &all)
    }

    /// The body that a URL answers with.
    fn curl(&self, url: &str) -> Result<String, String> {
        let output = self.namespace.run("curl", &["-sS", "--max-time", "5", url]);
        if output.code == 0 { Ok(output.out) } else { Err(output.err) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_reach_their_endpoints() {
    let mut host = Host::start().await;
    for (address, body) in [("10.50.0.1", "one"), ("10.50.0.2", "two")] {
        host.namespace.add_address(address);
        let root = host.directory.path().join(body);
        std::fs::create_dir(&root).expect("directory");
        std::fs::write(root.join("index.html"), body).expect("page");
        let arguments = ["-m", "http.server", "8080", "--bind", address, "--directory"];
        let mut arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        arguments.push(root.display().to_string());
        host.spawn(Path::new("python3"), &arguments);
    }
    let manifest = host.directory.path().join("objects.yaml").display().to_string();
    wait_until("the objects to be created", || {
        let output = host.kubectl(&["apply", "-f", &manifest]);
        async move { if output.code == 0 { Ok(()) } else { Err(output.err) } }
    })
    .await;
    let kubeconfig = host.directory.path().join("kubeconfig");
    host.spawn(
        &binary("kube-proxy"),
        &[
            format!("--kubeconfig={}", kubeconfig.display()),
            "--hostname-override=node".to_owned(),
            "--cluster-cidr=10.50.0.0/16".to_owned(),
        ],
    );
    // Connections to the cluster IP are spread over both endpoints.
    for wanted in ["one", "two"] {
        wait_until(&format!("endpoint {wanted} to answer on the cluster IP"), || {
            let answer = host.curl("http://10.0.0.99/");
            async move {
                match answer {
                    Ok(body) if body == wanted => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            }
        })
        .await;
    }
    host.curl("http://10.50.0.1:30080/").expect("the node port answers on an address of the node");
    let refused = host.curl("http://10.0.0.98/").expect_err("no endpoints");
    // curl ends with 7 when refused, with 28 when nothing answers.
    assert!(refused.contains("curl: (7)"), "rejected at once: {refused}");
    let rules = host.namespace.ok("iptables-save", &["-t", "nat"]);
    assert!(rules.contains("--mode random --probability 0.50000000000"), "{rules}");
    assert!(rules.contains("-j DNAT --to-destination 10.50.0.1:8080"), "{rules}");

    // An endpoint that goes is no longer used; the rules of a Service that goes are removed.
    let patch = r#"{"endpoints":[{"addresses":["10.50.0.2"],"conditions":{"ready":true}}]}"#;
    let patched = host.kubectl(&["patch", "endpointslice", "web-1", "--type=merge", "-p", patch]);
    assert_eq!(patched.code, 0, "{}", patched.err);
    wait_until("the first endpoint to be left out", || {
        let rules = host.namespace.ok("iptables-save", &["-t", "nat"]);
        async move { if rules.contains("10.50.0.1:8080") { Err(rules) } else { Ok(()) } }
    })
    .await;
    assert_eq!(host.curl("http://10.0.0.99/").as_deref(), Ok("two"));
    assert_eq!(host.kubectl(&["delete", "service", "web"]).code, 0);
    wait_until("the rules to go", || {
        let rules = host.namespace.ok("iptables-save", &["-t", "nat"]);
        async move { if rules.contains("default/web") { Err(rules) } else { Ok(()) } }
    })
    .await;
}
