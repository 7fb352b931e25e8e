//! Services and their endpoints.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Facts, events,
    page::{Page, put},
    read::{label_text, list, number, or, scalar, text, texts},
};

/// Endpoints that are shown of a port.
const SHOWN: usize = 3;

fn names(page: &mut Page, object: &Value) {
    put!(page, 0, "Name:\t{}", text(&object["metadata"]["name"]));
    put!(page, 0, "Namespace:\t{}", text(&object["metadata"]["namespace"]));
    events::metadata(page, object);
}

/// A Service.
pub(crate) fn service(page: &mut Page, service: &Value, facts: &Facts) {
    let spec = &service["spec"];
    names(page, service);
    put!(page, 0, "Selector:\t{}", label_text(&spec["selector"]));
    put!(page, 0, "Type:\t{}", text(&spec["type"]));
    if !spec["ipFamilyPolicy"].is_null() {
        put!(page, 0, "IP Family Policy:\t{}", text(&spec["ipFamilyPolicy"]));
    }
    put!(page, 0, "IP Families:\t{}", or(&texts(&spec["ipFamilies"]).join(","), "<none>"));
    put!(page, 0, "IP:\t{}", text(&spec["clusterIP"]));
    put!(page, 0, "IPs:\t{}", or(&texts(&spec["clusterIPs"]).join(","), "<none>"));
    let external = texts(&spec["externalIPs"]);
    if !external.is_empty() {
        put!(page, 0, "External IPs:\t{}", external.join(","));
    }
    for (title, field) in [("Desired LoadBalancer IP", "loadBalancerIP"), ("External Name", "externalName")] {
        if !text(&spec[field]).is_empty() {
            put!(page, 0, "{title}:\t{}", text(&spec[field]));
        }
    }
    let ingress = list(&service["status"]["loadBalancer"]["ingress"]);
    if !ingress.is_empty() {
        let ingress: Vec<String> = ingress.iter().map(ingress_point).collect();
        put!(page, 0, "LoadBalancer Ingress:\t{}", ingress.join(", "));
    }
    for port in list(&spec["ports"]) {
        self::port(page, port, &facts.endpoint_slices);
    }
    put!(page, 0, "Session Affinity:\t{}", text(&spec["sessionAffinity"]));
    for (title, field) in
        [("External Traffic Policy", "externalTrafficPolicy"), ("Internal Traffic Policy", "internalTrafficPolicy")]
    {
        if !text(&spec[field]).is_empty() {
            put!(page, 0, "{title}:\t{}", text(&spec[field]));
        }
    }
    if number(&spec["healthCheckNodePort"]) != 0 {
        put!(page, 0, "HealthCheck NodePort:\t{}", number(&spec["healthCheckNodePort"]));
    }
    let ranges = texts(&spec["loadBalancerSourceRanges"]);
    if !ranges.is_empty() {
        put!(page, 0, "LoadBalancer Source Ranges:\t{}", ranges.join(","));
    }
    if !text(&spec["trafficDistribution"]).is_empty() {
        put!(page, 0, "Traffic Distribution:\t{}", text(&spec["trafficDistribution"]));
    }
    events::events(page, facts.events());
}

fn ingress_point(point: &Value) -> String {
    match (text(&point["ip"]), text(&point["ipMode"])) {
        ("", _) => text(&point["hostname"]).to_owned(),
        (ip, "") => ip.to_owned(),
        (ip, mode) => format!("{ip} ({mode})"),
    }
}

fn port(page: &mut Page, port: &Value, slices: &[Value]) {
    let (name, protocol) = (text(&port["name"]), text(&port["protocol"]));
    let title = or(name, "<unset>");
    put!(page, 0, "Port:\t{title}\t{}/{protocol}", number(&port["port"]));
    put!(page, 0, "TargetPort:\t{}/{protocol}", scalar(&port["targetPort"]));
    if !port["appProtocol"].is_null() {
        put!(page, 0, "AppProtocol:\t{}", text(&port["appProtocol"]));
    }
    if number(&port["nodePort"]) != 0 {
        put!(page, 0, "NodePort:\t{title}\t{}/{protocol}", number(&port["nodePort"]));
    }
    put!(page, 0, "Endpoints:\t{}", endpoints_of(slices, &BTreeSet::from([name])));
}

/// The first ready endpoints of some ports.
pub(crate) fn endpoints_of(slices: &[Value], ports: &BTreeSet<&str>) -> String {
    if slices.is_empty() {
        return "<none>".into();
    }
    let (mut shown, mut count) = (Vec::new(), 0);
    let mut add = |endpoint: &Value, port: Option<i64>| {
        if endpoint["conditions"]["ready"].as_bool() == Some(false) {
            return;
        }
        let address = list(&endpoint["addresses"]).first().map_or("", text);
        if shown.len() < SHOWN {
            shown.push(match port {
                Some(port) if address.contains(':') => format!("[{address}]:{port}"),
                Some(port) => format!("{address}:{port}"),
                None => address.to_owned(),
            });
        }
        count += 1;
    };
    for slice in slices {
        let endpoints = list(&slice["endpoints"]);
        if list(&slice["ports"]).is_empty() {
            endpoints.iter().for_each(|endpoint| add(endpoint, None));
        }
        for port in list(&slice["ports"]).iter().filter(|port| ports.contains(text(&port["name"]))) {
            endpoints.iter().for_each(|endpoint| add(endpoint, Some(number(&port["port"]))));
        }
    }
    let more = count - shown.len();
    let shown = shown.join(",");
    if more > 0 { format!("{shown} + {more} more...") } else { shown }
}

/// Endpoints.
pub(crate) fn endpoints(page: &mut Page, object: &Value, facts: &Facts) {
    names(page, object);
    put!(page, 0, "Subsets:");
    for subset in list(&object["subsets"]) {
        for (title, field) in [("Addresses", "addresses"), ("NotReadyAddresses", "notReadyAddresses")] {
            let addresses: Vec<&str> = list(&subset[field]).iter().map(|address| text(&address["ip"])).collect();
            put!(page, 1, "{title}:\t{}", or(&addresses.join(","), "<none>"));
        }
        let ports = list(&subset["ports"]);
        if !ports.is_empty() {
            put!(page, 1, "Ports:");
            port_table(page, 2, ports);
        }
        put!(page, 0, "");
    }
    events::events(page, facts.events());
}

fn port_table(page: &mut Page, level: usize, ports: &[Value]) {
    put!(page, level, "Name\tPort\tProtocol");
    put!(page, level, "----\t----\t--------");
    for port in ports {
        let name = or(text(&port["name"]), "<unset>");
        let number = port["port"].as_i64().map_or("<unset>".to_owned(), |n| n.to_string());
        put!(page, level, "{name}\t{number}\t{}", text(&port["protocol"]));
    }
}

/// An EndpointSlice.
pub(crate) fn endpoint_slice(page: &mut Page, slice: &Value, facts: &Facts) {
    names(page, slice);
    put!(page, 0, "AddressType:\t{}", text(&slice["addressType"]));
    let ports = list(&slice["ports"]);
    if ports.is_empty() {
        put!(page, 0, "Ports: <unset>");
    } else {
        put!(page, 0, "Ports:");
        port_table(page, 1, ports);
    }
    let endpoints = list(&slice["endpoints"]);
    put!(page, 0, "Endpoints:{}", if endpoints.is_empty() { " <none>" } else { "" });
    for endpoint in endpoints {
        put!(page, 1, "- Addresses:\t{}", texts(&endpoint["addresses"]).join(", "));
        put!(page, 2, "Conditions:");
        let ready = endpoint["conditions"]["ready"].as_bool();
        put!(page, 3, "Ready:\t{}", ready.map_or("<unset>".to_owned(), |ready| ready.to_string()));
        put!(page, 2, "Hostname:\t{}", endpoint["hostname"].as_str().unwrap_or("<unset>"));
        let target = &endpoint["targetRef"];
        if !target.is_null() {
            put!(page, 2, "TargetRef:\t{}/{}", text(&target["kind"]), text(&target["name"]));
        }
        put!(page, 2, "NodeName:\t{}", endpoint["nodeName"].as_str().unwrap_or("<unset>"));
        put!(page, 2, "Zone:\t{}", endpoint["zone"].as_str().unwrap_or("<unset>"));
    }
    events::events(page, facts.events());
}
