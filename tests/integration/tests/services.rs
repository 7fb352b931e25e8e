//! Cluster IPs of Services: which ranges they come from, and that lost allocations are made good.

use harness::{ApiServer, wait_until};
use k8s_openapi::api::{
    core::v1::Service,
    networking::v1::{IPAddress, ServiceCIDR},
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

fn service(name: &str, address: &str) -> Service {
    let mut object = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    if !address.is_empty() {
        object["spec"]["clusterIP"] = json!(address);
    }
    serde_json::from_value(object).expect("a Service")
}

fn message(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => serde_json::to_value(&*status)
            .ok()
            .and_then(|s| s["message"].as_str().map(str::to_owned))
            .unwrap_or_default(),
        other => other.to_string(),
    }
}

#[tokio::test]
async fn ranges_are_added_by_objects() {
    let server = ApiServer::start().await;
    let client = server.admin().await;
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let refused = services.create(&PostParams::default(), &service("a", "10.200.0.7")).await.map_err(message);
    assert_eq!(
        refused.expect_err("no range has the address"),
        "Service \"a\" is invalid: spec.clusterIPs: Invalid value: [\"10.200.0.7\"]: failed to allocate IP 10.200.0.7: \
         the provided network does not match the current range"
    );
    let ranges: Api<ServiceCIDR> = Api::all(client.clone());
    let range: Value = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.200.0.0/24"]}});
    ranges.create(&PostParams::default(), &serde_json::from_value(range).expect("a range")).await.expect("create");
    let params = PostParams::default();
    wait_until("the new range is used", || async {
        services.create(&params, &service("a", "10.200.0.7")).await.map_err(message)
    })
    .await;
    let taken = services.create(&params, &service("b", "10.200.0.7")).await.map_err(message);
    assert!(taken.expect_err("the address is taken").ends_with("provided IP is already allocated"));
}

#[tokio::test]
async fn lost_allocations_are_made_good() {
    let mut server = ApiServer::start().await;
    let services: Api<Service> = Api::namespaced(server.admin().await, "default");
    let made = services.create(&PostParams::default(), &service("a", "")).await.expect("create");
    let address = made.spec.and_then(|spec| spec.cluster_ip).expect("an address");
    let addresses: Api<IPAddress> = Api::all(server.admin().await);
    addresses.delete(&address, &DeleteParams::default()).await.expect("delete");
    server.restart().await;
    let addresses: Api<IPAddress> = Api::all(server.admin().await);
    wait_until("the address is allocated again", || async { addresses.get(&address).await.map_err(message) }).await;
}
