//! Roles and their bindings.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    events,
    page::{Page, put},
    read::{list, or, text, texts},
};

/// A rule about one resource, or about one URL.
#[derive(Clone, Debug, Default)]
struct Rule {
    verbs: Vec<String>,
    group: Option<String>,
    resource: Option<String>,
    name: Option<String>,
    url: Option<String>,
}

impl Rule {
    /// What rules are sorted by.
    fn order(&self) -> String {
        let one = |value: &Option<String>| value.clone().unwrap_or_default();
        format!(
            "Verbs:[{}],APIGroups:[{}],Resources:[{}],ResourceNames:[{}],NonResourceURLs:[{}]",
            self.verbs.join(" "),
            one(&self.group),
            one(&self.resource),
            one(&self.name),
            one(&self.url),
        )
    }

    /// `deployments.apps/scale`.
    fn title(&self) -> String {
        let (group, resource) = (self.group.as_deref().unwrap_or(""), self.resource.as_deref().unwrap_or(""));
        if group.is_empty() {
            return resource.to_owned();
        }
        match resource.split_once('/') {
            Some((resource, below)) => format!("{resource}.{group}/{below}"),
            None => format!("{resource}.{group}"),
        }
    }
}

/// A Role or a ClusterRole.
pub(crate) fn role(page: &mut Page, role: &Value) {
    put!(page, 0, "Name:\t{}", text(&role["metadata"]["name"]));
    events::metadata(page, role);
    put!(page, 0, "PolicyRule:");
    put!(page, 1, "Resources\tNon-Resource URLs\tResource Names\tVerbs");
    put!(page, 1, "---------\t-----------------\t--------------\t-----");
    for rule in compact(list(&role["rules"])) {
        put!(
            page,
            1,
            "{}\t[{}]\t[{}]\t[{}]",
            rule.title(),
            rule.url.as_deref().unwrap_or(""),
            rule.name.as_deref().unwrap_or(""),
            rule.verbs.join(" "),
        );
    }
}

/// One rule for each resource and for each URL and verb, sorted.
fn compact(rules: &[Value]) -> Vec<Rule> {
    let owned = |value: &str| Some(value.to_owned());
    let mut simple: BTreeMap<(String, String, Option<String>), Vec<String>> = BTreeMap::new();
    let mut all = Vec::new();
    for rule in rules {
        let verbs = texts(&rule["verbs"]);
        let names = texts(&rule["resourceNames"]);
        let names: Vec<Option<String>> =
            if names.is_empty() { vec![None] } else { names.into_iter().map(owned).collect() };
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in &verbs {
                    for name in &names {
                        let key = (group.to_owned(), resource.to_owned(), name.clone());
                        let known = simple.entry(key).or_default();
                        if !known.iter().any(|v| v == verb) {
                            known.push((*verb).to_owned());
                        }
                    }
                }
            }
        }
        for url in texts(&rule["nonResourceURLs"]) {
            all.extend(verbs.iter().map(|v| Rule { verbs: vec![(*v).to_owned()], url: owned(url), ..Rule::default() }));
        }
    }
    all.extend(simple.into_iter().map(|((group, resource, name), verbs)| Rule {
        verbs,
        group: Some(group),
        resource: Some(resource),
        name,
        url: None,
    }));
    all.sort_by_key(Rule::order);
    all
}

/// A RoleBinding or a ClusterRoleBinding.
pub(crate) fn binding(page: &mut Page, binding: &Value) {
    put!(page, 0, "Name:\t{}", text(&binding["metadata"]["name"]));
    events::metadata(page, binding);
    put!(page, 0, "Role:");
    put!(page, 1, "Kind:\t{}", text(&binding["roleRef"]["kind"]));
    put!(page, 1, "Name:\t{}", text(&binding["roleRef"]["name"]));
    put!(page, 0, "Subjects:");
    put!(page, 1, "Kind\tName\tNamespace");
    put!(page, 1, "----\t----\t---------");
    for subject in list(&binding["subjects"]) {
        let namespace = or(text(&subject["namespace"]), "");
        put!(page, 1, "{}\t{}\t{namespace}", text(&subject["kind"]), text(&subject["name"]));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_are_split_and_put_together() {
        let rules = json!([
            {"apiGroups": ["", "apps"], "resources": ["pods/log", "pods"], "verbs": ["list", "get"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["watch"]},
            {"nonResourceURLs": ["/b", "/a"], "verbs": ["get"]},
        ]);
        let rows: Vec<String> = compact(rules.as_array().expect("rules"))
            .iter()
            .map(|r| format!("{}{} {}", r.title(), r.url.as_deref().unwrap_or(""), r.verbs.join("+")))
            .collect();
        let expected = [
            "/a get",
            "/b get",
            "pods list+get+watch",
            "pods/log list+get",
            "pods.apps/log list+get",
            "pods.apps list+get",
        ];
        assert_eq!(rows, expected);
    }
}
