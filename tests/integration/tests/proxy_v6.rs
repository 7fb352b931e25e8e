//! kube-proxy in a cluster of two address families: Services of IPv6 and of both, with real connections in a network
//! namespace.

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
status:
  addresses: [{type: InternalIP, address: 10.60.0.1}, {type: InternalIP, address: 'fd00:60::1'}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  clusterIP: 'fd00:10::99'
  clusterIPs: ['fd00:10::99', 10.0.0.99]
  ipFamilyPolicy: RequireDualStack
  externalIPs: ['2001:db8::7', 192.0.2.7]
  ports: [{name: http, port: 80, nodePort: 30080}]
---
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec:
  clusterIP: 'fd00:10::97'
  sessionAffinity: ClientIP
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: empty}
spec:
  clusterIP: 'fd00:10::98'
  clusterIPs: ['fd00:10::98', 10.0.0.98]
  ipFamilyPolicy: PreferDualStack
  ports: [{name: http, port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-6, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: ['fd00:50::1'], nodeName: node, conditions: {ready: true}}
- {addresses: ['fd00:50::2'], conditions: {ready: true}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-4, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: [10.50.0.1], conditions: {ready: true}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: sticky-6, labels: {kubernetes.io/service-name: sticky}}
addressType: IPv6
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: ['fd00:50::1'], conditions: {ready: true}}
- {addresses: ['fd00:50::2'], conditions: {ready: true}}
";

struct Host {
    // Processes end before the namespace goes.
    processes: Vec<Process>,
    namespace: Netns,
    directory: tempfile::TempDir,
}

impl Host {
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

    fn curl(&self, url: &str) -> Result<String, String> {
        let output = self.namespace.run("curl", &["-sSg", "--max-time", "5", url]);
        if output.code == 0 { Ok(output.out) } else { Err(output.err) }
    }

    async fn answers(&self, url: &str, wanted: &str) {
        wait_until(&format!("{wanted} to answer on {url}"), || {
            let answer = self.curl(url);
            let log = self.processes.last().map(Process::output).unwrap_or_default();
            async move { if answer.as_deref() == Ok(wanted) { Ok(()) } else { Err(format!("{answer:?} {log}")) } }
        })
        .await;
    }

    /// A node with endpoints of both families, and a cluster of both with the objects.
    async fn start() -> Self {
        let directory = tempfile::TempDir::new().expect("temporary directory");
        let mut host = Self { processes: Vec::new(), namespace: Netns::new(), directory };
        let path = host.directory.path().to_path_buf();
        for (device, address) in [("uplink", "fd00:60::1/64"), ("lo", "fd00:50::1/128"), ("lo", "fd00:50::2/128")] {
            host.namespace.ok("ip", &["-6", "address", "add", address, "dev", device, "nodad"]);
        }
        host.namespace.add_address("10.50.0.1");
        host.namespace.ok("ip", &["-6", "route", "add", "default", "dev", "uplink"]);
        for (address, body) in [("fd00:50::1", "one"), ("fd00:50::2", "two"), ("10.50.0.1", "four")] {
            let root = path.join(body);
            std::fs::create_dir(&root).expect("directory");
            std::fs::write(root.join("index.html"), body).expect("page");
            let root = root.display().to_string();
            let arguments = ["-m", "http.server", "8080", "--bind", address, "--directory", &root].map(str::to_owned);
            host.spawn(Path::new("python3"), &arguments);
        }
        std::fs::write(path.join("tokens.csv"), "t,admin,1,\"system:masters\"\n").expect("tokens");
        let port = free_port();
        let server = [
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=fd00:60::1".to_owned(),
            "--service-cluster-ip-range=fd00:10::/112,10.0.0.0/24".to_owned(),
            format!("--secure-port={port}"),
            format!("--cert-dir={}", path.join("certs").display()),
            format!("--embedded-store-dir={}", path.join("store").display()),
            format!("--token-auth-file={}", path.join("tokens.csv").display()),
        ];
        host.spawn(&binary("kube-apiserver"), &server);
        let kubeconfig = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, \
             clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{port}', insecure-skip-tls-verify: true}}}}], \
             users: [{{name: c, user: {{token: t}}}}], contexts: [{{name: c, context: {{cluster: c, user: c}}}}]}}"
        );
        std::fs::write(path.join("kubeconfig"), kubeconfig).expect("kubeconfig");
        std::fs::write(path.join("objects.yaml"), OBJECTS).expect("objects");
        let manifest = path.join("objects.yaml").display().to_string();
        wait_until("the objects to be created", || {
            let output = host.kubectl(&["apply", "-f", &manifest]);
            async move { if output.code == 0 { Ok(()) } else { Err(output.err) } }
        })
        .await;
        host
    }

    fn proxy(&mut self, mode: &str) {
        let kubeconfig = self.directory.path().join("kubeconfig").display().to_string();
        let arguments = [
            format!("--kubeconfig={kubeconfig}"),
            format!("--proxy-mode={mode}"),
            "--hostname-override=node".to_owned(),
            "--cluster-cidr=10.50.0.0/16,fd00:50::/64".to_owned(),
        ];
        self.spawn(&binary("kube-proxy"), &arguments);
    }
}

async fn services_reach_their_endpoints(mode: &str) -> Host {
    let mut host = Host::start().await;
    host.proxy(mode);
    for wanted in ["one", "two"] {
        host.answers("http://[fd00:10::99]/", wanted).await;
    }
    host.answers("http://10.0.0.99/", "four").await;
    host.curl("http://[fd00:60::1]:30080/").expect("the node port answers");
    host.curl("http://[2001:db8::7]/").expect("the external IP answers");
    for url in ["http://10.60.0.1:30080/", "http://192.0.2.7/"] {
        assert_eq!(host.curl(url).as_deref(), Ok("four"), "{url}");
    }
    let first = host.curl("http://[fd00:10::97]/").expect("the sticky one answers");
    assert!((0..20).all(|_| host.curl("http://[fd00:10::97]/").as_ref() == Ok(&first)), "always {first}");
    for url in ["http://[fd00:10::98]/", "http://10.0.0.98/"] {
        let refused = host.curl(url).expect_err("no endpoints");
        assert!(refused.contains("curl: (7)"), "rejected at once: {refused}");
    }
    let patch = r#"{"spec":{"ipFamilyPolicy":"SingleStack"}}"#;
    let patched = host.kubectl(&["patch", "service", "web", "--type=merge", "-p", patch]);
    assert_eq!(patched.code, 0, "{}", patched.err);
    wait_until("the second family to go", || {
        let answer = host.curl("http://10.0.0.99/");
        async move { if answer.is_err() { Ok(()) } else { Err(format!("{answer:?}")) } }
    })
    .await;
    host.curl("http://[fd00:10::99]/").expect("the first family stays");
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
