//! Cluster IPs of Services: which ranges they come from, and that lost allocations are made good.

use harness::{ApiServer, wait_until};
use k8s_openapi::api::{
    core::v1::{Event, Service},
    networking::v1::{IPAddress, ServiceCIDR},
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
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
    let events: Api<Event> = Api::namespaced(server.admin().await, "default");
    let note = format!("Cluster IP [IPv4]: {address} is not allocated; repairing");
    wait_until("the operator is told", || async {
        let all = events.list(&ListParams::default()).await.map_err(message)?;
        let told = all.items.iter().find(|event| event.message.as_ref() == Some(&note));
        let told = told.ok_or_else(|| format!("{all:?}"))?;
        assert_eq!((told.reason.as_deref(), told.type_.as_deref()), (Some("ClusterIPNotAllocated"), Some("Warning")));
        assert_eq!(told.involved_object.name.as_deref(), Some("a"));
        Ok::<_, String>(())
    })
    .await;
}

/// Policy, families and families of the addresses of a Service, which have to agree.
fn stacks(service: &Service) -> String {
    let spec = service.spec.clone().unwrap_or_default();
    let addresses = spec.cluster_ips.unwrap_or_default();
    assert_eq!(spec.cluster_ip.as_ref(), addresses.first());
    let of = |address: &String| match address.as_str() {
        "None" => "None",
        address if address.starts_with("10.20.") => "IPv4",
        address if address.starts_with("fd00:20::") => "IPv6",
        _ => "?",
    };
    let addresses: Vec<&str> = addresses.iter().map(of).collect();
    let families = spec.ip_families.unwrap_or_default().join(",");
    format!("{} {families} {}", spec.ip_family_policy.unwrap_or_default(), addresses.join(","))
}

fn made(name: &str, spec: Value) -> Service {
    let mut object = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        object["spec"][field] = value.clone();
    }
    serde_json::from_value(object).expect("a Service")
}

#[tokio::test]
async fn services_of_two_families() {
    let mut server = ApiServer::start_with(&["--service-cluster-ip-range=10.20.0.0/24,fd00:20::/112"]).await;
    let client = server.admin().await;
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let addresses: Api<IPAddress> = Api::all(client.clone());
    let params = PostParams::default();
    for (name, spec, expected) in [
        ("plain", json!({}), "SingleStack IPv4 IPv4"),
        ("six", json!({"ipFamilies": ["IPv6"]}), "SingleStack IPv6 IPv6"),
        ("given", json!({"clusterIP": "fd00:20::7"}), "SingleStack IPv6 IPv6"),
        ("preferred", json!({"ipFamilyPolicy": "PreferDualStack"}), "PreferDualStack IPv4,IPv6 IPv4,IPv6"),
        (
            "reverse",
            json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}),
            "RequireDualStack IPv6,IPv4 IPv6,IPv4",
        ),
        ("headless", json!({"clusterIP": "None", "selector": {"a": "b"}}), "SingleStack IPv4 None"),
        ("free", json!({"clusterIP": "None"}), "RequireDualStack IPv4,IPv6 None"),
    ] {
        let made = services.create(&params, &made(name, spec)).await.map_err(message).expect(name);
        assert_eq!(stacks(&made), expected, "{name}");
    }
    let refused = services.create(&params, &made("again", json!({"clusterIP": "fd00:20::7"}))).await.map_err(message);
    assert!(refused.expect_err("the address is taken").ends_with("fd00:20::7: provided IP is already allocated"));
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let tried = services.create(&dry, &made("dry", json!({"ipFamilies": ["IPv6"]}))).await.expect("dry run");
    assert_eq!(tried.spec.and_then(|spec| spec.cluster_ip).as_deref(), Some("fd00:20::"));

    // To two families and back; what is given up can be had again.
    let patch = async |name: &str, spec: Value| {
        let patch = Patch::Merge(json!({"spec": spec}));
        services.patch(name, &PatchParams::default(), &patch).await.map_err(message)
    };
    let both = patch("plain", json!({"ipFamilyPolicy": "RequireDualStack"})).await.expect("a second family");
    assert_eq!(stacks(&both), "RequireDualStack IPv4,IPv6 IPv4,IPv6");
    let held = both.spec.and_then(|spec| spec.cluster_ips).unwrap_or_default();
    let label = "ipaddress.kubernetes.io/ip-family";
    for (address, family) in held.iter().zip(["IPv4", "IPv6"]) {
        let object = addresses.get(address).await.expect("an IPAddress");
        assert_eq!(object.metadata.labels.unwrap_or_default().get(label).map(String::as_str), Some(family));
    }
    let kept = patch("plain", json!({"clusterIPs": [held[0]], "ipFamilies": ["IPv4"]})).await;
    assert!(kept.expect_err("not by itself").contains("must be 'SingleStack' to release the secondary cluster IP"));
    let moved = patch("plain", json!({"clusterIPs": [held[0], "fd00:20::9"]})).await;
    assert!(moved.expect_err("it stays").contains("spec.clusterIPs[1]: Invalid value"));
    let single = patch("plain", json!({"ipFamilyPolicy": "SingleStack"})).await.expect("one family");
    assert_eq!(stacks(&single), "SingleStack IPv4 IPv4");
    let gone = async |address: &str| {
        wait_until("an address to be given back", || async {
            let present = addresses.get_opt(address).await.map_err(message)?;
            if present.is_none() { Ok(()) } else { Err(format!("{present:?}")) }
        })
        .await;
    };
    gone(&held[1]).await;
    let external = json!({"type": "ExternalName", "externalName": "a.example"});
    let named = patch("reverse", external).await.expect("no addresses");
    assert_eq!(stacks(&named), "  ");
    let back = patch("reverse", json!({"type": "ClusterIP", "externalName": null})).await.expect("addresses");
    assert_eq!(stacks(&back), "SingleStack IPv4 IPv4");
    let preferred = services.get("preferred").await.expect("get").spec.and_then(|spec| spec.cluster_ips);
    services.delete("preferred", &DeleteParams::default()).await.expect("delete");
    for address in preferred.unwrap_or_default() {
        gone(&address).await;
    }

    let ranges: Api<ServiceCIDR> = Api::all(client);
    let default = ranges.get("kubernetes").await.expect("the default range");
    let listed = default.spec.and_then(|spec| spec.cidrs).unwrap_or_default();
    assert_eq!(listed, ["10.20.0.0/24", "fd00:20::/112"]);
    let condition = default.status.and_then(|status| status.conditions).unwrap_or_default();
    assert_eq!(condition.first().map(|c| c.message.as_str()), Some("Kubernetes default Service CIDR is ready"));

    // Lost allocations of the second family are made good as well.
    addresses.delete("fd00:20::7", &DeleteParams::default()).await.expect("delete");
    server.restart().await;
    let addresses: Api<IPAddress> = Api::all(server.admin().await);
    wait_until("the address is allocated again", || async { addresses.get("fd00:20::7").await.map_err(message) }).await;
}

#[tokio::test]
async fn a_cluster_of_ipv6_only() {
    let flags = ["--service-cluster-ip-range=fd00:20::/112", "--advertise-address=fd00:1::1"];
    let server = ApiServer::start_with(&flags).await;
    let services: Api<Service> = Api::namespaced(server.admin().await, "default");
    let params = PostParams::default();
    let own = services.get("kubernetes").await.expect("the Service of the API");
    assert_eq!(own.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()), Some("fd00:20::1"));
    assert_eq!(stacks(&own), "SingleStack IPv6 IPv6");
    let plain = services.create(&params, &made("plain", json!({}))).await.expect("create");
    assert_eq!(stacks(&plain), "SingleStack IPv6 IPv6");
    let preferred = services.create(&params, &made("preferred", json!({"ipFamilyPolicy": "PreferDualStack"}))).await;
    assert_eq!(stacks(&preferred.expect("create")), "PreferDualStack IPv6 IPv6");
    for (spec, expected) in [
        (
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack \
             services",
        ),
        (
            json!({"ipFamilies": ["IPv4"]}),
            "spec.ipFamilies[0]: Invalid value: \"IPv4\": not configured on this cluster",
        ),
        (
            json!({"clusterIP": "10.20.0.7"}),
            "spec.clusterIPs[0]: Invalid value: [\"10.20.0.7\"]: IPv4 is not configured on this cluster",
        ),
    ] {
        let refused = services.create(&params, &made("refused", spec)).await.map_err(message).expect_err("refused");
        assert_eq!(refused, format!("Service \"refused\" is invalid: {expected}"));
    }
}
