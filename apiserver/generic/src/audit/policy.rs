//! Audit policies: which requests are recorded, and how much of them (`audit.k8s.io/v1` Policy).

use serde::{Deserialize, Deserializer};

use crate::{request::RequestInfo, user::User};

/// How much of a request is recorded.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    None,
    /// Who did what to which object, and how it ended.
    Metadata,
    /// The object sent too.
    Request,
    /// The object answered too.
    RequestResponse,
}

impl Level {
    /// As events write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// When an event is made.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Stage {
    /// The request has come in, and is known to be somebody's.
    RequestReceived,
    /// The head of a long answer is sent.
    ResponseStarted,
    /// All is sent.
    ResponseComplete,
    /// The server failed.
    Panic,
}

impl Stage {
    /// As events write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// A policy. The first rule that fits a request counts; without one nothing is recorded.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Policy {
    /// Not used; files may have it.
    pub metadata: serde_json::Value,
    #[serde(deserialize_with = "or_empty")]
    rules: Vec<Rule>,
    #[serde(deserialize_with = "or_empty")]
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default, deserialize_with = "or_empty")]
    users: Vec<String>,
    #[serde(default, deserialize_with = "or_empty")]
    user_groups: Vec<String>,
    #[serde(default, deserialize_with = "or_empty")]
    verbs: Vec<String>,
    #[serde(default, deserialize_with = "or_empty")]
    resources: Vec<GroupResources>,
    #[serde(default, deserialize_with = "or_empty")]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs", deserialize_with = "or_empty")]
    non_resource_urls: Vec<String>,
    #[serde(default, deserialize_with = "or_empty")]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct GroupResources {
    group: String,
    #[serde(deserialize_with = "or_empty")]
    resources: Vec<String>,
    #[serde(deserialize_with = "or_empty")]
    resource_names: Vec<String>,
}

fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What a policy says of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// How much is recorded.
    pub level: Level,
    /// Stages that are left out.
    pub omitted: Vec<Stage>,
    /// Whether `metadata.managedFields` is left out of objects.
    pub without_managed_fields: bool,
}

impl Policy {
    /// What is recorded of a request.
    pub fn decide(&self, info: &RequestInfo, user: &User) -> Verdict {
        let Some(rule) = self.rules.iter().find(|rule| rule.covers(info, user)) else {
            return Verdict { level: Level::None, omitted: Vec::new(), without_managed_fields: false };
        };
        Verdict {
            level: rule.level,
            omitted: self.omit_stages.iter().chain(&rule.omit_stages).copied().collect(),
            without_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn covers(&self, info: &RequestInfo, user: &User) -> bool {
        let among = |list: &[String], item: &str| list.is_empty() || list.iter().any(|entry| entry == item);
        if !among(&self.users, &user.name) || !among(&self.verbs, &info.verb) {
            return false;
        }
        if !self.user_groups.is_empty() && !self.user_groups.iter().any(|group| user.in_group(group)) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return info.is_resource
                && among(&self.namespaces, &info.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|group| group.covers(info)));
        }
        if !self.non_resource_urls.is_empty() {
            return !info.is_resource && self.non_resource_urls.iter().any(|pattern| fits(pattern, &info.path));
        }
        true
    }
}

/// `*`, a path, or a path that ends in `*`.
fn fits(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => pattern == path,
    }
}

impl GroupResources {
    fn covers(&self, info: &RequestInfo) -> bool {
        let named = self.resource_names.is_empty() || self.resource_names.contains(&info.name);
        let entry = |entry: &String| {
            let (main, part) = match entry.split_once('/') {
                Some((main, part)) => (main, Some(part)),
                None => (entry.as_str(), None),
            };
            match part {
                None if main == "*" => true,
                None => main == info.resource && info.subresource.is_empty(),
                Some(part) => {
                    (main == "*" || main == info.resource)
                        && (part == info.subresource || (part == "*" && (main != "*" || !info.subresource.is_empty())))
                }
            }
        };
        self.group == info.group && named && (self.resources.is_empty() || self.resources.iter().any(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        serde_yaml::from_str(text).expect("a policy")
    }

    fn info(group: &str, resource: &str, subresource: &str, namespace: &str) -> RequestInfo {
        RequestInfo {
            is_resource: true,
            verb: "get".into(),
            group: group.into(),
            resource: resource.into(),
            subresource: subresource.into(),
            namespace: namespace.into(),
            ..RequestInfo::default()
        }
    }

    fn user(name: &str, group: &str) -> User {
        User { name: name.into(), groups: vec![group.into()], ..User::default() }
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let policy = policy(
            "omitStages: [RequestReceived]\nrules:\n- level: None\n  users: [proxy]\n  verbs: [watch, get]\n- level: \
             Metadata\n  resources: [{group: '', resources: [secrets, pods/log]}]\n- level: Request\n  userGroups: \
             [admins]\n  namespaces: [kube-system]\n  omitStages: [Panic]\n- level: None\n  nonResourceURLs: \
             ['/healthz*', /version]\n- level: RequestResponse\n  resources: [{group: apps}]\n",
        );
        let level = |info: &RequestInfo, user: &User| policy.decide(info, user).level;
        let (proxy, admin, other) = (user("proxy", "x"), user("a", "admins"), user("o", "x"));
        assert_eq!(level(&info("", "secrets", "", "n"), &proxy), Level::None);
        assert_eq!(level(&info("", "secrets", "", "n"), &other), Level::Metadata);
        assert_eq!(level(&info("", "pods", "log", "n"), &other), Level::Metadata);
        assert_eq!(level(&info("", "pods", "", "n"), &other), Level::None);
        let system = policy.decide(&info("", "pods", "", "kube-system"), &admin);
        assert_eq!((system.level, system.omitted), (Level::Request, vec![Stage::RequestReceived, Stage::Panic]));
        assert_eq!(level(&info("apps", "deployments", "scale", "n"), &other), Level::RequestResponse);
        let path = RequestInfo { path: "/healthz/etcd".into(), ..RequestInfo::default() };
        assert_eq!(level(&path, &other), Level::None);
    }

    #[test]
    fn resources_have_wildcards() {
        let covers = |entry: &str, subresource: &str| {
            let group = GroupResources { resources: vec![entry.into()], ..GroupResources::default() };
            group.covers(&info("", "pods", subresource, "n"))
        };
        assert!(covers("*", "") && covers("*", "log"));
        assert!(covers("pods", "") && !covers("pods", "log"));
        assert!(covers("pods/*", "log") && covers("*/log", "log") && !covers("*/log", "exec"));
    }

    #[test]
    fn unknown_fields_are_errors() {
        assert!(serde_yaml::from_str::<Policy>("rules: [{level: Everything}]").is_err());
        assert!(serde_yaml::from_str::<Policy>("rules: [{level: None, user: [x]}]").is_err());
    }
}
