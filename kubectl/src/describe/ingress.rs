//! Ingresses, their classes, network policies and address ranges.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Facts, events,
    page::{Page, put},
    read::{list, number, or, scalar, selector, text, texts},
    service::endpoints_of,
};

/// An Ingress.
pub(crate) fn ingress(page: &mut Page, ingress: &Value, facts: &Facts) {
    let (meta, spec) = (&ingress["metadata"], &ingress["spec"]);
    put!(page, 0, "Name:\t{}", text(&meta["name"]));
    events::labels(page, 0, "Labels", &meta["labels"]);
    put!(page, 0, "Namespace:\t{}", text(&meta["namespace"]));
    let addresses: Vec<&str> = list(&ingress["status"]["loadBalancer"]["ingress"])
        .iter()
        .map(|point| if text(&point["ip"]).is_empty() { text(&point["hostname"]) } else { text(&point["ip"]) })
        .collect();
    put!(page, 0, "Address:\t{}", addresses.join(","));
    put!(page, 0, "Ingress Class:\t{}", spec["ingressClassName"].as_str().unwrap_or("<none>"));
    let default = match spec["defaultBackend"].is_null() {
        true => "<default>".to_owned(),
        false => backend(&spec["defaultBackend"], facts),
    };
    put!(page, 0, "Default backend:\t{default}");
    tls(page, &spec["tls"]);
    put!(page, 0, "Rules:");
    put!(page, 1, "Host\tPath\tBackends");
    put!(page, 1, "----\t----\t--------");
    let rules: Vec<&Value> = list(&spec["rules"]).iter().filter(|rule| !rule["http"].is_null()).collect();
    for rule in &rules {
        put!(page, 1, "{}\t", or(text(&rule["host"]), "*"));
        for path in list(&rule["http"]["paths"]) {
            put!(page, 2, "\t{} \t{}", text(&path["path"]), backend(&path["backend"], facts));
        }
    }
    if rules.is_empty() {
        put!(page, 1, "*\t*\t{default}");
    }
    events::annotations(page, 0, &meta["annotations"]);
    events::events(page, facts.events());
}

fn tls(page: &mut Page, tls: &Value) {
    if list(tls).is_empty() {
        return;
    }
    put!(page, 0, "TLS:");
    for entry in list(tls) {
        let hosts = texts(&entry["hosts"]).join(",");
        match text(&entry["secretName"]) {
            "" => put!(page, 1, "SNI routes {hosts}"),
            secret => put!(page, 1, "{secret} terminates {hosts}"),
        }
    }
}

fn backend(backend: &Value, facts: &Facts) -> String {
    let service = &backend["service"];
    if service.is_null() {
        let resource = &backend["resource"];
        let group = resource["apiGroup"].as_str().unwrap_or("<none>");
        return format!("APIGroup: {group}, Kind: {}, Name: {}", text(&resource["kind"]), text(&resource["name"]));
    }
    let port = match number(&service["port"]["number"]) {
        0 => text(&service["port"]["name"]).to_owned(),
        number => number.to_string(),
    };
    let name = text(&service["name"]);
    let behind = match facts.backends.get(name) {
        Some(Ok(behind)) => {
            let matches = |p: &&Value| match number(&service["port"]["number"]) {
                0 => p["name"] == service["port"]["name"],
                number => p["port"].as_i64() == Some(number),
            };
            let named = list(&behind.service["spec"]["ports"]).iter().find(matches).map_or("", |p| text(&p["name"]));
            endpoints_of(&behind.slices, &BTreeSet::from([named]))
        }
        Some(Err(error)) => format!("<error: {error}>"),
        None => String::new(),
    };
    format!("{name}:{port} ({behind})")
}

/// Services that an Ingress sends requests to.
pub(crate) fn backends(ingress: &Value) -> BTreeSet<&str> {
    let spec = &ingress["spec"];
    let paths = list(&spec["rules"]).iter().flat_map(|rule| list(&rule["http"]["paths"])).map(|path| &path["backend"]);
    paths
        .chain([&spec["defaultBackend"]])
        .map(|backend| text(&backend["service"]["name"]))
        .filter(|name| !name.is_empty())
        .collect()
}

/// An IngressClass.
pub(crate) fn class(page: &mut Page, class: &Value, facts: &Facts) {
    put!(page, 0, "Name:\t{}", text(&class["metadata"]["name"]));
    events::metadata(page, class);
    put!(page, 0, "Controller:\t{}", text(&class["spec"]["controller"]));
    let parameters = &class["spec"]["parameters"];
    if !parameters.is_null() {
        put!(page, 0, "Parameters:");
        if !parameters["apiGroup"].is_null() {
            put!(page, 1, "APIGroup:\t{}", text(&parameters["apiGroup"]));
        }
        put!(page, 1, "Kind:\t{}", text(&parameters["kind"]));
        put!(page, 1, "Name:\t{}", text(&parameters["name"]));
    }
    events::events(page, facts.events());
}

/// A NetworkPolicy.
pub(crate) fn network_policy(page: &mut Page, policy: &Value) {
    let (meta, spec) = (&policy["metadata"], &policy["spec"]);
    put!(page, 0, "Name:\t{}", text(&meta["name"]));
    put!(page, 0, "Namespace:\t{}", text(&meta["namespace"]));
    put!(page, 0, "Created on:\t{}", created(page, text(&meta["creationTimestamp"])));
    events::metadata(page, policy);
    put!(page, 0, "Spec:");
    let pods = &spec["podSelector"];
    let chosen = selector(pods);
    match chosen.as_str() {
        "<none>" => {
            put!(page, 1, "PodSelector:     <none> (Allowing the specific traffic to all pods in this namespace)");
        }
        chosen => put!(page, 1, "PodSelector:     {chosen}"),
    }
    let types = texts(&spec["policyTypes"]);
    direction(page, &types, "Ingress", "From", &spec["ingress"]);
    direction(page, &types, "Egress", "To", &spec["egress"]);
    put!(page, 1, "Policy Types: {}", types.join(", "));
}

fn created(page: &Page, at: &str) -> String {
    at.parse::<jiff::Timestamp>().map_or(String::new(), |at| {
        at.to_zoned(page.clock.zone.clone()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
    })
}

fn direction(page: &mut Page, types: &[&str], kind: &str, word: &str, rules: &Value) {
    let lower = kind.to_lowercase();
    if !types.contains(&kind) {
        put!(page, 1, "Not affecting {lower} traffic");
        return;
    }
    put!(page, 1, "Allowing {lower} traffic:");
    let rules = list(rules);
    if rules.is_empty() {
        put!(page, 2, "<none> (Selected pods are isolated for {lower} connectivity)");
    }
    for (at, rule) in rules.iter().enumerate() {
        if at > 0 {
            put!(page, 2, "----------");
        }
        let ports = list(&rule["ports"]);
        if ports.is_empty() {
            put!(page, 2, "To Port: <any> (traffic allowed to all ports)");
        }
        for port in ports {
            self::port(page, port);
        }
        let peers = list(&rule[&word.to_lowercase()]);
        if peers.is_empty() {
            let role = if word == "From" { "source" } else { "destination" };
            put!(page, 2, "{word}: <any> (traffic not restricted by {role})");
        }
        for peer in peers {
            put!(page, 2, "{word}:");
            self::peer(page, peer);
        }
    }
}

fn port(page: &mut Page, port: &Value) {
    let protocol = or(text(&port["protocol"]), "TCP");
    let first = if port["port"].is_null() { "<nil>".to_owned() } else { scalar(&port["port"]) };
    match port["endPort"].as_i64() {
        Some(last) => put!(page, 2, "To Port Range: {first}-{last}/{protocol}"),
        None => put!(page, 2, "To Port: {first}/{protocol}"),
    }
}

fn peer(page: &mut Page, peer: &Value) {
    for (title, field) in [("NamespaceSelector", "namespaceSelector"), ("PodSelector", "podSelector")] {
        if !peer[field].is_null() {
            put!(page, 3, "{title}: {}", selector(&peer[field]));
        }
    }
    let block = &peer["ipBlock"];
    if !block.is_null() {
        put!(page, 3, "IPBlock:");
        put!(page, 4, "CIDR: {}", text(&block["cidr"]));
        put!(page, 4, "Except: {}", texts(&block["except"]).join(", "));
    }
}

/// A ServiceCIDR.
pub(crate) fn service_cidr(page: &mut Page, range: &Value, facts: &Facts) {
    put!(page, 0, "Name:\t{}", text(&range["metadata"]["name"]));
    events::metadata(page, range);
    put!(page, 0, "CIDRs:\t{}", texts(&range["spec"]["cidrs"]).join(", "));
    let columns = [
        ("Type", "type"),
        ("Status", "status"),
        ("LastTransitionTime", "lastTransitionTime"),
        ("Reason", "reason"),
        ("Message", "message"),
    ];
    let conditions = &range["status"]["conditions"];
    if !list(conditions).is_empty() {
        put!(page, 0, "Status:");
        events::conditions(page, "Conditions", &columns, conditions, true);
    }
    events::events(page, facts.events());
}

/// An IPAddress.
pub(crate) fn ip_address(page: &mut Page, address: &Value, facts: &Facts) {
    put!(page, 0, "Name:\t{}", text(&address["metadata"]["name"]));
    events::metadata(page, address);
    let parent = &address["spec"]["parentRef"];
    if !parent.is_null() {
        put!(page, 0, "Parent Reference:");
        for (title, field) in
            [("Group", "group"), ("Resource", "resource"), ("Namespace", "namespace"), ("Name", "name")]
        {
            put!(page, 1, "{title}:\t{}", text(&parent[field]));
        }
    }
    events::events(page, facts.events());
}
