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
status: {addresses: [{type: InternalIP, address: 10.60.0.1}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  clusterIP: 10.0.0.99
  externalIPs: [192.0.2.7]
  ports: [{name: http, port: 80, nodePort: 30080}]
---
apiVersion: v1
kind: Service
metadata: {name: empty}
spec:
  clusterIP: 10.0.0.98
  ports: [{port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec:
  clusterIP: 10.0.0.97
  sessionAffinity: ClientIP
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: balanced}
spec:
  type: LoadBalancer
  clusterIP: 10.0.0.96
  externalTrafficPolicy: Local
  healthCheckNodePort: 31999
  loadBalancerSourceRanges: [203.0.113.0/24]
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: names}
spec:
  clusterIP: 10.0.0.95
  ports: [{name: dns, port: 53, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: signals}
spec:
  clusterIP: 10.0.0.94
  ports: [{name: signals, port: 2905, protocol: SCTP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: signals-1, labels: {kubernetes.io/service-name: signals}}
addressType: IPv4
ports: [{name: signals, port: 36412, protocol: SCTP}]
endpoints:
- {addresses: [10.50.0.1], conditions: {ready: true}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: names-1, labels: {kubernetes.io/service-name: names}}
addressType: IPv4
ports: [{name: dns, port: 5353, protocol: UDP}]
endpoints:
- {addresses: [10.50.0.1], conditions: {ready: true}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: [10.50.0.1], conditions: {ready: true}}
- {addresses: [10.50.0.2], conditions: {ready: true}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: sticky-1, labels: {kubernetes.io/service-name: sticky}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: [10.50.0.1], conditions: {ready: true}}
- {addresses: [10.50.0.2], conditions: {ready: true}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: balanced-1, labels: {kubernetes.io/service-name: balanced}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- {addresses: [10.50.0.1], nodeName: node, conditions: {ready: true}}
- {addresses: [10.50.0.2], nodeName: other, conditions: {ready: true}}
";

/// Begins an SCTP association with an address and port, and tells which port of another address hears of it. Written out
/// by hand, for not every kernel speaks the protocol.
const SCTP: &str = r#"
import socket, struct, sys

to, port, endpoint = sys.argv[1], int(sys.argv[2]), sys.argv[3]

def checksum(data):
    value = 0xffffffff
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82f63b78 if value & 1 else 0)
    return struct.pack("<I", value ^ 0xffffffff)

header = struct.pack("!HHI", 40000, port, 0)
init = struct.pack("!BBHIIHHI", 1, 0, 20, 0x01020304, 65535, 1, 1, 1)
packet = header + checksum(header + bytes(4) + init) + init
ear = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132)
ear.bind((endpoint, 0))
ear.settimeout(2)
mouth = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132)
mouth.sendto(packet, (to, 0))
while True:
    heard = ear.recv(65536)
    heard = heard[(heard[0] & 15) * 4:]
    if heard[12] == 1:
        print(struct.unpack("!H", heard[2:4])[0])
        break
"#;

/// Status of the Service `balanced`, as a cloud would write it.
const BALANCER: &str = r#"{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.8"}]}}}"#;

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
        let output = self.namespace.run("curl", &["-sSg", "--max-time", "5", url]);
        if output.code == 0 { Ok(output.out) } else { Err(output.err) }
    }

    /// Runs an endpoint that answers with `body`.
    fn endpoint(&mut self, address: &str, body: &str) {
        self.namespace.add_address(address);
        let root = self.directory.path().join(body);
        std::fs::create_dir(&root).expect("directory");
        std::fs::write(root.join("index.html"), body).expect("page");
        let arguments = ["-m", "http.server", "8080", "--bind", address, "--directory"];
        let mut arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
        arguments.push(root.display().to_string());
        self.spawn(Path::new("python3"), &arguments);
    }

    async fn objects(&self) {
        let manifest = self.directory.path().join("objects.yaml").display().to_string();
        wait_until("the objects to be created", || {
            let output = self.kubectl(&["apply", "-f", &manifest]);
            async move { if output.code == 0 { Ok(()) } else { Err(output.err) } }
        })
        .await;
        let patch = ["patch", "service", "balanced", "--subresource=status", "--type=merge", "-p", BALANCER];
        let patched = self.kubectl(&patch);
        assert_eq!(patched.code, 0, "{}", patched.err);
    }

    fn proxy(&mut self, mode: &str) {
        let kubeconfig = self.directory.path().join("kubeconfig");
        self.spawn(
            &binary("kube-proxy"),
            &[
                format!("--kubeconfig={}", kubeconfig.display()),
                format!("--proxy-mode={mode}"),
                "--hostname-override=node".to_owned(),
                "--cluster-cidr=10.50.0.0/16,fd00:50::/64".to_owned(),
                "--conntrack-udp-timeout=10m".to_owned(),
                "--conntrack-udp-timeout-stream=10m".to_owned(),
            ],
        );
    }

    /// Waits for an answer of a URL.
    async fn answers(&self, url: &str, wanted: &str) {
        wait_until(&format!("{wanted} to answer on {url}"), || {
            let answer = self.curl(url);
            async move {
                match answer {
                    Ok(body) if body == wanted => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            }
        })
        .await;
    }

    /// All rules that a proxy may have made.
    fn rules(&self) -> String {
        let programs = [
            ("iptables-save", &[][..]),
            ("ip6tables-save", &[]),
            ("nft", &["list", "table", "ip", "kube-proxy"]),
            ("nft", &["list", "table", "ip6", "kube-proxy"]),
        ];
        programs.iter().map(|(program, arguments)| self.namespace.run(program, arguments).out).collect()
    }

    async fn no_rules(&self, needle: &str) {
        wait_until(&format!("rules with {needle} to go"), || {
            let rules = self.rules();
            async move { if rules.contains(needle) { Err(rules) } else { Ok(()) } }
        })
        .await;
    }
}

/// Not an error of curl's but 7, refused; when nothing answers it ends with 28.
fn is_refused(answer: &Result<String, String>) -> bool {
    answer.as_ref().is_err_and(|error| error.contains("curl: (7)"))
}

async fn services_reach_their_endpoints(mode: &str) -> Host {
    let mut host = Host::start().await;
    host.endpoint("10.50.0.1", "one");
    host.endpoint("10.50.0.2", "two");
    host.objects().await;
    host.proxy(mode);
    // Connections to the cluster IP are spread over both endpoints.
    for wanted in ["one", "two"] {
        host.answers("http://10.0.0.99/", wanted).await;
    }
    let all: Vec<String> = (0..60).filter_map(|_| host.curl("http://10.0.0.99/").ok()).collect();
    let ones = all.iter().filter(|body| *body == "one").count();
    assert!(all.len() == 60 && (10..=50).contains(&ones), "{ones} of {} went to the first endpoint", all.len());
    host.curl("http://10.60.0.1:30080/").expect("the node port answers on the address of the node");
    host.curl("http://192.0.2.7/").expect("the external IP answers");
    let refused = host.curl("http://10.0.0.98/");
    assert!(is_refused(&refused), "rejected at once: {refused:?}");
    let script = host.directory.path().join("sctp.py").display().to_string();
    std::fs::write(&script, SCTP).expect("a program");
    wait_until("SCTP to reach its endpoint", || {
        let heard = host.namespace.run("python3", &[&script, "10.0.0.94", "2905", "10.50.0.1"]);
        async move { if heard.out.trim() == "36412" { Ok(()) } else { Err(heard.err) } }
    })
    .await;
    // A client stays with its endpoint.
    let first = host.curl("http://10.0.0.97/").expect("the sticky one answers");
    assert!((0..20).all(|_| host.curl("http://10.0.0.97/").as_ref() == Ok(&first)), "always {first}");
    host
}

/// Changes of endpoints and Services, and the load balancer's rules.
async fn changes_are_followed(host: &Host) {
    // This node is in no source range.
    let guarded = host.curl("http://192.0.2.8/");
    assert!(guarded.is_err() && !is_refused(&guarded), "dropped: {guarded:?}");
    let wide = r#"{"spec":{"loadBalancerSourceRanges":["10.60.0.0/24"]}}"#;
    assert_eq!(host.kubectl(&["patch", "service", "balanced", "--type=merge", "-p", wide]).code, 0);
    wait_until("the node to be let in", || {
        let answer = host.curl("http://192.0.2.8/");
        async move { answer.map(drop) }
    })
    .await;
    let health = host.namespace.run("curl", &["-si", "--max-time", "5", "http://10.60.0.1:31999/"]);
    let lower = health.out.to_lowercase();
    assert!(lower.contains("200 ok") && lower.contains("x-load-balancing-endpoint-weight: 1"), "{lower}");
    assert!(health.out.contains("\"localEndpoints\": 1"), "{}", health.out);

    // An endpoint that goes is no longer used; the rules of a Service that goes are removed.
    let patch = r#"{"endpoints":[{"addresses":["10.50.0.2"],"conditions":{"ready":true}}]}"#;
    let patched = host.kubectl(&["patch", "endpointslice", "web-1", "--type=merge", "-p", patch]);
    assert_eq!(patched.code, 0, "{}", patched.err);
    wait_until("the first endpoint to be left out", || {
        let all: Vec<_> = (0..20).map(|_| host.curl("http://10.0.0.99/")).collect();
        async move { if all.iter().all(|a| a.as_deref() == Ok("two")) { Ok(()) } else { Err(format!("{all:?}")) } }
    })
    .await;
    let slice = host.kubectl(&["delete", "endpointslice", "web-1"]);
    assert_eq!(slice.code, 0, "{}", slice.err);
    wait_until("the Service without endpoints to be refused", || {
        let answers = ["10.0.0.99", "10.60.0.1:30080"].map(|to| host.curl(&format!("http://{to}/")));
        async move { if answers.iter().all(is_refused) { Ok(()) } else { Err(format!("{answers:?}")) } }
    })
    .await;
    assert_eq!(host.kubectl(&["delete", "service", "web"]).code, 0);
    host.no_rules("default/web").await;
    host.no_rules("10.0.0.99").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn iptables_mode() {
    let host = services_reach_their_endpoints("iptables").await;
    let rules = host.namespace.ok("iptables-save", &["-t", "nat"]);
    assert!(rules.contains("--mode random --probability 0.50000000000"), "{rules}");
    assert!(rules.contains("-j DNAT --to-destination 10.50.0.1:8080"), "{rules}");
    host.curl("http://127.0.0.1:30080/").expect("the node port answers on loopback");
    let metrics = host.curl("http://127.0.0.1:10249/metrics").expect("metrics");
    let counted = |name: &str| {
        let line =
            metrics.lines().find_map(|line| line.strip_prefix(&format!("kubeproxy_iptables_{name}_packets_total ")));
        line.and_then(|count| count.parse::<f64>().ok())
    };
    assert!(counted("localhost_nodeports_accepted").is_some_and(|count| count >= 1.0), "{metrics}");
    assert!(counted("ct_state_invalid_dropped").is_some(), "{metrics}");
    changes_are_followed(&host).await;
    // Somebody removes all rules: they come back.
    for table in ["nat", "filter", "mangle"] {
        host.namespace.ok("iptables", &["-t", table, "-F"]);
        host.namespace.ok("iptables", &["-t", table, "-X"]);
    }
    wait_until("the rules to come back", || {
        let rules = host.rules();
        async move { if rules.contains("default/sticky:http") { Ok(()) } else { Err(rules) } }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nftables_mode() {
    let mut host = services_reach_their_endpoints("nftables").await;
    let rules = host.namespace.ok("nft", &["list", "table", "ip", "kube-proxy"]);
    for wanted in [
        "comment \"rules for kube-proxy\"",
        "type filter hook prerouting priority dstnat - 10",
        "10.0.0.99 . tcp . 80 : goto service-",
        "numgen random mod 2 map { 0 : 10.50.0.1 . 8080, 1 : 10.50.0.2 . 8080 }",
        "ip daddr . meta l4proto . th dport vmap @service-ips",
        "meta mark & 0x00004000 != 0x00000000",
        "10.0.0.98 . tcp . 80 : goto reject-chain",
        "ip daddr 10.0.0.0/24 drop",
        "update @affinity-",
    ] {
        assert!(rules.contains(wanted), "no {wanted:?} in {rules}");
    }
    // Ports that the Service does not have, and addresses that no Service has.
    assert!(is_refused(&host.curl("http://10.0.0.99:81/")));
    changes_are_followed(&host).await;
    // In another mode the rules of this one go; cleaning up leaves none.
    drop(host.processes.pop());
    host.proxy("iptables");
    host.answers("http://10.0.0.96/", "one").await;
    host.no_rules("table ip kube-proxy").await;
    drop(host.processes.pop());
    let cleaned = host.namespace.run(&binary("kube-proxy").display().to_string(), &["--cleanup"]);
    assert_eq!(cleaned.code, 0, "{}", cleaned.err);
    for gone in ["KUBE-SERVICES", "KUBE-SVC-", "KUBE-SEP-", "KUBE-PROXY-CANARY"] {
        assert!(!host.rules().contains(gone), "{gone} is left: {}", host.rules());
    }
}

/// A flow would lead to its first endpoint for as long as packets come: here ten minutes from the last.
#[tokio::test(flavor = "multi_thread")]
async fn udp_flows_to_what_is_gone_are_forgotten() {
    let mut host = Host::start().await;
    host.namespace.add_address("10.50.0.1");
    host.namespace.add_address("10.50.0.2");
    host.objects().await;
    host.proxy("nftables");
    let send = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((\"10.60.0.1\", 40000)); \
                s.sendto(b\"x\", (\"10.0.0.95\", 53))";
    let flows = |host: &Host| {
        host.namespace.ok("python3", &["-c", send]);
        host.namespace.ok("conntrack", &["-L", "-p", "udp", "--orig-dst", "10.0.0.95"])
    };
    for (endpoint, next) in [("10.50.0.1", "10.50.0.2"), ("10.50.0.2", "10.50.0.1")] {
        wait_until(&format!("a flow to {endpoint}"), || {
            let flows = flows(&host);
            async move { if flows.contains(&format!("src={endpoint} ")) { Ok(()) } else { Err(flows) } }
        })
        .await;
        let patch = format!(r#"{{"endpoints":[{{"addresses":["{next}"],"conditions":{{"ready":true}}}}]}}"#);
        let patched = host.kubectl(&["patch", "endpointslice", "names-1", "--type=merge", "-p", &patch]);
        assert_eq!(patched.code, 0, "{}", patched.err);
    }
}
