//! Resolver configuration of a Pod.

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

use crate::cri::v1::DnsConfig;
use crate::pods;

const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
const MAX_SEARCH_PATH: usize = 253;

/// The cluster's part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterDns {
    /// Servers.
    pub servers: Vec<String>,
    /// Domain, without dots at the ends.
    pub domain: String,
}

/// Something to tell the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsWarning {
    /// Event reason.
    pub reason: &'static str,
    /// Event message.
    pub message: String,
}

/// The node's resolver file.
pub fn parse(text: &str) -> DnsConfig {
    let mut config = DnsConfig::default();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => config.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                let trimmed = words.map(|word| word.trim_end_matches('.')).filter(|word| !word.is_empty());
                config.searches = trimmed.map(str::to_owned).collect();
            }
            Some("options") => config.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    config
}

/// What the runtime writes into the Pod's `resolv.conf`.
pub fn of_pod(pod: &Pod, host: Option<&DnsConfig>, cluster: &ClusterDns) -> (DnsConfig, Vec<DnsWarning>) {
    let mut warnings = Vec::new();
    let policy = pods::spec(pod).dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster_first = match policy {
        "None" => return finish(pod, DnsConfig::default(), warnings),
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => !pods::host_network(pod),
        _ => false,
    };
    if cluster_first && cluster.servers.is_empty() {
        let message = format!(
            "pod: {:?}. kubelet does not have ClusterDNS IP configured and cannot create Pod using {policy:?} policy. Falling back to \"Default\" policy.",
            pods::describe(pod)
        );
        warnings.push(DnsWarning { reason: "MissingClusterDNS", message });
    } else if cluster_first {
        return finish(pod, cluster_config(pod, host, cluster), warnings);
    }
    let config = host.cloned().unwrap_or_else(|| DnsConfig {
        servers: vec!["127.0.0.1".to_owned()],
        searches: vec![".".to_owned()],
        options: Vec::new(),
    });
    finish(pod, config, warnings)
}

fn cluster_config(pod: &Pod, host: Option<&DnsConfig>, cluster: &ClusterDns) -> DnsConfig {
    let mut searches = Vec::new();
    if !cluster.domain.is_empty() {
        let domain = &cluster.domain;
        let own = [format!("{}.svc.{domain}", pods::namespace(pod)), format!("svc.{domain}"), domain.clone()];
        extend_unique(&mut searches, own);
    }
    extend_unique(&mut searches, host.map(|host| host.searches.clone()).unwrap_or_default());
    DnsConfig { servers: cluster.servers.clone(), searches, options: vec!["ndots:5".to_owned()] }
}

fn extend_unique(list: &mut Vec<String>, more: impl IntoIterator<Item = String>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}

fn finish(pod: &Pod, mut config: DnsConfig, mut warnings: Vec<DnsWarning>) -> (DnsConfig, Vec<DnsWarning>) {
    if let Some(own) = &pods::spec(pod).dns_config {
        append(&mut config, own);
    }
    limit(&mut config, &mut warnings);
    (config, warnings)
}

fn append(config: &mut DnsConfig, own: &PodDNSConfig) {
    extend_unique(&mut config.servers, own.nameservers.iter().flatten().cloned());
    extend_unique(&mut config.searches, own.searches.iter().flatten().cloned());
    for option in own.options.iter().flatten() {
        let name = option.name.as_deref().unwrap_or_default();
        config.options.retain(|text| text.split(':').next() != Some(name));
        config.options.push(match option.value.as_deref().filter(|value| !value.is_empty()) {
            Some(value) => format!("{name}:{value}"),
            None => name.to_owned(),
        });
    }
}

fn limit(config: &mut DnsConfig, warnings: &mut Vec<DnsWarning>) {
    let mut warn = |message| warnings.push(DnsWarning { reason: "DNSConfigForming", message });
    if config.servers.len() > MAX_SERVERS {
        config.servers.truncate(MAX_SERVERS);
        warn(format!(
            "Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: {}",
            config.servers.join(" ")
        ));
    }
    let before = config.searches.len();
    config.searches.retain(|search| search.len() <= MAX_SEARCH_PATH);
    config.searches.truncate(MAX_SEARCHES);
    while config.searches.join(" ").len() > MAX_SEARCH_CHARS {
        config.searches.pop();
    }
    if config.searches.len() < before {
        warn(format!(
            "Search Line limits were exceeded, some search paths have been omitted, the applied search line is: {}",
            config.searches.join(" ")
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({ "metadata": { "name": "p", "namespace": "ns" }, "spec": spec }))
            .unwrap()
    }

    fn cluster() -> ClusterDns {
        ClusterDns { servers: vec!["10.96.0.10".into()], domain: "cluster.local".into() }
    }

    #[test]
    fn policies() {
        let host = parse("nameserver 1.1.1.1\nsearch a. .\nsearch corp.example.\noptions ndots:1\n");
        assert_eq!(host.searches, ["corp.example"]);
        let first = of_pod(&pod(serde_json::json!({ "containers": [] })), Some(&host), &cluster()).0;
        assert_eq!(first.servers, ["10.96.0.10"]);
        assert_eq!(first.searches, ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"]);
        assert_eq!(first.options, ["ndots:5"]);
        let on_host = pod(serde_json::json!({ "containers": [], "hostNetwork": true }));
        assert_eq!(of_pod(&on_host, Some(&host), &cluster()).0, host);
        let none = pod(serde_json::json!({ "containers": [], "dnsPolicy": "None", "dnsConfig": {
            "nameservers": ["8.8.8.8"], "options": [{ "name": "ndots", "value": "2" }, { "name": "edns0" }] } }));
        let config = of_pod(&none, Some(&host), &cluster()).0;
        assert_eq!(
            (config.servers, config.options),
            (vec!["8.8.8.8".to_owned()], vec!["ndots:2".into(), "edns0".into()])
        );
        let missing = of_pod(&pod(serde_json::json!({ "containers": [] })), Some(&host), &ClusterDns::default());
        assert_eq!(missing.1[0].reason, "MissingClusterDNS");
    }

    #[test]
    fn limits() {
        let many: Vec<String> = (0..5).map(|n| format!("10.0.0.{n}")).collect();
        let pod =
            pod(serde_json::json!({ "containers": [], "dnsPolicy": "None", "dnsConfig": { "nameservers": many } }));
        let (config, warnings) = of_pod(&pod, None, &ClusterDns::default());
        assert_eq!(config.servers.len(), 3);
        assert!(warnings[0].message.ends_with("the applied nameserver line is: 10.0.0.0 10.0.0.1 10.0.0.2"));
    }
}
