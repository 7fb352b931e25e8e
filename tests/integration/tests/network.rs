//! The addons: Pods of two hosts made of network namespaces, and names asked over real sockets.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use harness::{
    ApiServer, Kubectl, Netns,
    process::{Process, binary, free_port},
    server::{ADMIN_TOKEN, http_get},
    wait_until,
};
use hickory_proto::{
    op::{Edns, Message, Query, ResponseCode},
    rr::{Name, RecordType},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

/// Where distributions put CNI plugins.
const PLUGINS: &str = "/usr/lib/cni";

/// A host with its agent and one Pod.
struct Host {
    // Processes end before namespaces go.
    agent: Option<Process>,
    namespace: Netns,
    pod: Netns,
    name: &'static str,
    directory: PathBuf,
}

impl Host {
    fn new(name: &'static str, root: &Path) -> Self {
        let directory = root.join(name);
        std::fs::create_dir(&directory).expect("directory");
        let pod = Netns::new();
        // The plugin brings the Pod's own device and route.
        pod.ok("ip", &["link", "del", "uplink"]);
        Self { agent: None, namespace: Netns::new(), pod, name, directory }
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// Starts the agent (again).
    fn start_agent(&mut self, kubeconfig: &str, mode: &str) {
        self.agent = None;
        let arguments = [
            format!("--kubeconfig={kubeconfig}"),
            format!("--node-name={}", self.name),
            "--cluster-cidr=10.244.0.0/16,fd00:244::/32".to_owned(),
            format!("--mode={mode}"),
            "--resync-period=500ms".to_owned(),
            format!("--cni-conf-dir={}", self.path("net.d")),
            format!("--cni-bin-dir={}", self.path("bin")),
            format!("--cni-bin-source={PLUGINS}"),
        ];
        let log = self.directory.join("agent.log");
        self.agent = Some(self.namespace.start(&binary("pod-network"), &arguments, log));
    }

    /// Connects the Pod as the runtime does, with the plugin and the configuration that the agent wrote. Returns the
    /// Pod's addresses, one of each family.
    fn connect_pod(&self) -> [String; 2] {
        let text = std::fs::read_to_string(self.path("net.d/10-timonel.conflist")).expect("configuration");
        let list: Value = serde_json::from_str(&text).expect("JSON");
        let mut plugin = list["plugins"][0].clone();
        plugin["cniVersion"] = list["cniVersion"].clone();
        plugin["name"] = list["name"].clone();
        plugin["ipam"]["dataDir"] = self.path("addresses").into();
        std::fs::write(self.path("plugin.json"), plugin.to_string()).expect("file");
        let script = format!(
            "CNI_COMMAND=ADD CNI_CONTAINERID=pod CNI_NETNS=/run/netns/{} CNI_IFNAME=eth0 CNI_PATH={bin} {bin}/bridge < {}",
            self.pod.name(),
            self.path("plugin.json"),
            bin = self.path("bin"),
        );
        let result: Value = serde_json::from_str(&self.namespace.ok("sh", &["-c", &script])).expect("a result");
        [0, 1].map(|at| {
            let address = result["ips"][at]["address"].as_str().expect("an address");
            address.split('/').next().expect("an address").to_owned()
        })
    }
}

fn ping(from: &Netns, to: &str) -> Result<(), String> {
    let output = from.run("busybox", &["ping", "-c", "1", "-W", "1", to]);
    if output.code == 0 { Ok(()) } else { Err(format!("{}{}", output.out, output.err)) }
}

async fn wait_ping(what: &str, from: &Netns, to: &str) {
    wait_until(what, || {
        let answer = ping(from, to);
        async move { answer }
    })
    .await;
}

/// Two hosts on one wire, and a server on the first.
struct Cluster {
    server: Process,
    hosts: [Host; 2],
    kubeconfig: String,
    directory: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let directory = tempfile::TempDir::new().expect("temporary directory");
        let path = directory.path();
        let hosts = [Host::new("a", path), Host::new("b", path)];
        let [a, b] = &hosts;
        a.namespace
            .ok("ip", &["link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", b.namespace.name()]);
        for (host, number) in [(a, 1), (b, 2)] {
            host.namespace.ok("ip", &["address", "add", &format!("192.0.2.{number}/24"), "dev", "wire"]);
            let address = format!("2001:db8::{number}/64");
            host.namespace.ok("ip", &["-6", "address", "add", &address, "dev", "wire", "nodad"]);
            host.namespace.ok("ip", &["link", "set", "wire", "up"]);
        }
        std::fs::write(path.join("tokens.csv"), "t,admin,1,\"system:masters\"\n").expect("tokens");
        let arguments = [
            "--bind-address=192.0.2.1".to_owned(),
            "--advertise-address=192.0.2.1".to_owned(),
            "--secure-port=17310".to_owned(),
            format!("--cert-dir={}", path.join("certs").display()),
            format!("--embedded-store-dir={}", path.join("store").display()),
            format!("--token-auth-file={}", path.join("tokens.csv").display()),
        ];
        let server = a.namespace.start(&binary("kube-apiserver"), &arguments, path.join("server.log"));
        let kubeconfig = path.join("kubeconfig").display().to_string();
        let text = "{apiVersion: v1, kind: Config, current-context: c, \
             clusters: [{name: c, cluster: {server: 'https://192.0.2.1:17310', insecure-skip-tls-verify: true}}], \
             users: [{name: c, user: {token: t}}], contexts: [{name: c, context: {cluster: c, user: c}}]}";
        std::fs::write(&kubeconfig, text).expect("kubeconfig");
        let cluster = Self { server, hosts, kubeconfig, directory };
        cluster.create_nodes().await;
        cluster
    }

    fn kubectl(&self, arguments: &[&str]) -> harness::kubectl::Output {
        let binary = Kubectl::stock().pop().expect("STOCK_KUBECTL names a kubectl");
        let kubeconfig = format!("--kubeconfig={}", self.kubeconfig);
        let mut all = vec![kubeconfig.as_str()];
        all.extend(arguments);
        self.hosts[0].namespace.run(&binary.display().to_string(), &all)
    }

    async fn create_nodes(&self) {
        let node = |(name, number): (&str, u8)| {
            format!(
                "{{apiVersion: v1, kind: Node, metadata: {{name: {name}}}, spec: {{podCIDR: 10.244.{number}.0/24, \
                 podCIDRs: [10.244.{number}.0/24, 'fd00:244:{number}::/64']}}}}\n---\n"
            )
        };
        let nodes = [("a", 1), ("b", 2)].map(node).concat();
        let file = self.directory.path().join("nodes.yaml").display().to_string();
        std::fs::write(&file, nodes).expect("file");
        wait_until("the nodes to be created", || {
            let output = self.kubectl(&["apply", "-f", &file]);
            let log = self.server.output();
            async move { if output.code == 0 { Ok(()) } else { Err(format!("{} {log}", output.err)) } }
        })
        .await;
        for (node, number) in [("a", 1), ("b", 2)] {
            let address =
                |address: &str| serde_json::json!({"type": "InternalIP", "address": format!("{address}{number}")});
            let addresses = ["192.0.2.", "2001:db8::"].map(address);
            let patch = serde_json::json!({"status": {"addresses": addresses}}).to_string();
            let output = self.kubectl(&["patch", "node", node, "--subresource=status", "--type=merge", "-p", &patch]);
            assert_eq!(output.code, 0, "{}", output.err);
        }
    }

    async fn wait_ready(&self, host: &Host) {
        wait_until(&format!("the agent of {} to be ready", host.name), || {
            let output = host.namespace.run("curl", &["-sS", "--max-time", "5", "http://127.0.0.1:9254/readyz"]);
            let log = host.agent.as_ref().map(Process::output).unwrap_or_default();
            async move { if output.out == "ok" { Ok(()) } else { Err(format!("{} {}\n{log}", output.out, output.err)) } }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_two_hosts_reach_each_other() {
    let mut cluster = Cluster::start().await;
    let kubeconfig = cluster.kubeconfig.clone();
    cluster.hosts.iter_mut().for_each(|h| h.start_agent(&kubeconfig, "vxlan"));
    for host in &cluster.hosts {
        cluster.wait_ready(host).await;
    }
    let [a, b] = &cluster.hosts;
    let ([first, first_v6], [second, second_v6]) = (a.connect_pod(), b.connect_pod());
    assert!(first.starts_with("10.244.1.") && second.starts_with("10.244.2."), "{first} {second}");
    wait_ping("a ping by vxlan", &a.pod, &second).await;
    wait_ping("a ping from the other side", &b.pod, &first).await;
    wait_ping("a ping from the host", &a.namespace, &second).await;
    assert!(first_v6.starts_with("fd00:244:1:") && second_v6.starts_with("fd00:244:2:"), "{first_v6} {second_v6}");
    wait_ping("a ping of the other family by vxlan", &a.pod, &second_v6).await;
    wait_ping("one from the other side", &b.pod, &first_v6).await;
    let rules = a.namespace.ok("ip6tables-save", &[]);
    assert!(rules.contains("-A TIMONEL-MASQ -s fd00:244:1::/64 -j MASQUERADE"), "{rules}");
    let routes = a.namespace.ok("ip", &["route"]);
    assert!(routes.contains("10.244.2.0/24 via 10.244.2.0 dev timonel.vxlan proto 84 onlink"), "{routes}");
    // Pods have room for the outer headers.
    let device = a.pod.ok("ip", &["link", "show", "dev", "eth0"]);
    assert!(device.contains("mtu 1450"), "{device}");

    let condition = "jsonpath={.status.conditions[?(@.type==\"NetworkUnavailable\")].status}";
    assert_eq!(cluster.kubectl(&["get", "node", "a", "-o", condition]).out, "False");
    let rules = a.namespace.ok("iptables-save", &[]);
    assert!(rules.contains("-A TIMONEL-MASQ -s 10.244.1.0/24 -j MASQUERADE"), "{rules}");
    assert!(rules.contains("-A FORWARD -m comment --comment pod-network -j TIMONEL-FWD"), "{rules}");

    // What somebody breaks is put right.
    a.namespace.ok("ip", &["route", "del", "10.244.2.0/24"]);
    a.namespace.ok("iptables", &["-t", "nat", "-F", "TIMONEL-MASQ"]);
    a.namespace.ok("ip", &["link", "set", "timonel.vxlan", "down"]);
    wait_ping("a ping after repair", &a.pod, &second).await;
    wait_until("the rules to be back", || {
        let rules = a.namespace.ok("iptables-save", &["-t", "nat"]);
        async move { if rules.contains("-s 10.244.1.0/24 -j MASQUERADE") { Ok(()) } else { Err(rules) } }
    })
    .await;

    // The same Pods over direct routes.
    cluster.hosts.iter_mut().for_each(|h| h.start_agent(&kubeconfig, "auto"));
    for host in &cluster.hosts {
        cluster.wait_ready(host).await;
    }
    let [a, _] = &cluster.hosts;
    let routes = a.namespace.ok("ip", &["route"]);
    assert!(routes.contains("10.244.2.0/24 via 192.0.2.2 dev wire proto 84"), "{routes}");
    assert!(!a.namespace.ok("ip", &["link"]).contains("timonel.vxlan"), "no tunnel is needed");
    wait_ping("a ping over a direct route", &a.pod, &second).await;
    let routes = a.namespace.ok("ip", &["-6", "route"]);
    assert!(routes.contains("fd00:244:2::/64 via 2001:db8::2 dev wire proto 84"), "{routes}");
    wait_ping("one of the other family", &a.pod, &second_v6).await;

    // A node that is gone has no route.
    assert_eq!(cluster.kubectl(&["delete", "node", "b"]).code, 0);
    wait_until("the route to be removed", || {
        let routes = a.namespace.ok("ip", &["route"]);
        async move { if routes.contains("10.244.2.0/24") { Err(routes) } else { Ok(()) } }
    })
    .await;

    cluster.hosts.iter_mut().for_each(|h| h.agent = None);
    let [a, _] = &cluster.hosts;
    let program = binary("pod-network").display().to_string();
    a.namespace.ok(&program, &["--cleanup", &format!("--cni-conf-dir={}", a.path("net.d"))]);
    let left = format!("{}{}", a.namespace.ok("iptables-save", &[]), a.namespace.ok("ip", &["link"]));
    assert!(!left.contains("TIMONEL") && !left.contains("timonel.vxlan"), "{left}");
}

const OBJECTS: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 10.0.0.99, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: out}, spec: {type: ExternalName, externalName: far.example}}
---
{apiVersion: v1, kind: Service, metadata: {name: db}, spec: {clusterIP: None, ports: [{name: sql, port: 3306}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 3306, protocol: TCP}]
endpoints: [ENDPOINTS]
";

/// Questions to a server.
struct Resolver(SocketAddr);

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    message
}

impl Resolver {
    async fn ask(&self, message: &Message) -> Result<Message, String> {
        let work = async {
            let socket = UdpSocket::bind("127.0.0.1:0").await?;
            socket.connect(self.0).await?;
            socket.send(&message.to_vec().expect("bytes")).await?;
            let mut buffer = vec![0; 65535];
            let length = socket.recv(&mut buffer).await?;
            buffer.truncate(length);
            std::io::Result::Ok(buffer)
        };
        let bytes = tokio::time::timeout(Duration::from_secs(5), work).await;
        let bytes = bytes.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        Message::from_vec(&bytes).map_err(|e| e.to_string())
    }

    async fn ask_tcp(&self, message: &Message) -> Message {
        let mut stream = TcpStream::connect(self.0).await.expect("a connection");
        let bytes = message.to_vec().expect("bytes");
        stream.write_u16(u16::try_from(bytes.len()).expect("a length")).await.expect("sent");
        stream.write_all(&bytes).await.expect("sent");
        let length = stream.read_u16().await.expect("a length");
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await.expect("an answer");
        Message::from_vec(&answer).expect("a message")
    }

    /// Code and data of an answer, as text.
    async fn lookup(&self, name: &str, kind: RecordType) -> String {
        match self.ask(&question(name, kind)).await {
            Ok(message) => text(&message),
            Err(error) => error,
        }
    }
}

fn text(message: &Message) -> String {
    let code = match message.metadata.response_code {
        ResponseCode::NoError => "ok",
        ResponseCode::NXDomain => "nxdomain",
        ResponseCode::ServFail => "servfail",
        ResponseCode::Refused => "refused",
        _ => "other",
    };
    let data: Vec<String> = message.answers.iter().map(|r| r.data.to_string()).collect();
    format!("{code} {}", data.join(" ")).trim().to_owned()
}

/// An upstream that knows one address for every name.
async fn upstream() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let address = socket.local_addr().expect("an address");
    tokio::spawn(async move {
        let mut buffer = vec![0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let asked = Message::from_vec(&buffer[..length]).expect("a question");
            let mut answer = Message::response(asked.metadata.id, asked.metadata.op_code);
            answer.add_queries(asked.queries.iter().cloned());
            let name = asked.queries[0].name().clone();
            let data = hickory_proto::rr::RData::A(hickory_proto::rr::rdata::A([198, 51, 100, 7].into()));
            answer.add_answer(hickory_proto::rr::Record::from_rdata(name, 60, data));
            socket.send_to(&answer.to_vec().expect("bytes"), from).await.expect("sent");
        }
    });
    address
}

/// A server of names over an API server.
struct Names {
    process: Process,
    resolver: Resolver,
    server: ApiServer,
    ready: u16,
    metrics: u16,
}

impl Names {
    async fn start() -> Self {
        let server = ApiServer::start().await;
        let [dns, ready, metrics] = [free_port(), free_port(), free_port()];
        let corefile = format!(
            ".:{dns} {{\n bind 127.0.0.1\n errors\n ready 127.0.0.1:{ready}\n prometheus 127.0.0.1:{metrics}\n \
             kubernetes cluster.local in-addr.arpa ip6.arpa {{\n pods insecure\n ttl 30\n }}\n \
             forward . {} 127.0.0.1:{dns} {{\n policy sequential\n }}\n cache 30\n loop\n loadbalance\n}}\n",
            upstream().await
        );
        let path = server.path().join("Corefile");
        std::fs::write(&path, corefile).expect("a file");
        let kubeconfig = server.kubeconfig_file(ADMIN_TOKEN);
        let arguments = [format!("--conf={}", path.display()), format!("--kubeconfig={}", kubeconfig.display())];
        let process = Process::start(&binary("cluster-dns"), &arguments, server.path().join("dns.log"));
        let names = Self { process, resolver: Resolver(([127, 0, 0, 1], dns).into()), server, ready, metrics };
        wait_until("the server of names to be ready", || {
            let page = names.page(names.ready, "/ready");
            let log = names.process.output();
            async move { page.await.filter(|t| t.contains("200 OK")).map(drop).ok_or(log) }
        })
        .await;
        names
    }

    fn page(&self, port: u16, path: &'static str) -> impl Future<Output = Option<String>> + use<> {
        async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await.ok()?;
            Some(text)
        }
    }

    fn create(&self, objects: &str) {
        let file = self.server.path().join("objects.yaml");
        std::fs::write(&file, objects).expect("file");
        let kubeconfig = self.server.kubeconfig_file(ADMIN_TOKEN);
        let kubectl = Kubectl::stock().pop().expect("STOCK_KUBECTL names a kubectl");
        let status = std::process::Command::new(kubectl)
            .arg(format!("--kubeconfig={}", kubeconfig.display()))
            .args(["apply", "-f"])
            .arg(&file)
            .stdout(Stdio::null())
            .status()
            .expect("kubectl starts");
        assert!(status.success());
    }

    async fn wait_for(&self, name: &str, kind: RecordType, wanted: &str) {
        wait_until(&format!("{name} {kind} to be {wanted:?}"), || async {
            let found = self.resolver.lookup(name, kind).await;
            if found == wanted { Ok(()) } else { Err(found) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_answered_over_real_sockets() {
    use RecordType::{A, AAAA, PTR, SRV};
    let names = Names::start().await;
    let endpoints: Vec<String> = (1..=100).map(|n| format!("{{addresses: [10.50.0.{n}]}}")).collect();
    names.create(&OBJECTS.replace("ENDPOINTS", &endpoints.join(", ")));
    names.wait_for("web.default.svc.cluster.local.", A, "ok 10.0.0.99").await;
    for (name, kind, wanted) in [
        ("kubernetes.default.svc.cluster.local.", A, "ok 10.0.0.1"),
        ("WEB.default.svc.cluster.local.", A, "ok 10.0.0.99"),
        ("web.default.svc.cluster.local.", AAAA, "ok"),
        ("gone.default.svc.cluster.local.", A, "nxdomain"),
        ("_http._tcp.web.default.svc.cluster.local.", SRV, "ok 0 100 80 web.default.svc.cluster.local."),
        ("99.0.0.10.in-addr.arpa.", PTR, "ok web.default.svc.cluster.local."),
        ("10-1-2-3.default.pod.cluster.local.", A, "ok 10.1.2.3"),
        ("out.default.svc.cluster.local.", A, "ok far.example. 198.51.100.7"),
        ("www.example.", A, "ok 198.51.100.7"),
    ] {
        names.wait_for(name, kind, wanted).await;
    }
    let absent = names.resolver.ask(&question("gone.default.svc.cluster.local.", A)).await.expect("an answer");
    assert!(absent.metadata.authoritative && absent.authorities.len() == 1, "a denial has the zone's SOA: {absent}");

    // A hundred addresses do not fit into 512 bytes; they do with TCP.
    let many = "db.default.svc.cluster.local.";
    wait_until("all endpoints to be known", || async {
        let whole = names.resolver.ask_tcp(&question(many, A)).await;
        if whole.answers.len() == 100 { Ok(()) } else { Err(whole.to_string()) }
    })
    .await;
    let cut = names.resolver.ask(&question(many, A)).await.expect("an answer");
    assert!(cut.metadata.truncation && !cut.answers.is_empty() && cut.answers.len() < 40, "{cut}");
    let mut with_edns = question(many, A);
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    with_edns.set_edns(edns);
    let more = names.resolver.ask(&with_edns).await.expect("an answer");
    assert!(more.answers.len() > cut.answers.len() && more.edns.is_some(), "{more}");

    // The second upstream is the server itself: it is found out and not used.
    wait_until("the loop to be found", || async {
        let log = names.process.output();
        if log.contains("leads back to this server") { Ok(()) } else { Err(log) }
    })
    .await;
    // Asked before: the answer is kept.
    names.wait_for("www.example.", A, "ok 198.51.100.7").await;
    let metrics = names.page(names.metrics, "/metrics").await.expect("a page");
    for wanted in ["coredns_dns_requests_total{", "coredns_dns_responses_total{", "coredns_cache_hits_total{"] {
        assert!(metrics.contains(wanted), "{wanted} is missing: {metrics}");
    }

    // A change is seen.
    let changed = OBJECTS.replace("ENDPOINTS", "{addresses: [10.50.0.7], hostname: db-0}");
    names.create(&changed.replace("far.example", "web.default.svc.cluster.local"));
    names.wait_for(many, A, "ok 10.50.0.7").await;
    names.wait_for("db-0.db.default.svc.cluster.local.", A, "ok 10.50.0.7").await;
    names.wait_for("out.default.svc.cluster.local.", A, "ok web.default.svc.cluster.local. 10.0.0.99").await;
    let admin = names.server.admin().await;
    assert!(admin.request_text(http_get("/readyz")).await.is_ok());
}
