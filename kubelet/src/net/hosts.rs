//! Content of `/etc/hosts`.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::HostAlias;

const MANAGED: &str = "# Kubernetes-managed hosts file.\n";
const MANAGED_HOST_NETWORK: &str = "# Kubernetes-managed hosts file (host network).\n";
const FIXED: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
                     fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n";

/// The file of a Pod with its own network.
pub fn managed(ips: &[IpAddr], host: &str, domain: &str, aliases: &[HostAlias]) -> String {
    let mut out = format!("{MANAGED}{FIXED}");
    for ip in ips {
        if domain.is_empty() {
            out.push_str(&format!("{ip}\t{host}\n"));
        } else {
            out.push_str(&format!("{ip}\t{host}.{domain}\t{host}\n"));
        }
    }
    out + &alias_block(aliases)
}

/// The node's file for a Pod in the node's network.
pub fn from_node(node_file: &str, aliases: &[HostAlias]) -> String {
    format!("{MANAGED_HOST_NETWORK}{node_file}{}", alias_block(aliases))
}

fn alias_block(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut out = String::from("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default();
        out.push_str(&format!("{}\t{}\n", alias.ip, names.join("\t")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_exact() {
        let alias = HostAlias { ip: "1.2.3.4".into(), hostnames: Some(vec!["a".into(), "b".into()]) };
        let text = managed(&["10.1.0.2".parse().unwrap()], "web", "sub.ns.svc.cluster.local", &[alias]);
        assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-"));
        assert!(text.contains("\n10.1.0.2\tweb.sub.ns.svc.cluster.local\tweb\n"));
        assert!(text.ends_with("\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"));
        assert!(!from_node("x\n", &[]).contains("hosts file.\n"));
    }
}
