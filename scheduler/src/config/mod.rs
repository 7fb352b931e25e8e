//! The scheduler's configuration: file and flags, completed and checked.

mod args;
mod extender;
mod file;
mod points;

use std::{path::Path, sync::Arc, time::Duration};

use runtime::{
    config_file::{self, ConfigError},
    flags::{ClientArgs, LeaderElectionArgs},
};
use serde_json::{Value, json};

use self::{
    args::Args,
    file::{API_VERSION, File, KIND, PluginsFile, ProfileFile, Span},
    points::Points,
};
pub(crate) use self::{
    extender::ExtenderFile,
    points::{Point, points_of},
};
use crate::{
    devices::Devices,
    framework::{PluginId, Profile, Scorer, SharedPlugin},
    plugins::{
        balanced_allocation::BalancedAllocation,
        dynamic_resources::DynamicResources,
        image_locality::ImageLocality,
        inter_pod_affinity::InterPodAffinity,
        node_affinity::NodeAffinity,
        node_declared_features::NodeDeclaredFeatures,
        node_name::NodeName,
        node_ports::NodePorts,
        node_resources_fit::NodeResourcesFit,
        node_unschedulable::NodeUnschedulable,
        scheduling_gates::SchedulingGates,
        taint_toleration::TaintToleration,
        topology_spread::{DefaultSelector, TopologySpread},
        volumes::{NodeVolumeLimits, Storage, VolumeBinding, VolumeRestrictions, VolumeZone},
    },
    queue::BackoffTimes,
};

/// Name of the scheduler that Pods get which name none.
const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// Why the configuration is not usable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error(transparent)]
    File(#[from] ConfigError),
    #[error("{}", list(.0))]
    Invalid(Vec<String>),
}

fn list(problems: &[String]) -> String {
    match problems {
        [one] => one.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

/// What plugins know of the cluster besides nodes and Pods.
#[derive(Clone)]
pub(crate) struct Sources {
    /// Finds whom a Pod is spread among by default.
    pub(crate) selector: DefaultSelector,
    pub(crate) storage: Arc<Storage>,
    pub(crate) devices: Arc<Devices>,
}

/// The effective configuration.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    file: File,
}

/// What the command line says that a file may say too.
pub(crate) struct FromFlags<'a> {
    pub(crate) client: &'a ClientArgs,
    pub(crate) election: &'a LeaderElectionArgs,
    /// Whether a flag was given.
    pub(crate) given: &'a dyn Fn(&str) -> bool,
    pub(crate) profiling: bool,
    pub(crate) contention_profiling: bool,
}

impl Settings {
    /// From a file, or from flags if there is none. Leader election on the command line wins over the file.
    pub(crate) fn load(path: Option<&Path>, flags: &FromFlags<'_>) -> Result<Self, SettingsError> {
        let mut file: File = match path {
            Some(path) => config_file::decode(&config_file::read(path)?, &[API_VERSION], KIND)?,
            None => File::default(),
        };
        if path.is_none() {
            let client = &mut file.client_connection;
            client.kubeconfig = flags.client.kubeconfig.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
            client.content_type.clone_from(&flags.client.kube_api_content_type);
            client.qps = Some(flags.client.kube_api_qps);
            client.burst = Some(flags.client.kube_api_burst);
            file.enable_profiling = Some(flags.profiling);
            file.enable_contention_profiling = Some(flags.contention_profiling);
        }
        complete(&mut file, flags, path.is_none());
        let settings = Self { file };
        let problems = settings.problems();
        if problems.is_empty() { Ok(settings) } else { Err(SettingsError::Invalid(problems)) }
    }

    /// The configuration of an empty file; for tests.
    #[cfg(test)]
    pub(crate) fn defaults() -> Self {
        let mut file = File { profiles: vec![ProfileFile::default()], ..File::default() };
        file.profiles[0].scheduler_name = Some(DEFAULT_SCHEDULER.into());
        Self { file }
    }

    fn problems(&self) -> Vec<String> {
        let file = &self.file;
        let mut problems = self.leader_election().validate();
        if file.parallelism.is_some_and(|p| p <= 0) {
            problems.push(format!(
                "parallelism: Invalid value: {}: should be an integer value greater than zero",
                file.parallelism.unwrap_or(0)
            ));
        }
        let percentages = file.profiles.iter().filter_map(|p| p.percentage_of_nodes_to_score);
        for percentage in file.percentage_of_nodes_to_score.into_iter().chain(percentages) {
            if !(0..=100).contains(&percentage) {
                problems
                    .push(format!("percentageOfNodesToScore: Invalid value: {percentage}: not in valid range [0-100]"));
            }
        }
        let (initial, max) = (seconds(file.pod_initial_backoff_seconds), seconds(file.pod_max_backoff_seconds));
        if initial <= 0 {
            problems.push(format!("podInitialBackoffSeconds: Invalid value: {initial}: must be greater than 0"));
        }
        if max < initial {
            problems.push(format!(
                "podMaxBackoffSeconds: Invalid value: {max}: must be greater than or equal to PodInitialBackoffSeconds"
            ));
        }
        problems.extend(extender::problems(&file.extenders));
        let connection = &file.client_connection;
        if connection.content_type.is_empty() || connection.burst.is_some_and(|b| b < 0) {
            problems.push("clientConnection: contentType has to be set and burst has to be at least 0".into());
        }
        // The wire format is an optimization that the client chooses for itself; a wish for one that it does not know is
        // a mistake.
        let known = ["application/json", "application/vnd.kubernetes.protobuf", "application/cbor"];
        for (field, text) in
            [("contentType", &connection.content_type), ("acceptContentTypes", &connection.accept_content_types)]
        {
            let unknown = text.split(',').map(str::trim).filter(|t| !t.is_empty() && !known.contains(t));
            problems.extend(unknown.map(|t| format!("clientConnection.{field}: Unsupported value: {t:?}")));
        }
        let mut names: Vec<&str> = Vec::new();
        for (at, profile) in file.profiles.iter().enumerate() {
            match profile.scheduler_name.as_deref() {
                None | Some("") => problems.push(format!("profiles[{at}].schedulerName: Required value")),
                Some(name) if names.contains(&name) => {
                    problems.push(format!("profiles[{at}].schedulerName: Duplicate value: {name:?}"));
                }
                Some(name) => names.push(name),
            }
            problems.extend(Points::of(&plugins(profile)).err().into_iter().flatten());
            problems.extend(Args::of(&profile.plugin_config).err().into_iter().flatten());
        }
        problems
    }

    /// The configuration as `/configz` and `--write-config-to` give it.
    pub(crate) fn document(&self) -> Value {
        let mut document = serde_json::to_value(&self.file).unwrap_or_else(|_| json!({}));
        document["apiVersion"] = API_VERSION.into();
        document["kind"] = KIND.into();
        document
    }

    /// How to reach the API server. `--master` is a flag only.
    pub(crate) fn client(&self, flags: &ClientArgs) -> ClientArgs {
        let connection = &self.file.client_connection;
        ClientArgs {
            kubeconfig: Some(connection.kubeconfig.as_str()).filter(|p| !p.is_empty()).map(Into::into),
            master: flags.master.clone(),
            kube_api_qps: connection.qps.unwrap_or(50.0),
            kube_api_burst: connection.burst.unwrap_or(100),
            kube_api_content_type: connection.content_type.clone(),
        }
    }

    /// Leader election, in the form of its flags.
    pub(crate) fn leader_election(&self) -> LeaderElectionArgs {
        let election = &self.file.leader_election;
        let span = |s: Option<Span>| s.map_or(Duration::ZERO, |s| s.0);
        LeaderElectionArgs {
            leader_elect: election.leader_elect.unwrap_or(true),
            leader_elect_lease_duration: span(election.lease_duration),
            leader_elect_renew_deadline: span(election.renew_deadline),
            leader_elect_retry_period: span(election.retry_period),
            leader_elect_resource_lock: election.resource_lock.clone().unwrap_or_default(),
            leader_elect_resource_name: election.resource_name.clone(),
            leader_elect_resource_namespace: election.resource_namespace.clone().unwrap_or_default(),
        }
    }

    /// The extenders, as the file has them.
    pub(crate) fn extenders(&self) -> &[ExtenderFile] {
        &self.file.extenders
    }

    pub(crate) fn profiling(&self) -> bool {
        self.file.enable_profiling.unwrap_or(false)
    }

    /// Whether the caches are filled only while leading.
    pub(crate) fn delays_caches(&self) -> bool {
        self.file.delay_cache_until_active.unwrap_or(false)
    }

    pub(crate) fn backoff(&self) -> BackoffTimes {
        let span = |value: Option<i64>| Duration::from_secs(u64::try_from(seconds(value)).unwrap_or(0));
        BackoffTimes {
            initial: span(self.file.pod_initial_backoff_seconds),
            max: span(self.file.pod_max_backoff_seconds),
        }
    }

    /// The profiles with their plugins.
    pub(crate) fn profiles(&self, sources: &Sources) -> Result<Vec<Profile>, SettingsError> {
        self.file.profiles.iter().map(|p| self.profile(p, sources)).collect()
    }

    fn profile(&self, file: &ProfileFile, sources: &Sources) -> Result<Profile, SettingsError> {
        let points = Points::of(&plugins(file)).map_err(SettingsError::Invalid)?;
        let mut args = Args::of(&file.plugin_config).map_err(SettingsError::Invalid)?;
        let managed = self.file.extenders.iter().flat_map(|extender| &extender.managed_resources);
        let ignored: Vec<Box<str>> =
            managed.filter(|resource| resource.ignored_by_scheduler).map(|r| r.name.as_str().into()).collect();
        if !ignored.is_empty() {
            Arc::make_mut(&mut args.fit).ignored.extend(ignored);
        }
        let mut made: Vec<SharedPlugin> = Vec::new();
        // Who asks for a resource that devices stand for is left to the plugin that finds devices, if there is one.
        let devices = points
            .at(Point::Filter)
            .iter()
            .any(|e| e.plugin == PluginId::DynamicResources)
            .then(|| Arc::clone(&sources.devices));
        let mut find = |id: PluginId| {
            if let Some(known) = made.iter().find(|p| p.id() == id) {
                return Some(Arc::clone(known));
            }
            let plugin: SharedPlugin = match id {
                PluginId::NodeResourcesFit => {
                    Arc::new(NodeResourcesFit { settings: Arc::clone(&args.fit), devices: devices.clone() })
                }
                PluginId::NodeResourcesBalancedAllocation => {
                    Arc::new(BalancedAllocation { resources: args.balanced.clone(), devices: devices.clone() })
                }
                id => make(id, &args, sources)?,
            };
            made.push(Arc::clone(&plugin));
            Some(plugin)
        };
        let mut at =
            |point: Point| -> Vec<SharedPlugin> { points.at(point).iter().filter_map(|e| find(e.plugin)).collect() };
        let (gates, filters) = (at(Point::PreEnqueue), at(Point::Filter));
        let scored = points.at(Point::Score).iter().filter_map(|e| Some((find(e.plugin)?, e.weight)));
        let scorers = scored.map(|(plugin, weight)| Scorer { plugin, weight: weight.into() }).collect();
        let after = |id: PluginId| points.at(Point::PostFilter).iter().any(|e| e.plugin == id);
        Ok(Profile {
            scheduler_name: file.scheduler_name.clone().unwrap_or_default(),
            percentage: file.percentage_of_nodes_to_score.or(self.file.percentage_of_nodes_to_score).unwrap_or(0),
            gates,
            filters,
            scorers,
            preemption: after(PluginId::DefaultPreemption).then_some(args.preemption),
            volumes: points
                .at(Point::PreBind)
                .iter()
                .any(|e| e.plugin == PluginId::VolumeBinding)
                .then(|| (Arc::clone(&sources.storage), args.bind_timeout)),
            devices: points
                .at(Point::PreBind)
                .iter()
                .any(|e| e.plugin == PluginId::DynamicResources)
                .then(|| (Arc::clone(&sources.devices), args.device_binding_timeout)),
            claims: after(PluginId::DynamicResources),
            plugins: made,
        })
    }
}

fn seconds(value: Option<i64>) -> i64 {
    value.unwrap_or(0)
}

fn plugins(profile: &ProfileFile) -> PluginsFile {
    profile.plugins.clone().unwrap_or_default()
}

/// Fills in defaults, and what the command line decides.
fn complete(file: &mut File, flags: &FromFlags<'_>, no_file: bool) {
    file.parallelism.get_or_insert(16);
    file.percentage_of_nodes_to_score.get_or_insert(0);
    file.pod_initial_backoff_seconds.get_or_insert(1);
    file.pod_max_backoff_seconds.get_or_insert(10);
    file.enable_profiling.get_or_insert(false);
    file.enable_contention_profiling.get_or_insert(true);
    file.delay_cache_until_active.get_or_insert(false);
    if file.profiles.is_empty() {
        file.profiles.push(ProfileFile::default());
    }
    for profile in &mut file.profiles {
        // Readers of the effective configuration see what runs.
        profile.plugins.get_or_insert_with(points::default_plugins);
    }
    if let [only] = file.profiles.as_mut_slice() {
        only.scheduler_name.get_or_insert_with(|| DEFAULT_SCHEDULER.into());
    }
    let connection = &mut file.client_connection;
    if connection.content_type.is_empty() {
        connection.content_type = "application/vnd.kubernetes.protobuf".into();
    }
    connection.qps.get_or_insert(50.0);
    connection.burst.get_or_insert(100);
    let (election, said) = (&mut file.leader_election, flags.election);
    let wins = |flag: &str| no_file || (flags.given)(flag);
    let span = |field: &mut Option<Span>, flag: &str, value: Duration| {
        if wins(flag) || field.is_none() {
            *field = Some(Span(value));
        }
    };
    span(&mut election.lease_duration, "leader-elect-lease-duration", said.leader_elect_lease_duration);
    span(&mut election.renew_deadline, "leader-elect-renew-deadline", said.leader_elect_renew_deadline);
    span(&mut election.retry_period, "leader-elect-retry-period", said.leader_elect_retry_period);
    if wins("leader-elect") || election.leader_elect.is_none() {
        election.leader_elect = Some(said.leader_elect);
    }
    let text = |field: &mut Option<String>, flag: &str, value: &str| {
        if wins(flag) || field.is_none() {
            *field = Some(value.to_owned());
        }
    };
    text(&mut election.resource_lock, "leader-elect-resource-lock", &said.leader_elect_resource_lock);
    let name = said.leader_elect_resource_name.as_deref().unwrap_or("kube-scheduler");
    text(&mut election.resource_name, "leader-elect-resource-name", name);
    text(&mut election.resource_namespace, "leader-elect-resource-namespace", &said.leader_elect_resource_namespace);
}

/// A plugin with its settings; `None` for those that are not asked about nodes, and for those that depend on the
/// other plugins.
fn make(id: PluginId, args: &Args, sources: &Sources) -> Option<SharedPlugin> {
    Some(match id {
        PluginId::SchedulingGates => Arc::new(SchedulingGates),
        PluginId::NodeUnschedulable => Arc::new(NodeUnschedulable),
        PluginId::NodeName => Arc::new(NodeName),
        PluginId::TaintToleration => Arc::new(TaintToleration),
        PluginId::NodeAffinity => Arc::new(NodeAffinity { added: Arc::clone(&args.added_affinity) }),
        PluginId::NodePorts => Arc::new(NodePorts),
        PluginId::NodeDeclaredFeatures => Arc::new(NodeDeclaredFeatures),
        PluginId::PodTopologySpread => {
            Arc::new(TopologySpread { defaults: args.spread.clone(), selector: Arc::clone(&sources.selector) })
        }
        PluginId::InterPodAffinity => Arc::new(InterPodAffinity {
            hard_weight: args.hard_affinity_weight,
            ignore_existing_preferences: args.ignore_existing_preferences,
        }),
        PluginId::ImageLocality => Arc::new(ImageLocality),
        PluginId::DynamicResources => {
            Arc::new(DynamicResources { devices: Arc::clone(&sources.devices), timeout: args.device_filter_timeout })
        }
        PluginId::VolumeRestrictions => Arc::new(VolumeRestrictions(Arc::clone(&sources.storage))),
        PluginId::NodeVolumeLimits => Arc::new(NodeVolumeLimits(Arc::clone(&sources.storage))),
        PluginId::VolumeBinding => Arc::new(VolumeBinding(Arc::clone(&sources.storage))),
        PluginId::VolumeZone => Arc::new(VolumeZone(Arc::clone(&sources.storage))),
        PluginId::PrioritySort
        | PluginId::DefaultPreemption
        | PluginId::NodeResourcesFit
        | PluginId::NodeResourcesBalancedAllocation
        | PluginId::DefaultBinder
        | PluginId::Extender => return None,
    })
}

#[cfg(test)]
mod tests;
