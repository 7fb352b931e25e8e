//! FlowSchemas and PriorityLevelConfigurations as they are stored, and which requests a schema matches.

use serde::Deserialize;

use super::{queues::Queuing, shares::Claim};
use crate::{request::RequestInfo, user::User};

/// Name and uid.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) uid: String,
}

/// A FlowSchema.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct FlowSchema {
    pub(super) metadata: Metadata,
    pub(super) spec: SchemaSpec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
}

/// A condition of a FlowSchema.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct SchemaSpec {
    pub(super) priority_level_configuration: Reference,
    pub(super) matching_precedence: i32,
    pub(super) distinguisher_method: Option<Distinguisher>,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Reference {
    pub(super) name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Distinguisher {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    subjects: Vec<Subject>,
    resource_rules: Vec<ResourceRule>,
    non_resource_rules: Vec<PathRule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Subject {
    user: Option<Reference>,
    group: Option<Reference>,
    service_account: Option<Account>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Account {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    cluster_scope: bool,
    namespaces: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PathRule {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    urls: Vec<String>,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|have| have == "*" || have == wanted)
}

impl Subject {
    fn covers(&self, user: &User) -> bool {
        if let Some(Reference { name }) = &self.user {
            return name == "*" || *name == user.name;
        }
        if let Some(Reference { name }) = &self.group {
            return name == "*" || user.in_group(name);
        }
        let Some(account) = &self.service_account else { return false };
        let found = user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
        found.is_some_and(|(namespace, name)| {
            namespace == account.namespace && (account.name == "*" || name == account.name)
        })
    }
}

impl ResourceRule {
    fn covers(&self, info: &RequestInfo) -> bool {
        let in_scope = match info.namespace.is_empty() {
            true => self.cluster_scope,
            false => has(&self.namespaces, &info.namespace),
        };
        in_scope
            && has(&self.verbs, &info.verb)
            && has(&self.api_groups, &info.group)
            && self.resources.iter().any(|resource| {
                resource == "*"
                    || match resource.split_once('/') {
                        None => info.subresource.is_empty() && *resource == info.resource,
                        Some((resource, sub)) => resource == info.resource && sub == info.subresource,
                    }
            })
    }
}

impl PathRule {
    fn covers(&self, info: &RequestInfo) -> bool {
        has(&self.verbs, &info.verb)
            && self.urls.iter().any(|url| match url.strip_suffix('*') {
                Some(prefix) => info.path.starts_with(prefix),
                None => *url == info.path,
            })
    }
}

impl FlowSchema {
    /// Whether a request belongs to a flow of the schema.
    pub(super) fn covers(&self, info: &RequestInfo, user: &User) -> bool {
        self.spec.rules.iter().any(|rule| {
            rule.subjects.iter().any(|subject| subject.covers(user))
                && match info.is_resource {
                    true => rule.resource_rules.iter().any(|rule| rule.covers(info)),
                    false => rule.non_resource_rules.iter().any(|rule| rule.covers(info)),
                }
        })
    }

    /// What distinguishes the flow of a request from others of the schema.
    pub(super) fn flow<'a>(&self, info: &'a RequestInfo, user: &'a User) -> &'a str {
        match self.spec.distinguisher_method.as_ref().map(|method| method.kind.as_str()) {
            Some("ByUser") => &user.name,
            Some("ByNamespace") => &info.namespace,
            _ => "",
        }
    }

    /// Status, reason and message of condition `Dangling`, unless it says so already.
    pub(super) fn dangling(&self, level_exists: bool) -> Option<(&'static str, &'static str, String)> {
        let name = &self.spec.priority_level_configuration.name;
        let says = format!("This FlowSchema references the PriorityLevelConfiguration object named {name:?}");
        let wanted = match level_exists {
            true => ("False", "Found", format!("{says} and it exists")),
            false => ("True", "NotFound", format!("{says} but there is no such object")),
        };
        let condition = self.status.conditions.iter().find(|condition| condition.kind == "Dangling");
        condition.is_none_or(|has| has.status != wanted.0 || has.message != wanted.2).then_some(wanted)
    }
}

/// A PriorityLevelConfiguration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PriorityLevel {
    pub(super) metadata: Metadata,
    spec: LevelSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LevelSpec {
    #[serde(rename = "type")]
    kind: String,
    limited: Seats,
    exempt: Seats,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Seats {
    nominal_concurrency_shares: u32,
    lendable_percent: u32,
    borrowing_limit_percent: Option<u32>,
    limit_response: LimitResponse,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LimitResponse {
    #[serde(rename = "type")]
    kind: String,
    queuing: Option<QueuingSpec>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct QueuingSpec {
    queues: usize,
    hand_size: usize,
    queue_length_limit: usize,
}

impl PriorityLevel {
    /// Whether its requests are not limited.
    pub(super) fn is_exempt(&self) -> bool {
        self.spec.kind == "Exempt"
    }

    /// What it says of seats.
    pub(super) fn claim(&self) -> Claim {
        let seats = if self.is_exempt() { &self.spec.exempt } else { &self.spec.limited };
        Claim {
            shares: seats.nominal_concurrency_shares,
            lendable_percent: seats.lendable_percent,
            borrowing_limit_percent: seats.borrowing_limit_percent,
        }
    }

    /// How its requests wait.
    pub(super) fn queuing(&self) -> Queuing {
        match &self.spec.limited.limit_response {
            LimitResponse { kind, queuing: Some(queuing) } if kind == "Queue" && !self.is_exempt() => {
                Queuing { queues: queuing.queues, hand: queuing.hand_size, length: queuing.queue_length_limit }
            }
            _ => Queuing::default(),
        }
    }
}
