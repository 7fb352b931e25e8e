//! The scheduling rules of a Pod's spec: selectors, affinity, tolerations, spreading.

use machinery::selector::LabelSelector;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{Labels, Taint, TaintEffect};

/// A label selector as it stands in a spec: `None` selects nothing.
pub(super) fn selector<'de, D: Deserializer<'de>>(from: D) -> Result<Option<LabelSelector>, D::Error> {
    let Some(value) = Option::<Value>::deserialize(from)? else { return Ok(None) };
    LabelSelector::from_object(&value).map(Some).map_err(serde::de::Error::custom)
}

/// Comparison of a node selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub(crate) enum NodeOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

/// One comparison of a node's labels or fields.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
pub(crate) struct NodeRequirement {
    pub(crate) key: Box<str>,
    pub(crate) operator: NodeOperator,
    #[serde(default)]
    pub(crate) values: Vec<Box<str>>,
}

impl NodeRequirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let listed = |have: &str| self.values.iter().any(|v| **v == *have);
        let number = |text: &str| text.parse::<i64>().ok();
        let bound = || self.values.first().and_then(|v| number(v));
        match self.operator {
            NodeOperator::In => value.is_some_and(listed),
            NodeOperator::NotIn => !value.is_some_and(listed),
            NodeOperator::Exists => value.is_some(),
            NodeOperator::DoesNotExist => value.is_none(),
            NodeOperator::Gt => value.and_then(number).zip(bound()).is_some_and(|(have, than)| have > than),
            NodeOperator::Lt => value.and_then(number).zip(bound()).is_some_and(|(have, than)| have < than),
        }
    }
}

/// A conjunction of comparisons; an empty one matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NodeSelectorTerm {
    pub(crate) match_expressions: Vec<NodeRequirement>,
    pub(crate) match_fields: Vec<NodeRequirement>,
}

impl NodeSelectorTerm {
    pub(crate) fn matches<'n>(&self, name: &str, label: &impl Fn(&str) -> Option<&'n str>) -> bool {
        if self.match_expressions.is_empty() && self.match_fields.is_empty() {
            return false;
        }
        self.match_fields.iter().all(|r| r.matches((&*r.key == "metadata.name").then_some(name)))
            && self.match_expressions.iter().all(|r| r.matches(label(&r.key)))
    }

    /// The only node names that the term's fields allow; `None` if they allow any.
    pub(crate) fn names(&self) -> Option<Vec<&str>> {
        let mut allowed: Option<Vec<&str>> = None;
        for field in &self.match_fields {
            if &*field.key == "metadata.name" && field.operator == NodeOperator::In {
                let values: Vec<&str> = field.values.iter().map(|v| &**v).collect();
                allowed = Some(match allowed {
                    None => values,
                    Some(before) => before.into_iter().filter(|n| values.contains(n)).collect(),
                });
            }
        }
        allowed
    }
}

/// Terms of which one has to match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NodeSelector {
    pub(crate) node_selector_terms: Vec<NodeSelectorTerm>,
}

/// A preference and how much it counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Weighted<T> {
    pub(crate) weight: i32,
    pub(crate) term: T,
}

#[derive(Deserialize)]
struct PreferredNode {
    #[serde(default)]
    weight: i32,
    preference: NodeSelectorTerm,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub(super) required: Option<NodeSelector>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    preferred: Vec<PreferredNode>,
}

impl NodeAffinity {
    pub(super) fn preferred(&mut self) -> Vec<Weighted<NodeSelectorTerm>> {
        self.preferred.drain(..).map(|p| Weighted { weight: p.weight, term: p.preference }).collect()
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodTerm {
    #[serde(deserialize_with = "selector")]
    label_selector: Option<LabelSelector>,
    #[serde(deserialize_with = "selector")]
    namespace_selector: Option<LabelSelector>,
    namespaces: Vec<Box<str>>,
    topology_key: Box<str>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PreferredPod {
    weight: i32,
    pod_affinity_term: PodTerm,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    required: Vec<PodTerm>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    preferred: Vec<PreferredPod>,
}

impl PodAffinity {
    /// Required and preferred terms of a Pod in `namespace`.
    pub(super) fn terms(self, namespace: &str) -> (Vec<AffinityTerm>, Vec<Weighted<AffinityTerm>>) {
        let required = self.required.into_iter().map(|t| AffinityTerm::new(t, namespace)).collect();
        let weighted =
            |p: PreferredPod| Weighted { weight: p.weight, term: AffinityTerm::new(p.pod_affinity_term, namespace) };
        (required, self.preferred.into_iter().map(weighted).collect())
    }
}

/// Which Pods a Pod wants near, or far.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AffinityTerm {
    /// Namespaces by name.
    pub(crate) namespaces: Vec<Box<str>>,
    /// Namespaces by their labels, too.
    pub(crate) namespace_selector: LabelSelector,
    /// The Pods.
    pub(crate) selector: LabelSelector,
    /// What near means.
    pub(crate) topology_key: Box<str>,
}

impl AffinityTerm {
    fn new(term: PodTerm, own: &str) -> Self {
        let mut namespaces = term.namespaces;
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(own.into());
        }
        namespaces.sort();
        Self {
            namespaces,
            namespace_selector: term.namespace_selector.unwrap_or_else(LabelSelector::nothing),
            selector: term.label_selector.unwrap_or_else(LabelSelector::nothing),
            topology_key: term.topology_key,
        }
    }

    /// Whether a Pod of these labels, in a namespace of those, is meant.
    pub(crate) fn matches<'n>(
        &self,
        namespace: &str,
        labels: &Labels,
        namespace_labels: impl Fn() -> Option<&'n Labels>,
    ) -> bool {
        let place = self.namespaces.iter().any(|n| **n == *namespace)
            || self.namespace_selector.is_everything()
            || namespace_labels().is_some_and(|l| l.match_selector(&self.namespace_selector));
        place && labels.match_selector(&self.selector)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub(crate) enum TolerationOperator {
    Equal,
    Exists,
    Gt,
    Lt,
}

/// A taint that a Pod puts up with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub(crate) struct Toleration {
    key: Box<str>,
    operator: Option<TolerationOperator>,
    value: Box<str>,
    pub(crate) effect: Option<TaintEffect>,
}

impl Toleration {
    pub(crate) fn tolerates(&self, taint: &Taint) -> bool {
        if self.effect.is_some_and(|e| e != taint.effect) || !self.key.is_empty() && self.key != taint.key {
            return false;
        }
        let numbers = || self.value.parse::<i64>().ok().zip(taint.value.parse::<i64>().ok());
        match self.operator {
            Some(TolerationOperator::Exists) => true,
            None | Some(TolerationOperator::Equal) => self.value == taint.value,
            Some(TolerationOperator::Gt) => numbers().is_some_and(|(bound, have)| have > bound),
            Some(TolerationOperator::Lt) => numbers().is_some_and(|(bound, have)| have < bound),
        }
    }
}

/// Whether something about a node counts when Pods are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub(crate) enum InclusionPolicy {
    Honor,
    Ignore,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spread {
    max_skew: i32,
    topology_key: Box<str>,
    when_unsatisfiable: Box<str>,
    #[serde(default, deserialize_with = "selector")]
    label_selector: Option<LabelSelector>,
    #[serde(default)]
    min_domains: Option<i32>,
    #[serde(default)]
    node_affinity_policy: Option<InclusionPolicy>,
    #[serde(default)]
    node_taints_policy: Option<InclusionPolicy>,
}

/// How Pods are spread over topology domains.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SpreadConstraint {
    pub(crate) max_skew: i32,
    pub(crate) topology_key: Box<str>,
    /// `DoNotSchedule`, not `ScheduleAnyway`.
    pub(crate) hard: bool,
    pub(crate) selector: LabelSelector,
    pub(crate) min_domains: i32,
    pub(crate) affinity_policy: InclusionPolicy,
    pub(crate) taints_policy: InclusionPolicy,
}

impl From<Spread> for SpreadConstraint {
    fn from(spread: Spread) -> Self {
        Self {
            max_skew: spread.max_skew,
            topology_key: spread.topology_key,
            hard: &*spread.when_unsatisfiable == "DoNotSchedule",
            selector: spread.label_selector.unwrap_or_else(LabelSelector::nothing),
            min_domains: spread.min_domains.unwrap_or(1),
            affinity_policy: spread.node_affinity_policy.unwrap_or(InclusionPolicy::Honor),
            taints_policy: spread.node_taints_policy.unwrap_or(InclusionPolicy::Ignore),
        }
    }
}
