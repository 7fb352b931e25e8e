//! Flags of kube-controller-manager.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use runtime::features::{FeatureGates, Gate};
use runtime::flags::{
    ClientArgs, CompatibilityArgs, DelegatedAuthArgs, LeaderElectionArgs, MetricsArgs, ProfilingArgs,
    SecureServingArgs, duration,
};
use serde_json::{Value, json};

use crate::{
    attachdetach::AttachOptions, certificates::options::SigningOptions, migration::MigrationOptions,
    nodeipam::options::IpamOptions, nodelifecycle::options::NodeOptions, podautoscaler::options::AutoscalerOptions,
    table, volumes::options::VolumeOptions,
};

/// All flags.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Misc flags")]
pub struct Options {
    /// Time to wait for controllers to end before the process does.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub controller_shutdown_timeout: Duration,
    /// API client.
    #[command(flatten)]
    pub client: ClientArgs,
    /// Serving.
    #[command(flatten)]
    pub serving: SecureServingArgs,
    /// Who may read what is served.
    #[command(flatten)]
    pub auth: DelegatedAuthArgs,
    /// Election.
    #[command(flatten)]
    pub leader_election: LeaderElectionArgs,
    /// Metrics.
    #[command(flatten)]
    pub metrics: MetricsArgs,
    /// Profiling.
    #[command(flatten)]
    pub profiling: ProfilingArgs,
    /// Versions.
    #[command(flatten)]
    pub compatibility: CompatibilityArgs,
    /// Clouds, which other programs speak to.
    #[command(flatten)]
    pub cloud: CloudOptions,
    /// Which controllers run.
    #[command(flatten)]
    pub generic: GenericOptions,
    /// How many workers each controller has.
    #[command(flatten)]
    pub workers: WorkerOptions,
    /// Endpoints and EndpointSlices.
    #[command(flatten)]
    pub endpoints: EndpointOptions,
    /// Service accounts.
    #[command(flatten)]
    pub accounts: AccountOptions,
    /// Garbage collection.
    #[command(flatten)]
    pub collection: CollectionOptions,
    /// Signing of certificates.
    #[command(flatten)]
    pub signing: SigningOptions,
    /// Pod address ranges of nodes.
    #[command(flatten)]
    pub ipam: IpamOptions,
    /// Watching nodes.
    #[command(flatten)]
    pub nodes: NodeOptions,
    /// Attaching and detaching of volumes.
    #[command(flatten)]
    pub attach: AttachOptions,
    /// Binding, provisioning and recycling of volumes.
    #[command(flatten)]
    pub volumes: VolumeOptions,
    /// Controllers that move between programs.
    #[command(flatten)]
    pub migration: MigrationOptions,
    /// Horizontal scaling.
    #[command(flatten)]
    pub autoscaler: AutoscalerOptions,
}

/// Which controllers run.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Generic flags")]
pub struct GenericOptions {
    /// A list of controllers to enable. '*' enables all on-by-default controllers, 'foo' enables the controller named
    /// 'foo', '-foo' disables the controller named 'foo'.
    #[arg(long, value_delimiter = ',', default_value = "*", allow_hyphen_values = true)]
    pub controllers: Vec<String>,
    /// A set of key=value pairs that describe feature gates for alpha/experimental features.
    #[arg(long)]
    pub feature_gates: Vec<String>,
    /// Interval between starting controllers.
    #[arg(long, default_value = "0", value_parser = duration)]
    pub controller_start_interval: Duration,
    /// The resync period in reflectors will be random between MinResyncPeriod and 2*MinResyncPeriod.
    #[arg(long, default_value = "12h", value_parser = duration)]
    pub min_resync_period: Duration,
    /// The instance prefix for the cluster; only cloud providers read it.
    #[arg(long, default_value = "kubernetes")]
    pub cluster_name: String,
}

/// Flags that all controller managers have. Clouds have programs of their own, so only what says that is taken.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Cloud provider flags")]
pub struct CloudOptions {
    /// The provider for cloud services: external, or empty.
    #[arg(long, default_value = "")]
    pub cloud_provider: String,
    /// The path to the cloud provider configuration file; there is none to be configured.
    #[arg(long, default_value = "")]
    pub cloud_config: String,
    /// Type of CIDR allocator to use; clouds have others.
    #[arg(long, default_value = "RangeAllocator")]
    pub cidr_allocator_type: String,
    /// Should CIDRs allocated by allocate-node-cidrs be configured on the cloud provider; its own program reads it.
    #[arg(long, default_value_t = true)]
    pub configure_cloud_routes: bool,
    /// The period for reconciling routes created for Nodes by cloud provider; its own program reads it.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub route_reconciliation_period: Duration,
    /// The number of services that are allowed to sync concurrently; the cloud provider's own program reads it.
    #[arg(long, default_value_t = 1)]
    pub concurrent_service_syncs: usize,
    /// The plugin to use when cloud provider is set to external. Can be empty, should only be set when cloud-provider
    /// is external. There are no volume plugins of clouds any more, so that it changes nothing.
    #[arg(long, default_value = "")]
    pub external_cloud_volume_plugin: String,
    /// Allow the cluster to run without the cluster-id on cloud instances. Nothing reads it.
    #[arg(long, default_value_t = false)]
    pub allow_untagged_cloud: bool,
    /// The period for syncing nodes from the cloud provider. Nothing reads it.
    #[arg(long, default_value = "0", value_parser = duration)]
    pub node_sync_period: Duration,
}

/// Flags that are still taken, and what is said when they are used.
pub const DEPRECATED: &[(&str, &str)] = &[
    (
        "allow-untagged-cloud",
        "This flag is deprecated and will be removed in a future release. A cluster-id will be required on cloud \
         instances.",
    ),
    ("node-sync-period", "This flag is currently no-op and will be deleted."),
];

impl CloudOptions {
    fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !matches!(self.cloud_provider.as_str(), "" | "external") {
            problems.push(format!("unknown cloud provider {:?}: it must be external or empty", self.cloud_provider));
        }
        if !self.cloud_config.is_empty() {
            problems.push("--cloud-config configures a provider that is not external".into());
        }
        if !self.external_cloud_volume_plugin.is_empty() && self.cloud_provider != "external" {
            problems.push("--external-cloud-volume-plugin should only be set when --cloud-provider is external".into());
        }
        if self.cidr_allocator_type != "RangeAllocator" {
            problems.push(format!("--cidr-allocator-type {:?} needs a cloud provider", self.cidr_allocator_type));
        }
        problems
    }
}

/// Workers.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Worker flags")]
pub struct WorkerOptions {
    /// The number of deployments that are allowed to sync concurrently.
    #[arg(long, default_value_t = 5)]
    pub concurrent_deployment_syncs: usize,
    /// The number of replica sets that are allowed to sync concurrently.
    #[arg(long, default_value_t = 5)]
    pub concurrent_replicaset_syncs: usize,
    /// The number of replication controllers that are allowed to sync concurrently.
    #[arg(long, default_value_t = 5)]
    pub concurrent_rc_syncs: usize,
    /// The number of statefulsets that are allowed to sync concurrently.
    #[arg(long, default_value_t = 5)]
    pub concurrent_statefulset_syncs: usize,
    /// The number of daemonsets that are allowed to sync concurrently.
    #[arg(long, default_value_t = 2)]
    pub concurrent_daemonset_syncs: usize,
    /// The number of jobs that are allowed to sync concurrently.
    #[arg(long, default_value_t = 5)]
    pub concurrent_job_syncs: usize,
    /// The number of cron jobs that are allowed to sync concurrently.
    #[arg(long, default_value_t = 5)]
    pub concurrent_cron_job_syncs: usize,
    /// The number of TTL-after-finished controller workers that are allowed to sync concurrently.
    #[arg(long, default_value_t = 5)]
    pub concurrent_ttl_after_finished_syncs: usize,
    /// The number of ephemeral volume syncing operations that will be done concurrently.
    #[arg(long, default_value_t = 5)]
    pub concurrent_ephemeralvolume_syncs: usize,
    /// The number of validating admission policies whose expressions are checked concurrently.
    #[arg(long, default_value_t = 5)]
    pub concurrent_validating_admission_policy_status_syncs: usize,
    /// The number of operations (deletion of a pod, updating a ResourceClaim status, etc.) that will be done
    /// concurrently.
    #[arg(long, default_value_t = 50)]
    pub concurrent_resourceclaim_syncs: usize,
    /// The number of operations (deleting a pod, updating a DeviceTaintRule status, etc.) that will be done
    /// concurrently.
    #[arg(long, default_value_t = 8)]
    pub concurrent_device_taint_eviction_syncs: usize,
    /// The number of service account token objects that are allowed to sync concurrently.
    #[arg(long, default_value_t = 5)]
    pub concurrent_serviceaccount_token_syncs: usize,
    /// The number of namespaces that are allowed to sync concurrently.
    #[arg(long, default_value_t = 10)]
    pub concurrent_namespace_syncs: usize,
    /// The period for syncing namespace life-cycle updates.
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub namespace_sync_period: Duration,
    /// The number of resource quotas that are allowed to sync concurrently.
    #[arg(long, default_value_t = 5)]
    pub concurrent_resource_quota_syncs: usize,
    /// The period for syncing quota usage status in the system.
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub resource_quota_sync_period: Duration,
}

/// Endpoints and EndpointSlices.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Endpoint flags")]
pub struct EndpointOptions {
    /// The number of endpoint syncing operations that will be done concurrently.
    #[arg(long, default_value_t = 5)]
    pub concurrent_endpoint_syncs: usize,
    /// The length of endpoint updates batching period: 0 for none.
    #[arg(long, default_value = "0", value_parser = duration)]
    pub endpoint_updates_batch_period: Duration,
    /// The number of service endpoint syncing operations that will be done concurrently.
    #[arg(long, default_value_t = 5)]
    pub concurrent_service_endpoint_syncs: usize,
    /// The maximum number of endpoints that will be added to an EndpointSlice.
    #[arg(long, default_value_t = 100)]
    pub max_endpoints_per_slice: usize,
    /// The length of endpoint slice updates batching period: 0 for none.
    #[arg(long, default_value = "0", value_parser = duration)]
    pub endpointslice_updates_batch_period: Duration,
    /// The number of service endpoint mirroring operations that will be done concurrently.
    #[arg(long, default_value_t = 5)]
    pub mirroring_concurrent_service_endpoint_syncs: usize,
    /// The maximum number of endpoints that will be mirrored from a subset.
    #[arg(long, default_value_t = 1000)]
    pub mirroring_max_endpoints_per_subset: usize,
    /// The length of EndpointSlice updates batching period for the mirroring controller: 0 for none.
    #[arg(long, default_value = "0", value_parser = duration)]
    pub mirroring_endpointslice_updates_batch_period: Duration,
}

/// Service accounts.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Service account flags")]
pub struct AccountOptions {
    /// File with the root certificate authority that every namespace gets as kube-root-ca.crt.
    #[arg(long)]
    pub root_ca_file: Option<PathBuf>,
    /// File with the PEM private RSA or ECDSA key that signs the tokens in Secrets.
    #[arg(long)]
    pub service_account_private_key_file: Option<PathBuf>,
    /// The time that a legacy service account token stays unused before it can be cleaned up.
    #[arg(long, default_value = "8760h", value_parser = duration)]
    pub legacy_service_account_token_clean_up_period: Duration,
    /// Use individual service account credentials for each controller.
    #[arg(long, default_value_t = false)]
    pub use_service_account_credentials: bool,
}

/// Garbage collection.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Garbage collection flags")]
pub struct CollectionOptions {
    /// Enables the garbage collector; must agree with the API server's flag of that name.
    #[arg(long, default_value_t = true)]
    pub enable_garbage_collector: bool,
    /// The number of garbage collector workers that are allowed to sync concurrently.
    #[arg(long, default_value_t = 20)]
    pub concurrent_gc_syncs: usize,
}

/// Gates whose behaviour is always on here; only their legal value is taken.
const GATES: &[Gate] = &[
    Gate::locked_since("JobBackoffLimitPerIndex", 33),
    Gate::locked_since("JobPodReplacementPolicy", 34),
    Gate::locked_since("JobSuccessPolicy", 33),
    Gate::locked("RotateKubeletServerCertificate"),
    Gate::locked("StatefulSetAutoDeletePVC"),
];

impl Options {
    /// The gates as the flags set them.
    pub(crate) fn gates(&self) -> Result<FeatureGates, Vec<String>> {
        let settings = FeatureGates::parse(&self.generic.feature_gates, true).map_err(|e| vec![e])?;
        FeatureGates::new(GATES, &settings)
    }

    /// All that is wrong, gates aside.
    pub fn validate(&self) -> Vec<String> {
        let mut problems = self.leader_election.validate();
        problems.extend(self.metrics.apply());
        problems.extend(self.compatibility.apply());
        problems.extend(self.cloud.validate());
        problems.extend(self.signing.validate());
        problems.extend(self.ipam.validate());
        problems.extend(self.nodes.validate());
        problems.extend(self.autoscaler.validate());
        problems.extend(self.attach.validate());
        problems.extend(self.volumes.validate());
        problems.extend(table::unknown(&self.generic.controllers));
        let bounded = [
            ("--max-endpoints-per-slice", self.endpoints.max_endpoints_per_slice),
            ("--mirroring-max-endpoints-per-subset", self.endpoints.mirroring_max_endpoints_per_subset),
        ];
        for (flag, value) in bounded {
            if !(1..=1000).contains(&value) {
                problems.push(format!("{flag} must be between 1 and 1000, got {value}"));
            }
        }
        problems
    }

    /// What programs of clouds share with this one.
    fn cloud_document(&self) -> Value {
        let seconds = runtime::flags::format_duration;
        let ranges: Vec<String> = self.ipam.cluster_cidr.iter().map(ToString::to_string).collect();
        json!({
            "CloudProvider": {"Name": self.cloud.cloud_provider, "CloudConfigFile": self.cloud.cloud_config},
            "ExternalCloudVolumePlugin": self.cloud.external_cloud_volume_plugin,
            "UseServiceAccountCredentials": self.accounts.use_service_account_credentials,
            "AllowUntaggedCloud": self.cloud.allow_untagged_cloud,
            "RouteReconciliationPeriod": seconds(self.cloud.route_reconciliation_period),
            "NodeMonitorPeriod": seconds(self.nodes.node_monitor_period),
            "NodeSyncPeriod": seconds(self.cloud.node_sync_period),
            "ClusterName": self.generic.cluster_name,
            "ClusterCIDR": ranges.join(","),
            "AllocateNodeCIDRs": self.ipam.allocate_node_cidrs,
            "CIDRAllocatorType": self.cloud.cidr_allocator_type,
            "ConfigureCloudRoutes": self.cloud.configure_cloud_routes,
        })
    }

    /// The configuration as `/configz` shows it.
    pub(crate) fn document(&self) -> Value {
        let seconds = runtime::flags::format_duration;
        json!({
            "kind": "KubeControllerManagerConfiguration",
            "apiVersion": "kubecontrollermanager.config.k8s.io/v1alpha1",
            "Generic": {
                "Address": self.serving.bind_address.to_string(),
                "Port": self.serving.secure_port,
                "MinResyncPeriod": seconds(self.generic.min_resync_period),
                "Controllers": self.generic.controllers,
                "ControllerStartInterval": seconds(self.generic.controller_start_interval),
                "ControllerShutdownTimeout": seconds(self.controller_shutdown_timeout),
                "ClientConnection": {
                    "kubeconfig": self.client.kubeconfig,
                    "contentType": self.client.kube_api_content_type,
                    "qps": self.client.kube_api_qps,
                    "burst": self.client.kube_api_burst,
                },
                "LeaderElection": {
                    "leaderElect": self.leader_election.leader_elect,
                    "leaseDuration": seconds(self.leader_election.leader_elect_lease_duration),
                    "renewDeadline": seconds(self.leader_election.leader_elect_renew_deadline),
                    "retryPeriod": seconds(self.leader_election.leader_elect_retry_period),
                    "resourceLock": self.leader_election.leader_elect_resource_lock,
                    "resourceNamespace": self.leader_election.leader_elect_resource_namespace,
                },
                "Debugging": {
                    "enableProfiling": self.profiling.profiling,
                    "enableContentionProfiling": self.profiling.contention_profiling,
                },
                "LeaderMigrationEnabled": self.migration.enable_leader_migration,
            },
            "KubeCloudShared": self.cloud_document(),
            "ServiceController": {"ConcurrentServiceSyncs": self.cloud.concurrent_service_syncs},
            "PersistentVolumeBinderController": self.volumes.document(),
            "CSRSigningController": self.signing.document(),
            "DeploymentController": {"ConcurrentDeploymentSyncs": self.workers.concurrent_deployment_syncs},
            "ReplicaSetController": {"ConcurrentRSSyncs": self.workers.concurrent_replicaset_syncs},
            "ReplicationController": {"ConcurrentRCSyncs": self.workers.concurrent_rc_syncs},
            "StatefulSetController": {"ConcurrentStatefulSetSyncs": self.workers.concurrent_statefulset_syncs},
            "DaemonSetController": {"ConcurrentDaemonSetSyncs": self.workers.concurrent_daemonset_syncs},
            "JobController": {"ConcurrentJobSyncs": self.workers.concurrent_job_syncs},
            "CronJobController": {"ConcurrentCronJobSyncs": self.workers.concurrent_cron_job_syncs},
            "TTLAfterFinishedController": {"ConcurrentTTLSyncs": self.workers.concurrent_ttl_after_finished_syncs},
            "EphemeralVolumeController": {
                "ConcurrentEphemeralVolumeSyncs": self.workers.concurrent_ephemeralvolume_syncs,
            },
            "ResourceClaimController": {"ConcurrentSyncs": self.workers.concurrent_resourceclaim_syncs},
            "DeviceTaintEvictionController": {
                "ConcurrentSyncs": self.workers.concurrent_device_taint_eviction_syncs,
            },
            "ValidatingAdmissionPolicyStatusController": {
                "ConcurrentPolicySyncs": self.workers.concurrent_validating_admission_policy_status_syncs,
            },
            "NamespaceController": {
                "ConcurrentNamespaceSyncs": self.workers.concurrent_namespace_syncs,
                "NamespaceSyncPeriod": seconds(self.workers.namespace_sync_period),
            },
            "ResourceQuotaController": {
                "ConcurrentResourceQuotaSyncs": self.workers.concurrent_resource_quota_syncs,
                "ResourceQuotaSyncPeriod": seconds(self.workers.resource_quota_sync_period),
            },
            "EndpointController": {"ConcurrentEndpointSyncs": self.endpoints.concurrent_endpoint_syncs},
            "EndpointSliceController": {
                "ConcurrentServiceEndpointSyncs": self.endpoints.concurrent_service_endpoint_syncs,
                "MaxEndpointsPerSlice": self.endpoints.max_endpoints_per_slice,
            },
            "HPAController": {
                "ConcurrentHorizontalPodAutoscalerSyncs": self.autoscaler.concurrent_horizontal_pod_autoscaler_syncs,
                "HorizontalPodAutoscalerSyncPeriod": seconds(self.autoscaler.horizontal_pod_autoscaler_sync_period),
                "HorizontalPodAutoscalerDownscaleStabilizationWindow":
                    seconds(self.autoscaler.horizontal_pod_autoscaler_downscale_stabilization),
                "HorizontalPodAutoscalerTolerance": self.autoscaler.horizontal_pod_autoscaler_tolerance,
                "HorizontalPodAutoscalerCPUInitializationPeriod":
                    seconds(self.autoscaler.horizontal_pod_autoscaler_cpu_initialization_period),
                "HorizontalPodAutoscalerInitialReadinessDelay":
                    seconds(self.autoscaler.horizontal_pod_autoscaler_initial_readiness_delay),
            },
            "AttachDetachController": {
                "DisableAttachDetachReconcilerSync": self.attach.disable_attach_detach_reconcile_sync,
                "ReconcilerSyncLoopPeriod": seconds(self.attach.attach_detach_reconcile_sync_period),
                "DisableForceDetachOnTimeout": self.attach.disable_force_detach_on_timeout,
            },
            "SAController": {
                "RootCAFile": self.accounts.root_ca_file,
                "ConcurrentSATokenSyncs": self.workers.concurrent_serviceaccount_token_syncs,
            },
            "LegacySATokenCleaner": {
                "CleanUpPeriod": seconds(self.accounts.legacy_service_account_token_clean_up_period),
            },
            "GarbageCollectorController": {
                "EnableGarbageCollector": self.collection.enable_garbage_collector,
                "ConcurrentGCSyncs": self.collection.concurrent_gc_syncs,
            },
        })
    }
}
