//! The configuration's fields and their defaults.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Taint;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Span;

/// API version of the configuration.
pub const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
/// Its kind.
pub const KIND: &str = "KubeletConfiguration";

type Strings = BTreeMap<String, String>;

macro_rules! configuration {
    ($($(#[$meta:meta])* $field:ident : $type:ty = $default:expr;)*) => {
        /// The kubelet's configuration; a field left out has its default.
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        #[allow(missing_docs)]
        pub struct KubeletConfiguration {
            pub kind: String,
            pub api_version: String,
            $($(#[$meta])* pub $field: $type,)*
        }

        impl Default for KubeletConfiguration {
            fn default() -> Self {
                Self { kind: KIND.to_owned(), api_version: API_VERSION.to_owned(), $($field: $default,)* }
            }
        }
    };
}

configuration! {
    enable_server: bool = true;
    static_pod_path: String = String::new();
    pod_logs_dir: String = "/var/log/pods".to_owned();
    sync_frequency: Span = Span::seconds(60);
    file_check_frequency: Span = Span::seconds(20);
    http_check_frequency: Span = Span::seconds(20);
    #[serde(rename = "staticPodURL")]
    static_pod_url: String = String::new();
    #[serde(rename = "staticPodURLHeader")]
    static_pod_url_header: BTreeMap<String, Vec<String>> = BTreeMap::new();
    address: String = "0.0.0.0".to_owned();
    port: u16 = 10250;
    read_only_port: u16 = 0;
    tls_cert_file: String = String::new();
    tls_private_key_file: String = String::new();
    tls_cipher_suites: Vec<String> = Vec::new();
    tls_min_version: String = String::new();
    tls_curve_preferences: Vec<i32> = Vec::new();
    rotate_certificates: bool = false;
    #[serde(rename = "serverTLSBootstrap")]
    server_tls_bootstrap: bool = false;
    authentication: Authentication = Authentication::default();
    authorization: Authorization = Authorization::default();
    #[serde(rename = "registryPullQPS")]
    registry_pull_qps: i32 = 5;
    registry_burst: i32 = 10;
    #[serde(rename = "imagePullCredentialsVerificationPolicy")]
    image_pull_credentials_verification_policy: String = "NeverVerifyPreloadedImages".to_owned();
    preloaded_images_verification_allowlist: Vec<String> = Vec::new();
    #[serde(rename = "eventRecordQPS")]
    event_record_qps: i32 = 50;
    event_burst: i32 = 100;
    enable_debugging_handlers: bool = true;
    enable_contention_profiling: bool = false;
    healthz_port: u16 = 10248;
    healthz_bind_address: String = "127.0.0.1".to_owned();
    oom_score_adj: i32 = -999;
    cluster_domain: String = String::new();
    #[serde(rename = "clusterDNS")]
    cluster_dns: Vec<String> = Vec::new();
    streaming_connection_idle_timeout: Span = Span::seconds(4 * 3600);
    node_status_update_frequency: Span = Span::seconds(10);
    node_status_report_frequency: Span = Span::seconds(300);
    node_lease_duration_seconds: i32 = 40;
    #[serde(rename = "imageMinimumGCAge")]
    image_minimum_gc_age: Span = Span::seconds(120);
    #[serde(rename = "imageMaximumGCAge")]
    image_maximum_gc_age: Span = Span::seconds(0);
    #[serde(rename = "imageGCHighThresholdPercent")]
    image_gc_high_threshold_percent: i32 = 85;
    #[serde(rename = "imageGCLowThresholdPercent")]
    image_gc_low_threshold_percent: i32 = 80;
    volume_stats_agg_period: Span = Span::seconds(60);
    kubelet_cgroups: String = String::new();
    system_cgroups: String = String::new();
    cgroup_root: String = String::new();
    #[serde(rename = "cgroupsPerQOS")]
    cgroups_per_qos: bool = true;
    cgroup_driver: String = "cgroupfs".to_owned();
    cpu_manager_policy: String = "none".to_owned();
    #[serde(rename = "singleProcessOOMKill", skip_serializing_if = "Option::is_none")]
    single_process_oom_kill: Option<bool> = None;
    cpu_manager_policy_options: Strings = Strings::new();
    cpu_manager_reconcile_period: Span = Span::seconds(10);
    memory_manager_policy: String = "None".to_owned();
    topology_manager_policy: String = "none".to_owned();
    topology_manager_scope: String = "container".to_owned();
    topology_manager_policy_options: Strings = Strings::new();
    qos_reserved: Strings = Strings::new();
    runtime_request_timeout: Span = Span::seconds(120);
    hairpin_mode: String = "promiscuous-bridge".to_owned();
    max_pods: i32 = 110;
    #[serde(rename = "podCIDR")]
    pod_cidr: String = String::new();
    pod_pids_limit: i64 = -1;
    resolv_conf: String = "/etc/resolv.conf".to_owned();
    run_once: bool = false;
    #[serde(rename = "cpuCFSQuota")]
    cpu_cfs_quota: bool = true;
    #[serde(rename = "cpuCFSQuotaPeriod")]
    cpu_cfs_quota_period: Span = Span(std::time::Duration::from_millis(100));
    node_status_max_images: i32 = 50;
    max_open_files: i64 = 1_000_000;
    content_type: String = "application/vnd.kubernetes.protobuf".to_owned();
    #[serde(rename = "kubeAPIQPS")]
    kube_api_qps: i32 = 50;
    #[serde(rename = "kubeAPIBurst")]
    kube_api_burst: i32 = 100;
    serialize_image_pulls: bool = true;
    #[serde(skip_serializing_if = "Option::is_none")]
    max_parallel_image_pulls: Option<i32> = None;
    eviction_hard: Strings = default_eviction_hard();
    eviction_soft: Strings = Strings::new();
    eviction_soft_grace_period: Strings = Strings::new();
    eviction_pressure_transition_period: Span = Span::seconds(300);
    eviction_max_pod_grace_period: i32 = 0;
    eviction_minimum_reclaim: Strings = Strings::new();
    merge_default_eviction_settings: bool = false;
    pods_per_core: i32 = 0;
    enable_controller_attach_detach: bool = true;
    protect_kernel_defaults: bool = false;
    #[serde(rename = "makeIPTablesUtilChains")]
    make_iptables_util_chains: bool = true;
    iptables_masquerade_bit: i32 = 14;
    iptables_drop_bit: i32 = 15;
    feature_gates: BTreeMap<String, bool> = BTreeMap::new();
    fail_swap_on: bool = true;
    memory_swap: MemorySwap = MemorySwap::default();
    container_log_max_size: String = "10Mi".to_owned();
    container_log_max_files: i32 = 5;
    container_log_max_workers: i32 = 1;
    container_log_monitor_interval: Span = Span::seconds(10);
    config_map_and_secret_change_detection_strategy: String = "Watch".to_owned();
    system_reserved: Strings = Strings::new();
    kube_reserved: Strings = Strings::new();
    #[serde(rename = "reservedSystemCPUs")]
    reserved_system_cpus: String = String::new();
    show_hidden_metrics_for_version: String = String::new();
    system_reserved_cgroup: String = String::new();
    kube_reserved_cgroup: String = String::new();
    enforce_node_allocatable: Vec<String> = vec!["pods".to_owned()];
    allowed_unsafe_sysctls: Vec<String> = Vec::new();
    volume_plugin_dir: String = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec/".to_owned();
    #[serde(rename = "providerID")]
    provider_id: String = String::new();
    kernel_memcg_notification: bool = false;
    logging: Value = serde_json::json!({ "format": "text", "flushFrequency": "5s", "verbosity": 0 });
    enable_system_log_handler: bool = true;
    enable_system_log_query: bool = false;
    shutdown_grace_period: Span = Span::seconds(0);
    shutdown_grace_period_critical_pods: Span = Span::seconds(0);
    shutdown_grace_period_by_pod_priority: Vec<ShutdownGrace> = Vec::new();
    crash_loop_back_off: CrashLoopBackOff = CrashLoopBackOff::default();
    reserved_memory: Vec<Value> = Vec::new();
    enable_profiling_handler: bool = true;
    enable_debug_flags_handler: bool = true;
    seccomp_default: bool = false;
    memory_throttling_factor: f64 = 0.9;
    register_with_taints: Vec<Taint> = Vec::new();
    register_node: bool = true;
    #[serde(skip_serializing_if = "Value::is_null")]
    tracing: Value = Value::Null;
    local_storage_capacity_isolation: bool = true;
    container_runtime_endpoint: String = "unix:///run/containerd/containerd.sock".to_owned();
    image_service_endpoint: String = String::new();
    fail_cgroup_v1: bool = true;
    #[serde(skip_serializing_if = "Option::is_none")]
    user_namespaces: Option<UserNamespaces> = None;
    memory_reservation_policy: String = "None".to_owned();
}

/// Hard thresholds that hold when none are configured.
pub fn default_eviction_hard() -> Strings {
    [
        ("memory.available", "100Mi"),
        ("nodefs.available", "10%"),
        ("nodefs.inodesFree", "5%"),
        ("imagefs.available", "15%"),
        ("imagefs.inodesFree", "5%"),
    ]
    .map(|(signal, value)| (signal.to_owned(), value.to_owned()))
    .into()
}

/// Who may call the kubelet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Authentication {
    pub x509: X509Authentication,
    pub webhook: WebhookAuthentication,
    pub anonymous: AnonymousAuthentication,
}

/// Client certificates.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct X509Authentication {
    #[serde(rename = "clientCAFile")]
    pub client_ca_file: String,
}

/// Bearer tokens.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct WebhookAuthentication {
    pub enabled: bool,
    #[serde(rename = "cacheTTL")]
    pub cache_ttl: Span,
}

impl Default for WebhookAuthentication {
    fn default() -> Self {
        Self { enabled: true, cache_ttl: Span::seconds(120) }
    }
}

/// Requests without credentials.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct AnonymousAuthentication {
    pub enabled: bool,
}

/// What callers may do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Authorization {
    pub mode: String,
    pub webhook: WebhookAuthorization,
}

impl Default for Authorization {
    fn default() -> Self {
        Self { mode: "Webhook".to_owned(), webhook: WebhookAuthorization::default() }
    }
}

/// Cached answers of the apiserver.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct WebhookAuthorization {
    #[serde(rename = "cacheAuthorizedTTL")]
    pub cache_authorized_ttl: Span,
    #[serde(rename = "cacheUnauthorizedTTL")]
    pub cache_unauthorized_ttl: Span,
}

impl Default for WebhookAuthorization {
    fn default() -> Self {
        Self { cache_authorized_ttl: Span::seconds(300), cache_unauthorized_ttl: Span::seconds(30) }
    }
}

/// Swap of containers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct MemorySwap {
    pub swap_behavior: String,
}

/// Waiting between restarts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct CrashLoopBackOff {
    pub max_container_restart_period: Span,
}

impl Default for CrashLoopBackOff {
    fn default() -> Self {
        Self { max_container_restart_period: Span::seconds(300) }
    }
}

/// Grace per priority at node shutdown.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct ShutdownGrace {
    pub priority: i32,
    pub shutdown_grace_period_seconds: i64,
}

/// User namespaces.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct UserNamespaces {
    pub ids_per_pod: i64,
}
