//! RBAC: whether rules cover a request, and whether one set of rules covers another.

use serde::{Deserialize, Serialize};

/// `rbac.authorization.k8s.io/v1` PolicyRule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyRule {
    /// Verbs, `*` for all.
    #[serde(deserialize_with = "null_as_empty")]
    pub verbs: Vec<String>,
    /// API groups, `*` for all.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub api_groups: Vec<String>,
    /// Resources (`pods`, `pods/log`, `*/scale`, `*`).
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub resources: Vec<String>,
    /// Object names; empty for all.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub resource_names: Vec<String>,
    /// Paths (`/healthz`, `/api/*`, `*`).
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub non_resource_urls: Vec<String>,
}

fn null_as_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Option::<Vec<String>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A request as RBAC sees it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Verb.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// Resource.
    pub resource: &'a str,
    /// Subresource or empty.
    pub subresource: &'a str,
    /// Object name or empty.
    pub name: &'a str,
    /// Path, for non-resource requests.
    pub path: &'a str,
    /// Whether this is about a resource.
    pub is_resource: bool,
}

const ALL: &str = "*";

fn holds(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == ALL || item == wanted)
}

impl PolicyRule {
    /// Whether the rule allows the request.
    pub fn allows(&self, request: &Request<'_>) -> bool {
        if !holds(&self.verbs, request.verb) {
            return false;
        }
        if !request.is_resource {
            return self.non_resource_urls.iter().any(|url| covers_url(url, request.path));
        }
        holds(&self.api_groups, request.group)
            && self.covers_resource(request.resource, request.subresource)
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|n| n == request.name))
    }

    fn covers_resource(&self, resource: &str, subresource: &str) -> bool {
        self.resources.iter().any(|item| {
            if item == ALL {
                return true;
            }
            match item.split_once('/') {
                None => subresource.is_empty() && item == resource,
                Some((ALL, sub)) => !subresource.is_empty() && sub == subresource,
                Some((own, sub)) => own == resource && sub == subresource,
            }
        })
    }
}

fn covers_url(allowed: &str, path: &str) -> bool {
    match allowed.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => allowed == path,
    }
}

/// Splits a rule into rules of one verb and one group-resource(-name), or one verb and one path.
fn atoms(rule: &PolicyRule) -> Vec<PolicyRule> {
    let mut atoms = Vec::new();
    for verb in &rule.verbs {
        let verbs = vec![verb.clone()];
        for url in &rule.non_resource_urls {
            let non_resource_urls = vec![url.clone()];
            atoms.push(PolicyRule { verbs: verbs.clone(), non_resource_urls, ..PolicyRule::default() });
        }
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let one = PolicyRule {
                    verbs: verbs.clone(),
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    ..PolicyRule::default()
                };
                if rule.resource_names.is_empty() {
                    atoms.push(one);
                } else {
                    atoms.extend(
                        rule.resource_names
                            .iter()
                            .map(|n| PolicyRule { resource_names: vec![n.clone()], ..one.clone() }),
                    );
                }
            }
        }
    }
    atoms
}

/// The parts of `wanted` that `held` does not cover, as single-verb rules. Empty: covered.
pub fn uncovered(held: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    wanted.iter().flat_map(atoms).filter(|atom| !held.iter().any(|rule| covers(rule, atom))).collect()
}

fn covers(rule: &PolicyRule, atom: &PolicyRule) -> bool {
    let within =
        |have: &[String], want: &[String]| have.iter().any(|h| h == ALL) || want.iter().all(|w| have.contains(w));
    if !within(&rule.verbs, &atom.verbs) {
        return false;
    }
    if let [url] = atom.non_resource_urls.as_slice() {
        return rule.non_resource_urls.iter().any(|have| {
            have == url || have.strip_suffix('*').is_some_and(|prefix| url.trim_end_matches('*').starts_with(prefix))
        });
    }
    let resources = atom.resources.iter().all(|wanted| {
        rule.resources.iter().any(|have| {
            have == ALL
                || have == wanted
                || matches!((have.split_once('/'), wanted.split_once('/')), (Some((ALL, a)), Some((_, b))) if a == b)
        })
    });
    let names = rule.resource_names.is_empty()
        || (!atom.resource_names.is_empty() && atom.resource_names.iter().all(|n| rule.resource_names.contains(n)));
    within(&rule.api_groups, &atom.api_groups) && resources && names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> PolicyRule {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        PolicyRule {
            verbs: own(verbs),
            api_groups: own(groups),
            resources: own(resources),
            resource_names: own(names),
            non_resource_urls: Vec::new(),
        }
    }

    fn request<'a>(
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        name: &'a str,
    ) -> Request<'a> {
        Request { verb, group, resource, subresource, name, path: "", is_resource: true }
    }

    #[test]
    fn subresources_need_their_own_entry() {
        let pods = rule(&["get"], &[""], &["pods"], &[]);
        assert!(pods.allows(&request("get", "", "pods", "", "a")));
        assert!(!pods.allows(&request("get", "", "pods", "log", "a")));
        assert!(rule(&["get"], &[""], &["pods/log"], &[]).allows(&request("get", "", "pods", "log", "a")));
        assert!(rule(&["get"], &["*"], &["*/scale"], &[]).allows(&request("get", "apps", "deployments", "scale", "a")));
        assert!(rule(&["*"], &["*"], &["*"], &[]).allows(&request("get", "apps", "deployments", "scale", "a")));
    }

    #[test]
    fn names_narrow() {
        let one = rule(&["update"], &["coordination.k8s.io"], &["leases"], &["a"]);
        assert!(one.allows(&request("update", "coordination.k8s.io", "leases", "", "a")));
        assert!(!one.allows(&request("update", "coordination.k8s.io", "leases", "", "b")));
        assert!(!one.allows(&request("update", "coordination.k8s.io", "leases", "", "")));
    }

    #[test]
    fn paths() {
        let paths = PolicyRule {
            verbs: vec!["get".into()],
            non_resource_urls: vec!["/api/*".into(), "/healthz".into()],
            ..PolicyRule::default()
        };
        let ask = |path| Request { path, is_resource: false, ..request("get", "", "", "", "") };
        assert!(paths.allows(&ask("/api/v1")));
        assert!(paths.allows(&ask("/healthz")));
        assert!(!paths.allows(&ask("/healthz/ping")));
    }

    #[test]
    fn escalation() {
        let held = [rule(&["get", "list"], &[""], &["pods"], &[])];
        assert!(uncovered(&held, &[rule(&["get"], &[""], &["pods"], &["x"])]).is_empty());
        let missing = uncovered(&held, &[rule(&["get", "delete"], &[""], &["pods", "secrets"], &[])]);
        assert_eq!(missing.len(), 3);
        assert!(!uncovered(&held, &[rule(&["*"], &[""], &["pods"], &[])]).is_empty());
    }
}
