use controller::{Cached, Viewed};

use super::*;

fn put<V: Send + Sync>(informer: &Informer<V>, name: &str, view: V) {
    let version = rand::random::<u32>().to_string();
    informer.apply(Cached { key: ObjectKey::new("ns", name), uid: name.into(), resource_version: version, view });
}

fn sources() -> Sources {
    Sources { services: Informer::new(ServiceView::INDICES), slices: Informer::new(SliceView::INDICES) }
}

fn service(value: serde_json::Value) -> ServiceView {
    ServiceView::project(serde_json::from_value(serde_json::json!({ "spec": value })).expect("valid"))
}

fn slice(ports: serde_json::Value, endpoints: serde_json::Value) -> SliceView {
    let value = serde_json::json!({"addressType": "IPv4", "ports": ports, "endpoints": endpoints,
        "metadata": {"labels": {"kubernetes.io/service-name": "web"}}});
    SliceView::project(serde_json::from_value(value).expect("valid"))
}

fn key(port: Port) -> BackendKey {
    BackendKey { service: ObjectKey::new("ns", "web"), port }
}

fn addresses(all: &[&str]) -> Endpoints {
    Endpoints::Addresses(all.iter().map(|a| a.parse().expect("an address")).collect())
}

#[test]
fn endpoints_of_a_port() {
    let sources = sources();
    assert_eq!(sources.endpoints(&key(Port::Number(80))), Endpoints::None);
    let ports = serde_json::json!([{"name": "http", "port": 80, "targetPort": "web"}, {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "admin", "port": 81}]);
    put(&sources.services, "web", service(serde_json::json!({"ports": ports})));
    assert_eq!(sources.endpoints(&key(Port::Number(80))), Endpoints::None);
    let one = slice(
        serde_json::json!([{"name": "http", "port": 8080}, {"name": "admin", "port": 9090}]),
        serde_json::json!([{"addresses": ["10.0.0.2"], "conditions": {"ready": true}}, {"addresses": ["10.0.0.1"]},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false}},
            {"addresses": ["10.0.0.4"], "conditions": {"ready": false, "serving": true, "terminating": true}}]),
    );
    put(&sources.slices, "web-1", one);
    // Another number of the same named port.
    let two =
        slice(serde_json::json!([{"name": "http", "port": 8081}]), serde_json::json!([{"addresses": ["10.0.0.9"]}]));
    put(&sources.slices, "web-2", two);
    let http = addresses(&["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.9:8081"]);
    assert_eq!(sources.endpoints(&key(Port::Number(80))), http);
    assert_eq!(sources.endpoints(&key(Port::Name("http".into()))), http);
    assert_eq!(sources.endpoints(&key(Port::First)), http);
    assert_eq!(sources.endpoints(&key(Port::Name("admin".into()))), addresses(&["10.0.0.1:9090", "10.0.0.2:9090"]));
    assert_eq!(sources.endpoints(&key(Port::Number(53))), Endpoints::None);
    assert_eq!(sources.endpoints(&key(Port::Number(8080))), Endpoints::None);
}

#[test]
fn the_last_to_leave_still_serve() {
    let sources = sources();
    put(&sources.services, "web", service(serde_json::json!({"ports": [{"port": 80}]})));
    let leaving = serde_json::json!([{"addresses": ["10.0.0.4"],
        "conditions": {"ready": false, "serving": true, "terminating": true}}]);
    put(&sources.slices, "web-1", slice(serde_json::json!([{"name": "", "port": 8080}]), leaving));
    assert_eq!(sources.endpoints(&key(Port::Number(80))), addresses(&["10.0.0.4:8080"]));
}

#[test]
fn external_names() {
    let sources = sources();
    put(&sources.services, "web", service(serde_json::json!({"type": "ExternalName", "externalName": "a.example"})));
    let external = Endpoints::External { host: "a.example".into(), port: 8443 };
    assert_eq!(sources.endpoints(&key(Port::Number(8443))), external);
    assert_eq!(sources.endpoints(&key(Port::Name("http".into()))), Endpoints::None);
}

#[test]
fn slots_follow_their_services_and_take_turns() {
    let sources = sources();
    let backends = Backends::new(sources.clone());
    let slot = backends.slot(&key(Port::Number(80)));
    assert!(Arc::ptr_eq(&slot, &backends.slot(&key(Port::Number(80)))));
    assert_eq!(**slot.endpoints.load(), Endpoints::None);
    put(&sources.services, "web", service(serde_json::json!({"ports": [{"port": 80}]})));
    let ends =
        serde_json::json!([{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.3"]}]);
    put(&sources.slices, "web-1", slice(serde_json::json!([{"port": 8080}]), ends));
    backends.refresh(Some(&HashSet::from([ObjectKey::new("ns", "other")])));
    assert_eq!(**slot.endpoints.load(), Endpoints::None);
    backends.refresh(Some(&HashSet::from([ObjectKey::new("ns", "web")])));
    let Endpoints::Addresses(all) = &**slot.endpoints.load() else { panic!("no addresses") };
    let round: HashSet<_> = (0..3).filter_map(|_| slot.next(all, &[])).collect();
    assert_eq!(round.len(), 3);
    assert_eq!(slot.next(all, &all[..2]), Some(all[2]));
    assert_eq!(slot.next(all, all), None);
}
