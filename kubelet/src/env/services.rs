//! Variables that describe Services.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort};

/// Variables of the Services a Pod sees: its namespace's if links are on, and always `default/kubernetes`.
pub(super) fn variables<'a>(
    services: impl Iterator<Item = &'a Service> + Clone,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    let in_namespace = |service: &Service, wanted: &str| service.metadata.namespace.as_deref() == Some(wanted);
    for service in services.clone().filter(|service| cluster_ip(service).is_some()) {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        if name == "kubernetes" && in_namespace(service, "default") {
            chosen.entry(name).or_insert(service);
        }
    }
    if links {
        for service in services.filter(|service| cluster_ip(service).is_some() && in_namespace(service, namespace)) {
            chosen.insert(service.metadata.name.as_deref().unwrap_or_default(), service);
        }
    }
    let mut out = BTreeMap::new();
    for (name, service) in chosen {
        add(&mut out, name, service);
    }
    out
}

fn cluster_ip(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None")
}

fn add(out: &mut BTreeMap<String, String>, name: &str, service: &Service) {
    let Some(ip) = cluster_ip(service) else { return };
    let ports: &[ServicePort] = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let prefix = upper(name);
    let Some(first) = ports.first() else { return };
    out.insert(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
    out.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    let url = |port: &ServicePort| format!("{}://{}:{}", protocol(port).to_lowercase(), bracketed(ip), port.port);
    out.insert(format!("{prefix}_PORT"), url(first));
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            out.insert(format!("{prefix}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string());
        }
        let base = format!("{prefix}_PORT_{}_{}", port.port, protocol(port).to_uppercase());
        out.insert(format!("{base}_PROTO"), protocol(port).to_lowercase());
        out.insert(format!("{base}_PORT"), port.port.to_string());
        out.insert(format!("{base}_ADDR"), ip.to_owned());
        out.insert(base, url(port));
    }
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().filter(|text| !text.is_empty()).unwrap_or("TCP")
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

fn bracketed(ip: &str) -> String {
    if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(namespace: &str, name: &str, ip: &str) -> Service {
        serde_json::from_value(serde_json::json!({
            "metadata": { "namespace": namespace, "name": name },
            "spec": { "clusterIP": ip, "ports": [
                { "name": "web-ui", "port": 80, "protocol": "TCP" }, { "port": 53, "protocol": "UDP" }] } }))
        .unwrap()
    }

    #[test]
    fn names_and_choice() {
        let all = [
            service("default", "kubernetes", "10.0.0.1"),
            service("a", "my-db", "fd00::1"),
            service("b", "other", "10.0.0.3"),
            service("a", "headless", "None"),
        ];
        let with = variables(all.iter(), "a", true);
        assert_eq!(with["KUBERNETES_SERVICE_HOST"], "10.0.0.1");
        assert_eq!(with["MY_DB_PORT"], "tcp://[fd00::1]:80");
        assert_eq!(with["MY_DB_SERVICE_PORT_WEB_UI"], "80");
        assert_eq!(with["MY_DB_PORT_53_UDP_ADDR"], "fd00::1");
        assert!(!with.contains_key("OTHER_SERVICE_HOST"));
        let without = variables(all.iter(), "a", false);
        assert_eq!(without.len(), 3 + 1 + 8);
    }
}
