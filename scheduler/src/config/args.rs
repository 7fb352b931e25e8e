//! Settings of single plugins.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use super::file::{API_VERSION, PluginConfigFile, Span};
use crate::{
    framework::PluginId,
    objects::{NodeSelector, NodeSelectorTerm, Weighted},
    plugins::{
        default_preemption::DefaultPreemption,
        node_affinity::AddedAffinity,
        node_resources_fit::{FitSettings, Strategy},
        scored::ResourceWeight,
        topology_spread::{DefaultConstraint, Defaults},
    },
};

/// Largest weight.
const MAX_WEIGHT: i64 = 100;

/// The settings of all plugins of a profile.
#[derive(Clone, Debug)]
pub(super) struct Args {
    pub(super) preemption: DefaultPreemption,
    pub(super) hard_affinity_weight: i64,
    pub(super) ignore_existing_preferences: bool,
    pub(super) added_affinity: Arc<AddedAffinity>,
    pub(super) balanced: Vec<ResourceWeight>,
    pub(super) fit: Arc<FitSettings>,
    pub(super) spread: Defaults,
    /// Time for volumes to be bound.
    pub(super) bind_timeout: Duration,
    /// Time for the search for devices on one node; zero for no bound.
    pub(super) device_filter_timeout: Duration,
    /// Time for devices to become ready.
    pub(super) device_binding_timeout: Duration,
}

impl Default for Args {
    fn default() -> Self {
        let fit = FitSettings::default();
        Self {
            preemption: DefaultPreemption::default(),
            hard_affinity_weight: 1,
            ignore_existing_preferences: false,
            added_affinity: Arc::default(),
            balanced: fit.resources.clone(),
            fit: Arc::new(fit),
            spread: Defaults::System,
            bind_timeout: Duration::from_secs(600),
            device_filter_timeout: Duration::from_secs(10),
            device_binding_timeout: Duration::from_secs(600),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PreemptionArgs {
    min_candidate_nodes_percentage: Option<i32>,
    min_candidate_nodes_absolute: Option<i32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct InterPodAffinityArgs {
    hard_pod_affinity_weight: Option<i64>,
    #[serde(default)]
    ignore_preferred_terms_of_existing_pods: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NodeAffinityArgs {
    added_affinity: Option<AddedFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddedFile {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    required: Option<NodeSelector>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution", default)]
    preferred: Vec<PreferredFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PreferredFile {
    weight: i32,
    preference: NodeSelectorTerm,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceFile {
    name: Box<str>,
    weight: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BalancedArgs {
    #[serde(default)]
    resources: Vec<ResourceFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FitArgs {
    #[serde(default)]
    ignored_resources: Vec<Box<str>>,
    #[serde(default)]
    ignored_resource_groups: Vec<Box<str>>,
    scoring_strategy: Option<StrategyFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StrategyFile {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    resources: Vec<ResourceFile>,
    requested_to_capacity_ratio: Option<RatioFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RatioFile {
    #[serde(default)]
    shape: Vec<ShapeFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShapeFile {
    utilization: i64,
    score: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SpreadArgs {
    #[serde(default)]
    default_constraints: Vec<ConstraintFile>,
    defaulting_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConstraintFile {
    max_skew: i32,
    topology_key: Box<str>,
    when_unsatisfiable: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VolumeBindingArgs {
    bind_timeout_seconds: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DynamicResourcesArgs {
    filter_timeout: Option<Span>,
    binding_timeout: Option<Span>,
}

fn decoded<T: serde::de::DeserializeOwned>(plugin: PluginId, args: &Value) -> Result<T, String> {
    let kind = format!("{plugin}Args");
    let Value::Object(mut fields) = args.clone() else {
        return Err(format!("decoding args for plugin {:?}: not a mapping", plugin.name()));
    };
    for (key, want) in [("apiVersion", API_VERSION), ("kind", kind.as_str())] {
        if let Some(found) = fields.remove(key)
            && found.as_str() != Some(want)
        {
            return Err(format!("decoding args for plugin {:?}: {key} has to be {want}", plugin.name()));
        }
    }
    serde_json::from_value(Value::Object(fields))
        .map_err(|e| format!("decoding args for plugin {:?}: strict decoding error: {e}", plugin.name()))
}

impl Args {
    /// Reads `pluginConfig`; all that is wrong otherwise.
    pub(super) fn of(list: &[PluginConfigFile]) -> Result<Self, Vec<String>> {
        let mut args = Self::default();
        let mut problems = Vec::new();
        for (at, entry) in list.iter().enumerate() {
            if list.iter().take(at).any(|e| e.name == entry.name) {
                problems.push(format!("pluginConfig[{at}]: Duplicate value: {:?}", entry.name));
            }
            let outcome = match PluginId::find(&entry.name) {
                None => Err(format!("pluginConfig[{at}].name: Invalid value: {:?}: does not exist", entry.name)),
                Some(plugin) => args.take(plugin, &entry.args),
            };
            if let Err(problem) = outcome {
                problems.push(problem);
            }
        }
        if problems.is_empty() { Ok(args) } else { Err(problems) }
    }

    fn take(&mut self, plugin: PluginId, raw: &Value) -> Result<(), String> {
        match plugin {
            PluginId::DefaultPreemption => self.take_preemption(decoded(plugin, raw)?),
            PluginId::InterPodAffinity => {
                let args: InterPodAffinityArgs = decoded(plugin, raw)?;
                self.hard_affinity_weight =
                    within("hardPodAffinityWeight", args.hard_pod_affinity_weight.unwrap_or(1), 0, MAX_WEIGHT)?;
                self.ignore_existing_preferences = args.ignore_preferred_terms_of_existing_pods;
                Ok(())
            }
            PluginId::NodeAffinity => {
                let args: NodeAffinityArgs = decoded(plugin, raw)?;
                if let Some(added) = args.added_affinity {
                    let weighted = |p: PreferredFile| Weighted { weight: p.weight, term: p.preference };
                    let preferred = added.preferred.into_iter().map(weighted).collect();
                    self.added_affinity = Arc::new(AddedAffinity { required: added.required, preferred });
                }
                Ok(())
            }
            PluginId::NodeResourcesBalancedAllocation => {
                let args: BalancedArgs = decoded(plugin, raw)?;
                if let Some(resources) = resources(args.resources, 1)? {
                    self.balanced = resources;
                }
                Ok(())
            }
            PluginId::NodeResourcesFit => self.take_fit(decoded(plugin, raw)?),
            PluginId::PodTopologySpread => self.take_spread(decoded(plugin, raw)?),
            PluginId::VolumeBinding => {
                let args: VolumeBindingArgs = decoded(plugin, raw)?;
                let seconds = within("bindTimeoutSeconds", args.bind_timeout_seconds.unwrap_or(600), 0, i64::MAX)?;
                self.bind_timeout = Duration::from_secs(u64::try_from(seconds).unwrap_or(600));
                Ok(())
            }
            PluginId::DynamicResources => {
                let args: DynamicResourcesArgs = decoded(plugin, raw)?;
                let span = |given: Option<Span>, default| given.map_or(default, |span| span.0);
                self.device_filter_timeout = span(args.filter_timeout, self.device_filter_timeout);
                self.device_binding_timeout = span(args.binding_timeout, self.device_binding_timeout);
                if self.device_binding_timeout < Duration::from_secs(1) {
                    return Err("bindingTimeout: Invalid value: must be at least 1s".into());
                }
                Ok(())
            }
            other => Err(format!("pluginConfig: plugin {:?} takes no args here", other.name())),
        }
    }

    fn take_preemption(&mut self, args: PreemptionArgs) -> Result<(), String> {
        let default = DefaultPreemption::default();
        let percentage = args.min_candidate_nodes_percentage.unwrap_or(default.min_percentage);
        let absolute = args.min_candidate_nodes_absolute.unwrap_or(default.min_absolute);
        within("minCandidateNodesPercentage", percentage.into(), 0, 100)?;
        within("minCandidateNodesAbsolute", absolute.into(), 0, i32::MAX.into())?;
        if percentage == 0 && absolute == 0 {
            return Err("minCandidateNodesPercentage and minCandidateNodesAbsolute cannot both be zero".into());
        }
        self.preemption = DefaultPreemption { min_percentage: percentage, min_absolute: absolute };
        Ok(())
    }

    fn take_fit(&mut self, args: FitArgs) -> Result<(), String> {
        let mut fit = FitSettings {
            ignored: args.ignored_resources,
            ignored_groups: args.ignored_resource_groups,
            ..FitSettings::default()
        };
        if let Some(strategy) = args.scoring_strategy {
            if let Some(resources) = resources(strategy.resources, MAX_WEIGHT)? {
                fit.resources = resources;
            }
            fit.strategy = match strategy.kind.as_str() {
                "" | "LeastAllocated" => Strategy::LeastAllocated,
                "MostAllocated" => Strategy::MostAllocated,
                "RequestedToCapacityRatio" => {
                    let shape = strategy.requested_to_capacity_ratio.map(|r| r.shape).unwrap_or_default();
                    Strategy::RequestedToCapacityRatio(points(&shape)?)
                }
                other => return Err(format!("scoringStrategy.type: Unsupported value: {other:?}")),
            };
        }
        self.fit = Arc::new(fit);
        Ok(())
    }

    fn take_spread(&mut self, args: SpreadArgs) -> Result<(), String> {
        let system = match args.defaulting_type.as_deref() {
            None => args.default_constraints.is_empty(),
            Some("System") => true,
            Some("List") => false,
            Some(other) => return Err(format!("defaultingType: Unsupported value: {other:?}")),
        };
        if system {
            if !args.default_constraints.is_empty() {
                return Err("defaultingType: Invalid value: \"System\": when .defaultConstraints are not empty".into());
            }
            self.spread = Defaults::System;
            return Ok(());
        }
        let constraint = |c: ConstraintFile| {
            let hard = match c.when_unsatisfiable.as_str() {
                "DoNotSchedule" => true,
                "ScheduleAnyway" => false,
                other => return Err(format!("defaultConstraints.whenUnsatisfiable: Unsupported value: {other:?}")),
            };
            within("defaultConstraints.maxSkew", c.max_skew.into(), 1, i32::MAX.into())?;
            Ok(DefaultConstraint { max_skew: c.max_skew, topology_key: c.topology_key, hard })
        };
        let list: Result<Vec<_>, String> = args.default_constraints.into_iter().map(constraint).collect();
        self.spread = Defaults::List(list?);
        Ok(())
    }
}

fn within(field: &str, value: i64, least: i64, most: i64) -> Result<i64, String> {
    if (least..=most).contains(&value) {
        return Ok(value);
    }
    Err(format!("{field}: Invalid value: {value}: not in valid range [{least}-{most}]"))
}

/// Resources with their weights; `None` for no list.
fn resources(list: Vec<ResourceFile>, most: i64) -> Result<Option<Vec<ResourceWeight>>, String> {
    if list.is_empty() {
        return Ok(None);
    }
    let one = |r: ResourceFile| {
        let weight = within("resources.weight", r.weight.filter(|w| *w != 0).unwrap_or(1), 1, most)?;
        Ok(ResourceWeight { name: r.name, weight })
    };
    list.into_iter().map(one).collect::<Result<Vec<_>, String>>().map(Some)
}

/// Points of a shape: utilization grows, scores of 0..=10 are brought to 0..=100.
fn points(shape: &[ShapeFile]) -> Result<Vec<(i64, i64)>, String> {
    if shape.is_empty() {
        return Err("requestedToCapacityRatio.shape: Required value: at least one point must be specified".into());
    }
    let mut points: Vec<(i64, i64)> = Vec::new();
    for point in shape {
        within("shape.utilization", point.utilization, 0, 100)?;
        within("shape.score", point.score, 0, 10)?;
        if points.last().is_some_and(|(before, _)| *before >= point.utilization) {
            return Err("shape.utilization: Invalid value: values must be sorted in increasing order".into());
        }
        points.push((point.utilization, point.score * 10));
    }
    Ok(points)
}
