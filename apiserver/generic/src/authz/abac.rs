//! Authorization by attributes: a file with one policy a line.

use async_trait::async_trait;
use rules::rbac::PolicyRule;
use serde::Deserialize;

use super::{Attributes, Authorizer, Decision};
use crate::user::{AUTHENTICATED, User};

const VERSION: &str = "abac.authorization.kubernetes.io/v1beta1";
const KIND: &str = "Policy";
const ANY: &str = "*";
const READS: [&str; 3] = ["get", "list", "watch"];

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A line is no policy.
    #[error("error reading policy file line {line}: {text}: {why}")]
    Line {
        /// Which, from 0 on.
        line: usize,
        /// The line.
        text: String,
        /// Why.
        why: String,
    },
}

/// What a line allows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Policy {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    resource: String,
    namespace: String,
    #[serde(rename = "nonResourcePath")]
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Versioned {
    api_version: String,
    kind: String,
    spec: Policy,
}

/// A line of the time before policies had versions: what it leaves out is anything.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Old {
    user: String,
    group: String,
    readonly: bool,
    resource: String,
    namespace: String,
}

impl From<Old> for Policy {
    fn from(old: Old) -> Self {
        let or_any = |text: &String| if text.is_empty() { ANY.to_owned() } else { text.clone() };
        let everybody = old.user.is_empty() && old.group.is_empty();
        let whole = old.resource.is_empty() && old.namespace.is_empty();
        Self {
            group: if everybody { ANY.to_owned() } else { old.group },
            user: old.user,
            readonly: old.readonly,
            api_group: ANY.to_owned(),
            resource: or_any(&old.resource),
            namespace: or_any(&old.namespace),
            path: if whole { ANY.to_owned() } else { String::new() },
        }
    }
}

impl Policy {
    fn parse(text: &str) -> Result<Self, String> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let wrong = |error: serde_json::Error| error.to_string();
        let mut policy = if value.get("apiVersion").is_some() || value.get("kind").is_some() {
            let versioned: Versioned = serde_json::from_value(value).map_err(wrong)?;
            if (versioned.api_version.as_str(), versioned.kind.as_str()) != (VERSION, KIND) {
                return Err(format!("unrecognized object {}, {}", versioned.api_version, versioned.kind));
            }
            versioned.spec
        } else {
            serde_json::from_value::<Old>(value).map_err(wrong)?.into()
        };
        // Anybody is anybody who is known.
        if policy.user == ANY || policy.group == ANY {
            (policy.user, policy.group) = (String::new(), AUTHENTICATED.to_owned());
        }
        Ok(policy)
    }

    fn is_for(&self, user: &User) -> bool {
        let named = !self.user.is_empty() || !self.group.is_empty();
        named
            && (self.user.is_empty() || self.user == user.name)
            && (self.group.is_empty() || user.in_group(&self.group))
    }

    fn allows(&self, attributes: &Attributes) -> bool {
        let fits = |allowed: &str, asked: &str| allowed == ANY || allowed == asked;
        if !self.is_for(&attributes.user) || (self.readonly && !READS.contains(&attributes.verb.as_str())) {
            return false;
        }
        if attributes.is_resource {
            return fits(&self.namespace, &attributes.namespace)
                && fits(&self.resource, &attributes.resource)
                && fits(&self.api_group, &attributes.group);
        }
        match self.path.strip_suffix(ANY) {
            Some(start) => attributes.path.starts_with(start),
            None => self.path == attributes.path,
        }
    }
}

/// The policies of a file.
#[derive(Debug)]
pub struct Abac(Vec<Policy>);

impl Abac {
    /// Reads the text of a file. Lines that are empty or begin with `#` say nothing.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let lines = text.lines().map(str::trim).enumerate();
        let says = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let policies = says.map(|(line, text)| {
            Policy::parse(text).map_err(|why| PolicyError::Line { line, text: text.to_owned(), why })
        });
        policies.collect::<Result<_, _>>().map(Self)
    }
}

#[async_trait]
impl Authorizer for Abac {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        match self.0.iter().any(|policy| policy.allows(attributes)) {
            true => Decision::Allow(String::new()),
            false => Decision::NoOpinion("No policy matched.".into()),
        }
    }

    fn rules_of(&self, user: &User, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let mut rules = Vec::new();
        for policy in self.0.iter().filter(|policy| policy.is_for(user)) {
            let verbs = match policy.readonly {
                true => READS.map(str::to_owned).to_vec(),
                false => vec![ANY.to_owned()],
            };
            if !policy.resource.is_empty() && (policy.namespace == ANY || policy.namespace == namespace) {
                rules.push(PolicyRule {
                    verbs: verbs.clone(),
                    api_groups: vec![policy.api_group.clone()],
                    resources: vec![policy.resource.clone()],
                    ..PolicyRule::default()
                });
            }
            if !policy.path.is_empty() {
                rules.push(PolicyRule { verbs, non_resource_urls: vec![policy.path.clone()], ..PolicyRule::default() });
            }
        }
        (rules, Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        # administrators
        {"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "admin", "namespace": "*", "resource": "*", "apiGroup": "*", "nonResourcePath": "*"}}
        {"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"group": "team", "namespace": "n", "resource": "pods", "readonly": true}}
        {"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "*", "nonResourcePath": "/version*"}}
        {"user": "old", "namespace": "n", "readonly": true}
    "#;

    fn asks(user: &str, groups: &[&str], verb: &str, what: &str) -> Attributes {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let user = User { name: user.into(), groups, ..User::default() };
        let attributes = Attributes { user, verb: verb.into(), ..Attributes::default() };
        match what.split_once(' ') {
            None => Attributes { path: what.into(), ..attributes },
            Some((namespace, resource)) => {
                Attributes { namespace: namespace.into(), resource: resource.into(), is_resource: true, ..attributes }
            }
        }
    }

    #[tokio::test]
    async fn policies_allow_what_they_say() {
        let abac = Abac::parse(FILE).expect("policies");
        for (user, groups, verb, what, allowed) in [
            ("admin", &[][..], "delete", "n pods", true),
            ("admin", &[], "get", "/metrics", true),
            ("bob", &["team"], "list", "n pods", true),
            ("bob", &["team"], "delete", "n pods", false),
            ("bob", &["team"], "list", "other pods", false),
            ("bob", &["team"], "list", "n secrets", false),
            ("bob", &["system:authenticated"], "get", "/version", true),
            ("system:anonymous", &["system:unauthenticated"], "get", "/version", false),
            ("old", &[], "get", "n secrets", true),
            ("old", &[], "update", "n secrets", false),
            ("nobody", &[], "get", "n pods", false),
        ] {
            let decision = abac.authorize(&asks(user, groups, verb, what)).await;
            assert_eq!(matches!(decision, Decision::Allow(_)), allowed, "{user} {verb} {what}");
        }
        let team = User { name: "bob".into(), groups: vec!["team".into()], ..User::default() };
        assert_eq!(abac.rules_of(&team, "n").0.len(), 1);
        assert!(abac.rules_of(&team, "other").0.is_empty());
    }

    #[test]
    fn lines_that_are_no_policies_are_told() {
        for (text, why) in [
            ("\n{", "line 1"),
            (r#"{"kind": "Policy", "apiVersion": "v9", "spec": {}}"#, "unrecognized object v9, Policy"),
            (r#"{"user": "a", "verbs": []}"#, "unknown field"),
        ] {
            let error = Abac::parse(text).expect_err("refused").to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
