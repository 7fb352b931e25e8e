use controller::{Informer, Viewed};
use k8s_openapi::api::{
    core::v1::{Namespace, Pod, Service},
    discovery::v1::EndpointSlice,
};
use serde::de::DeserializeOwned;

use super::*;
use crate::store::{NamespaceView, PodView};

fn fill<V: Viewed>(objects: &[&str]) -> Informer<V>
where
    V::Object: DeserializeOwned,
{
    let informer = Informer::new(V::INDICES);
    let cached = objects.iter().enumerate().map(|(number, text)| {
        let object: V::Object = serde_yaml::from_str(text).expect("an object");
        let meta = kube::Resource::meta(&object).clone();
        Cached {
            key: ObjectKey::new(meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default()),
            uid: number.to_string(),
            resource_version: "1".into(),
            view: V::project(object),
        }
    });
    informer.replace(cached.collect());
    informer
}

fn store() -> Store {
    // The types of objects are those of the views.
    let _types: Option<(Namespace, Pod, Service, EndpointSlice)> = None;
    Store {
        services: fill::<ServiceView>(&[
            "{metadata: {name: web, namespace: default}, spec: {clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7, 'fd00::7'], \
             ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}}",
            "{metadata: {name: plain, namespace: default}, spec: {clusterIP: 10.96.0.8, ports: [{port: 80}]}}",
            "{metadata: {name: db, namespace: default}, spec: {clusterIP: None, ports: [{name: sql, port: 3306}]}}",
            "{metadata: {name: empty, namespace: default}, spec: {clusterIP: None, ports: [{name: x, port: 1}]}}",
            "{metadata: {name: out, namespace: default}, spec: {type: ExternalName, externalName: example.org}}",
        ]),
        slices: fill::<SliceView>(&[
            "{metadata: {name: db-1, namespace: default, labels: {kubernetes.io/service-name: db}}, addressType: IPv4, \
             ports: [{name: sql, port: 3307, protocol: TCP}], endpoints: [\
             {addresses: [10.244.0.5], hostname: db-0, conditions: {ready: true}}, {addresses: [10.244.1.6]}, \
             {addresses: [10.244.1.9], hostname: db-9, conditions: {ready: false}}]}",
        ]),
        namespaces: fill::<NamespaceView>(&["{metadata: {name: default}}"]),
        pods: Some(fill::<PodView>(&[
            "{metadata: {name: p, namespace: default}, status: {phase: Running, podIPs: [{ip: 10.244.0.5}]}}",
        ])),
    }
}

fn settings(pods: PodRecords) -> ZoneSettings {
    let origin = parse("cluster.local").expect("name");
    ZoneSettings { origin, reverse: true, pods, ttl: 30, endpoint_pod_names: false }
}

/// The answer as text: records sorted, additional ones after a bar.
fn ask_with(pods: PodRecords, name: &str, kind: RecordType) -> String {
    let (settings, store) = (settings(pods), store());
    let text = |records: Vec<Record>| {
        let mut lines: Vec<String> = records.iter().map(|r| r.data.to_string()).collect();
        lines.sort();
        lines.join(", ")
    };
    match Zone::new(&settings, &store).find(&parse(name).expect("name"), kind, 1) {
        Found::Records(records, more) if more.is_empty() => text(records),
        Found::Records(records, more) => format!("{} | {}", text(records), text(more)),
        Found::Alias(record, _) => format!("-> {}", record.data),
        Found::NoData => "nodata".into(),
        Found::NoName => "nxdomain".into(),
        Found::Foreign => "foreign".into(),
    }
}

#[test]
fn names_of_services() {
    use RecordType::{A, AAAA, MX, SRV, TXT};
    for (name, kind, wanted) in [
        ("web.default.svc.cluster.local", A, "10.96.0.7"),
        ("WEB.Default.SVC.cluster.LOCAL", AAAA, "fd00::7"),
        ("web.default.svc.cluster.local", MX, "nodata"),
        ("plain.default.svc.cluster.local", AAAA, "nodata"),
        ("gone.default.svc.cluster.local", A, "nxdomain"),
        ("web.other.svc.cluster.local", A, "nxdomain"),
        ("default.svc.cluster.local", A, "nodata"),
        ("other.svc.cluster.local", A, "nxdomain"),
        ("svc.cluster.local", A, "nodata"),
        ("cluster.local", A, "nodata"),
        ("web.default.cluster.local", A, "nxdomain"),
        ("a.b.c.web.default.svc.cluster.local", A, "nxdomain"),
        ("example.org", A, "foreign"),
        ("dns-version.cluster.local", TXT, "1.1.0"),
        ("db.default.svc.cluster.local", A, "10.244.0.5, 10.244.1.6"),
        ("db.default.svc.cluster.local", AAAA, "nodata"),
        ("db-0.db.default.svc.cluster.local", A, "10.244.0.5"),
        ("10-244-1-6.db.default.svc.cluster.local", A, "10.244.1.6"),
        ("db-9.db.default.svc.cluster.local", A, "nxdomain"),
        ("empty.default.svc.cluster.local", A, "nxdomain"),
        ("out.default.svc.cluster.local", A, "-> example.org."),
        ("out.default.svc.cluster.local", TXT, "-> example.org."),
        (
            "_http._tcp.web.default.svc.cluster.local",
            SRV,
            "0 100 80 web.default.svc.cluster.local. | 10.96.0.7, fd00::7",
        ),
        ("_http._udp.web.default.svc.cluster.local", SRV, "nxdomain"),
        ("_tcp.web.default.svc.cluster.local", SRV, "nodata"),
        ("plain.default.svc.cluster.local", SRV, "nodata"),
        (
            "_sql._tcp.db.default.svc.cluster.local",
            SRV,
            "0 50 3307 10-244-1-6.db.default.svc.cluster.local., 0 50 3307 db-0.db.default.svc.cluster.local. \
             | 10.244.0.5, 10.244.1.6",
        ),
    ] {
        assert_eq!(ask_with(PodRecords::Insecure, name, kind), wanted, "{name} {kind}");
    }
}

#[test]
fn names_of_pods() {
    use PodRecords::{Disabled, Insecure, Verified};
    for (pods, name, wanted) in [
        (Insecure, "10-1-2-3.default.pod.cluster.local", "10.1.2.3"),
        (Insecure, "10-1-2-3.other.pod.cluster.local", "nxdomain"),
        (Insecure, "web.default.pod.cluster.local", "nxdomain"),
        (Verified, "10-1-2-3.default.pod.cluster.local", "nxdomain"),
        (Verified, "10-244-0-5.default.pod.cluster.local", "10.244.0.5"),
        (Disabled, "10-244-0-5.default.pod.cluster.local", "nxdomain"),
    ] {
        assert_eq!(ask_with(pods, name, RecordType::A), wanted, "{pods:?} {name}");
    }
    assert_eq!(ask_with(Insecure, "10-1-2-3.default.pod.cluster.local", RecordType::AAAA), "nodata");
}

#[test]
fn names_of_addresses() {
    for (name, kind, wanted) in [
        ("7.0.96.10.in-addr.arpa", RecordType::PTR, "web.default.svc.cluster.local."),
        ("5.0.244.10.in-addr.arpa", RecordType::PTR, "db-0.db.default.svc.cluster.local."),
        ("1.1.1.1.in-addr.arpa", RecordType::PTR, "foreign"),
        ("7.0.96.10.in-addr.arpa", RecordType::A, "foreign"),
    ] {
        assert_eq!(ask_with(PodRecords::Insecure, name, kind), wanted, "{name}");
    }
}
