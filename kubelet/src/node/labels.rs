//! Labels that a kubelet may give its own Node.

use std::collections::BTreeMap;

/// Domains whose labels are the kubelet's.
const DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// Labels of other domains of Kubernetes that are the kubelet's too.
const ALLOWED: [&str; 11] = [
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

fn is_in(domain: &str, of: &str) -> bool {
    domain == of || domain.strip_suffix(of).is_some_and(|rest| rest.ends_with('.'))
}

/// Whether a label is in a domain of Kubernetes and not the kubelet's.
fn is_foreign(label: &str) -> bool {
    let Some((domain, _)) = label.split_once('/') else { return false };
    let reserved = is_in(domain, "kubernetes.io") || is_in(domain, "k8s.io");
    reserved && !ALLOWED.contains(&label) && !DOMAINS.iter().any(|own| is_in(domain, own))
}

/// What is wrong with labels, if anything.
pub(crate) fn check(labels: &BTreeMap<String, String>) -> Option<String> {
    let foreign: Vec<&str> = labels.keys().map(String::as_str).filter(|label| is_foreign(label)).collect();
    if foreign.is_empty() {
        return None;
    }
    Some(format!(
        "unknown 'kubernetes.io' or 'k8s.io' labels specified with --node-labels: [{}]\n--node-labels in the \
         'kubernetes.io' namespace must begin with an allowed prefix ({}) or be in the specifically allowed set ({})",
        foreign.join(" "),
        DOMAINS.join(", "),
        ALLOWED.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_labels_are_the_kubelets() {
        for (label, foreign) in [
            ("plain", false),
            ("example.test/a", false),
            ("notkubernetes.io/a", false),
            ("node.kubernetes.io/pool", false),
            ("a.kubelet.kubernetes.io/b", false),
            ("topology.kubernetes.io/zone", false),
            ("topology.kubernetes.io/rack", true),
            ("node-role.kubernetes.io/control-plane", true),
            ("node-restriction.kubernetes.io/a", true),
            ("a.k8s.io/b", true),
        ] {
            let labels = [(label.to_owned(), "x".to_owned())].into();
            assert_eq!(check(&labels).is_some(), foreign, "{label}");
        }
        let labels = [("b.k8s.io/x".to_owned(), String::new()), ("a.k8s.io/x".to_owned(), String::new())].into();
        assert!(check(&labels).unwrap().contains("--node-labels: [a.k8s.io/x b.k8s.io/x]\n"));
    }
}
