//! The rules of a ClusterRole that is made of others.

use std::collections::BTreeMap;

use k8s_openapi::{api::rbac::v1::PolicyRule, apimachinery::pkg::apis::meta::v1 as meta};

use crate::children::{SelectorError, matches, selector_of};

/// A role that may contribute.
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) rules: &'a [PolicyRule],
}

/// The rules of all roles that match a selector, without those of `role` itself: selector by selector, the roles of
/// each by name, each rule where it comes first.
pub(super) fn rules(
    role: &str,
    selectors: &[meta::LabelSelector],
    sources: &mut [Source<'_>],
) -> Result<Vec<PolicyRule>, SelectorError> {
    sources.sort_unstable_by_key(|source| source.name);
    let mut union: Vec<PolicyRule> = Vec::new();
    for selector in selectors {
        let selector = selector_of(selector)?;
        for source in sources.iter().filter(|s| s.name != role && matches(&selector, s.labels)) {
            for rule in source.rules {
                if !union.contains(rule) {
                    union.push(rule.clone());
                }
            }
        }
    }
    Ok(union)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(resource: &str) -> PolicyRule {
        PolicyRule {
            resources: Some(vec![resource.into()]),
            verbs: vec!["get".into()],
            api_groups: Some(vec![String::new()]),
            ..PolicyRule::default()
        }
    }

    #[test]
    fn union_by_selector_and_name() {
        let label = |key: &str| BTreeMap::from([(key.to_owned(), "true".to_owned())]);
        let (to_view, to_edit, none) = (label("to-view"), label("to-edit"), BTreeMap::new());
        let (ab, bc, own, other) =
            ([rule("a"), rule("b")], [rule("b"), rule("c")], [rule("own")], [rule("z"), rule("a")]);
        let selector = |key: &str| serde_json::from_value(json!({"matchLabels": {key: "true"}})).unwrap();
        let of = |selectors: &[meta::LabelSelector]| {
            let mut sources = [
                Source { name: "two", labels: &to_view, rules: &bc },
                Source { name: "one", labels: &to_view, rules: &ab },
                Source { name: "self", labels: &to_view, rules: &own },
                Source { name: "edits", labels: &to_edit, rules: &other },
                Source { name: "plain", labels: &none, rules: &own },
            ];
            let all = rules("self", selectors, &mut sources).unwrap();
            all.into_iter().flat_map(|r| r.resources.unwrap_or_default()).collect::<Vec<_>>().join("")
        };
        assert_eq!(of(&[]), "");
        assert_eq!(of(&[selector("to-view")]), "abc");
        assert_eq!(of(&[selector("to-edit"), selector("to-view")]), "zabc");
        assert_eq!(of(&[selector("nobody")]), "");
        // An empty selector is everybody.
        assert_eq!(of(&[meta::LabelSelector::default()]), "zabownc");
    }

    #[test]
    fn invalid_selectors_are_errors() {
        let selector: meta::LabelSelector =
            serde_json::from_value(json!({"matchExpressions": [{"key": "a", "operator": "Near"}]})).unwrap();
        assert!(rules("x", &[selector], &mut []).is_err());
    }
}
