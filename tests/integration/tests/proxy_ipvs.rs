//! kube-proxy in ipvs mode, in a virtual machine: the kernel of this machine may have no virtual servers.
//!
//! `GUEST_KERNEL` names a directory with an unpacked Debian kernel package (`boot`, `lib/modules`).

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use harness::{
    ApiServer,
    process::{Process, binary},
    server::ADMIN_TOKEN,
    wait_within,
};
use serde_json::{Value, json};

fn fixture(name: &str) -> String {
    format!("{}/tests/proxy_ipvs/{name}", env!("CARGO_MANIFEST_DIR"))
}

async fn create(client: &kube::Client, path: &str, object: &Value) {
    let request = http::Request::post(path).header("content-type", "application/json");
    let request = request.body(object.to_string().into_bytes()).expect("a request");
    client.request::<Value>(request).await.expect("created");
}

async fn objects(client: &kube::Client) {
    let addresses = json!([{"type": "InternalIP", "address": "10.0.2.15"}]);
    let node = json!({"metadata": {"name": "node"}, "status": {"addresses": addresses}});
    create(client, "/api/v1/nodes", &node).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"type": "NodePort", "clusterIP": "10.0.0.99",
        "externalIPs": ["192.0.2.7"], "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}});
    create(client, "/api/v1/namespaces/default/services", &service).await;
    let slice = json!({"metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.50.0.1"]}, {"addresses": ["10.50.0.2"]}]});
    create(client, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", &slice).await;
}

/// Starts the guest. Its console is the log of the process.
fn boot(server: &ApiServer) -> Process {
    let kernel = std::env::var("GUEST_KERNEL").expect("GUEST_KERNEL names a directory with a kernel");
    // The guest reaches loopback addresses of this machine by one of its own.
    let url = server.url();
    let port = url.rsplit(':').next().expect("a port");
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster":
            {"server": format!("https://10.0.2.2:{port}"), "insecure-skip-tls-verify": true}}],
        "users": [{"name": "c", "user": {"token": ADMIN_TOKEN}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]});
    let config = server.path().join("guest.kubeconfig");
    std::fs::write(&config, kubeconfig.to_string()).expect("kubeconfig");
    let image = server.path().join("initramfs");
    let made = Command::new("bash")
        .arg(fixture("initramfs.sh"))
        .args([Path::new(&kernel), &binary("kube-proxy"), &config, Path::new(&fixture("init.sh")), &image])
        .status()
        .expect("bash");
    assert!(made.success(), "the guest's root cannot be made");
    let boot = std::fs::read_dir(Path::new(&kernel).join("boot")).expect("GUEST_KERNEL has a boot directory");
    let files: Vec<PathBuf> = boot.filter_map(Result::ok).map(|entry| entry.path()).collect();
    let is_kernel = |path: &&PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz"));
    let vmlinuz = files.iter().find(is_kernel).expect("a kernel").display().to_string();
    let arguments = [
        "-accel",
        "tcg",
        "-m",
        "1024",
        "-nographic",
        "-no-reboot",
        "-kernel",
        &vmlinuz,
        "-initrd",
        &image.display().to_string(),
        "-append",
        "console=ttyS0 quiet panic=-1",
        "-netdev",
        "user,id=net",
        "-device",
        "virtio-net-pci,netdev=net,romfile=",
    ]
    .map(str::to_owned);
    Process::start(Path::new("qemu-system-x86_64"), &arguments, server.path().join("guest.log"))
}

/// The part of the console under a heading.
fn part(console: &str, heading: &str) -> String {
    let after = console.split(&format!("=== {heading}\n")).nth(1).unwrap_or_default();
    after.split("=== ").next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_virtual_servers() {
    let server = ApiServer::start().await;
    objects(&server.admin().await).await;
    let guest = boot(&server);
    // Without hardware that helps it boots in half a minute.
    let deadline = std::time::Duration::from_secs(300);
    wait_within(deadline, "the guest to end", || {
        let console = guest.output().replace('\r', "");
        async move { if console.contains("=== end\n") { Ok(()) } else { Err(console) } }
    })
    .await;
    let console = guest.output().replace('\r', "");
    let servers = part(&console, "servers");
    for address in ["10.0.0.99:80", "10.0.2.15:30080", "192.0.2.7:80"] {
        assert!(servers.contains(&format!("TCP  {address} rr\n")), "no {address}: {console}");
    }
    assert!(servers.contains("-> 10.50.0.1:8080") && servers.contains("-> 10.50.0.2:8080"), "{console}");
    let traffic = part(&console, "traffic");
    for endpoint in ["endpoint-1", "endpoint-2"] {
        assert_eq!(traffic.matches(endpoint).count(), 5, "round robin: {console}");
    }
    assert!(part(&console, "node port").starts_with("endpoint-"), "{console}");
    assert!(part(&console, "external IP").starts_with("endpoint-"), "{console}");
    assert!(part(&console, "other ports").contains("curl: (7)"), "what listens on all addresses is hidden: {console}");
    assert!(part(&console, "sets").contains("10.0.0.99,"), "{console}");
    let interface = part(&console, "interface");
    assert!(interface.contains("inet 10.0.0.99/32") && interface.contains("inet 192.0.2.7/32"), "{console}");
    let cleaned = part(&console, "cleaned");
    for gone in ["->  10.50", "10.0.0.99", "KUBE-", "inet "] {
        assert!(!cleaned.contains(gone), "{gone} is left: {console}");
    }
}
