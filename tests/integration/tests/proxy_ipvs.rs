//! kube-proxy in ipvs mode, in a virtual machine: the kernel of this machine may have no virtual servers.

use std::{path::Path, process::Command, time::Duration};

use harness::{ApiServer, Guest, guest, process::binary, server::ADMIN_TOKEN};
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
fn boot(server: &ApiServer) -> Guest {
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
        .args([&guest::kernel(), &binary("kube-proxy"), &config, Path::new(&fixture("init.sh")), &image])
        .status()
        .expect("bash");
    assert!(made.success(), "the guest's root cannot be made");
    Guest::boot(1024, &image, None, server.path().join("guest.log"))
}

#[tokio::test(flavor = "multi_thread")]
async fn services_are_virtual_servers() {
    let server = ApiServer::start().await;
    objects(&server.admin().await).await;
    let guest = boot(&server);
    // Without hardware that helps it boots in half a minute.
    guest.ended(Duration::from_secs(300)).await;
    let console = guest.console();
    let servers = guest.part("servers");
    for address in ["10.0.0.99:80", "10.0.2.15:30080", "192.0.2.7:80"] {
        assert!(servers.contains(&format!("TCP  {address} rr\n")), "no {address}: {console}");
    }
    assert!(servers.contains("-> 10.50.0.1:8080") && servers.contains("-> 10.50.0.2:8080"), "{console}");
    let traffic = guest.part("traffic");
    for endpoint in ["endpoint-1", "endpoint-2"] {
        assert_eq!(traffic.matches(endpoint).count(), 5, "round robin: {console}");
    }
    assert!(guest.part("node port").starts_with("endpoint-"), "{console}");
    assert!(guest.part("external IP").starts_with("endpoint-"), "{console}");
    assert!(guest.part("other ports").contains("curl: (7)"), "what listens on all addresses is hidden: {console}");
    assert!(guest.part("sets").contains("10.0.0.99,"), "{console}");
    let interface = guest.part("interface");
    assert!(interface.contains("inet 10.0.0.99/32") && interface.contains("inet 192.0.2.7/32"), "{console}");
    let cleaned = guest.part("cleaned");
    for gone in ["->  10.50", "10.0.0.99", "KUBE-", "inet "] {
        assert!(!cleaned.contains(gone), "{gone} is left: {console}");
    }
}
