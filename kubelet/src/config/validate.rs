//! What a configuration may say. What this kubelet cannot do is refused, never ignored.

use runtime::features::{FeatureGates, Gate};

use super::features::Features;
use super::logging::Logging;
use super::{KubeletConfiguration, Span};
use crate::images::Verification;

/// Features that can be named; what is not in the making is part of the product.
const GATES: &[Gate] = &[
    Gate::locked("CPUManager"),
    Gate::alpha("CPUManagerPolicyAlphaOptions"),
    Gate::beta("CPUManagerPolicyBetaOptions", true),
    Gate::locked("CPUManagerPolicyOptions"),
    Gate::locked("CloudDualStackNodeIPs"),
    Gate::beta("ContainerCheckpoint", true),
    Gate::beta("ContainerRestartRules", true),
    Gate::locked("DevicePluginCDIDevices"),
    Gate::locked("DisableNodeKubeProxyVersion"),
    Gate::locked("DynamicResourceAllocation"),
    Gate::beta("EnvFiles", true),
    Gate::beta("ExtendWebSocketsToKubelet", true),
    Gate::beta("GracefulNodeShutdown", true),
    Gate { requires: &["GracefulNodeShutdown"], ..Gate::beta("GracefulNodeShutdownBasedOnPodPriority", true) },
    Gate::locked("HonorPVReclaimPolicy"),
    Gate::beta("HostnameOverride", true),
    Gate::locked("ImageMaximumGCAge"),
    Gate::locked("ImageVolume"),
    Gate::beta("InPlacePodLevelResourcesVerticalScaling", true),
    Gate::locked("InPlacePodVerticalScaling"),
    Gate::beta("InPlacePodVerticalScalingInitContainers", true),
    Gate::beta("KubeletCrashLoopBackOffMax", true),
    Gate::beta("KubeletEnsureSecretPulledImages", true),
    Gate::locked("KubeletFineGrainedAuthz"),
    Gate::locked("KubeletPodResourcesDynamicResources"),
    Gate::locked("KubeletPodResourcesGet"),
    Gate::locked("KubeletServiceAccountTokenForCredentialProviders"),
    Gate::locked("KubeletTracing"),
    Gate::locked("LocalStorageCapacityIsolation"),
    Gate::locked("MemoryManager"),
    Gate::beta("NodeDeclaredFeatures", true),
    Gate::locked("NodeLogQuery"),
    Gate::locked("NodeSwap"),
    Gate::locked("PodHostIPs"),
    Gate::locked("PodLevelResources"),
    Gate::locked("PodLifecycleSleepAction"),
    Gate::locked("PodLifecycleSleepActionAllowZero"),
    Gate::locked("PodObservedGenerationTracking"),
    Gate::beta("PodReadyToStartContainersCondition", true),
    Gate::locked("ProcMountType"),
    Gate::locked("RecursiveReadOnlyMounts"),
    Gate { requires: &["ContainerRestartRules"], ..Gate::beta("RestartAllContainersOnContainerExits", true) },
    Gate::locked("RotateKubeletServerCertificate"),
    Gate::locked("SidecarContainers"),
    Gate::locked("SupplementalGroupsPolicy"),
    Gate::locked("TopologyManagerPolicyBetaOptions"),
    Gate::locked("TopologyManagerPolicyOptions"),
    Gate::locked("UserNamespacesSupport"),
];

/// Settings of features as the gates take them.
fn gate_settings(config: &KubeletConfiguration) -> Vec<(String, String)> {
    config.feature_gates.iter().map(|(name, on)| (name.clone(), on.to_string())).collect()
}

/// The gates of a configuration that was found valid.
pub fn gates(config: &KubeletConfiguration) -> FeatureGates {
    FeatureGates::new(GATES, &gate_settings(config)).unwrap_or_default()
}

/// What is said of traces, if anything is.
pub(crate) fn tracing(config: &KubeletConfiguration) -> Result<Option<spans::Config>, String> {
    if config.tracing.is_null() {
        return Ok(None);
    }
    serde_json::from_value(config.tracing.clone()).map(Some).map_err(|error| format!("tracing: {error}"))
}

/// All that is wrong.
pub(super) fn validate(config: &KubeletConfiguration) -> Vec<String> {
    let mut problems = Problems(Vec::new());
    problems.ranges(config);
    problems.choices(config);
    problems.shutdown(config);
    problems.user_namespaces(config);
    problems.0.extend(Logging::read(&config.logging).err());
    problems.unsupported(config);
    match tracing(config) {
        Ok(found) => problems.0.extend(found.iter().flat_map(|found| found.problems("tracing"))),
        Err(error) => problems.0.push(error),
    }
    problems.0.extend(FeatureGates::new(GATES, &gate_settings(config)).err().unwrap_or_default());
    problems.0.extend(crate::evict::thresholds(config).err().unwrap_or_default());
    let verification = Verification::new(
        &config.image_pull_credentials_verification_policy,
        &config.preloaded_images_verification_allowlist,
    );
    problems.0.extend(verification.err().map(|problem| format!("imagePullCredentialsVerificationPolicy: {problem}")));
    problems.0.extend(tls(config));
    problems.0
}

fn tls(config: &KubeletConfiguration) -> Option<String> {
    let curves = config.tls_curve_preferences.iter().map(|curve| u16::try_from(*curve));
    let curves: Vec<u16> = match curves.collect() {
        Ok(curves) => curves,
        Err(_) => return Some("tlsCurvePreferences must be numbers of key exchange groups".to_owned()),
    };
    runtime::tls::min_version(&config.tls_min_version)
        .map(drop)
        .and_then(|()| runtime::tls::provider_for(&config.tls_cipher_suites, &curves).map(drop))
        .err()
        .map(|error| util::chain(&error).to_string())
}

struct Problems(Vec<String>);

impl Problems {
    fn check(&mut self, ok: bool, text: impl Into<String>) {
        if !ok {
            self.0.push(text.into());
        }
    }

    fn ranges(&mut self, config: &KubeletConfiguration) {
        let percent = |value: i32| (0..=100).contains(&value);
        let (high, low) = (config.image_gc_high_threshold_percent, config.image_gc_low_threshold_percent);
        self.check(
            percent(high),
            format!(
                "imageGCHighThresholdPercent (--image-gc-high-threshold) {high} must be between 0 and 100, inclusive"
            ),
        );
        self.check(
            percent(low) && low < high,
            format!(
                "imageGCLowThresholdPercent (--image-gc-low-threshold) {low} must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) {high}"
            ),
        );
        let (age, min_age) = (config.image_maximum_gc_age, config.image_minimum_gc_age);
        self.check(
            age == Span::seconds(0) || age > min_age,
            format!("imageMaximumGCAge {age} must be greater than imageMinimumGCAge {min_age}"),
        );
        self.check(
            config.max_pods >= 0,
            format!("maxPods (--max-pods) {} must not be a negative number", config.max_pods),
        );
        self.check(config.pods_per_core >= 0, "podsPerCore (--pods-per-core) must not be a negative number");
        self.check(config.node_lease_duration_seconds > 0, "nodeLeaseDurationSeconds must be greater than 0");
        self.check(config.max_open_files >= 0, "maxOpenFiles (--max-open-files) must not be a negative number");
        self.check(
            (-1000..=1000).contains(&config.oom_score_adj),
            "oomScoreAdj (--oom-score-adj) must be between range [-1000, 1000]",
        );
        self.check(config.event_record_qps >= 0, "eventRecordQPS (--event-qps) must not be a negative number");
        self.check(config.event_burst >= 0, "eventBurst (--event-burst) must not be a negative number");
        self.check(config.registry_pull_qps >= 0, "registryPullQPS (--registry-qps) must not be a negative number");
        self.check(config.registry_burst >= 0, "registryBurst (--registry-burst) must not be a negative number");
        self.check(config.kube_api_burst >= 0, "kubeAPIBurst (--kube-api-burst) must not be a negative number");
        self.check(
            config.node_status_max_images >= -1,
            "nodeStatusMaxImages (--node-status-max-images) must be -1 or greater",
        );
        self.check(
            config.container_log_max_files >= 2,
            format!("containerLogMaxFiles must be greater than 1, got {}", config.container_log_max_files),
        );
        self.check(config.container_log_max_workers >= 1, "containerLogMaxWorkers must be greater than or equal to 1");
        let interval = config.container_log_monitor_interval;
        self.check(interval >= Span::seconds(3), format!("containerLogMonitorInterval must be a positive time duration greater than or equal to 3s, got {interval}"));
        let period = config.cpu_cfs_quota_period.0.as_millis();
        self.check(
            (1..=1000).contains(&period),
            "cpuCFSQuotaPeriod (--cpu-cfs-quota-period) must be between 1ms and 1sec, inclusive",
        );
        let restart = config.crash_loop_back_off.max_container_restart_period;
        self.check(
            (Span::seconds(1)..=Span::seconds(300)).contains(&restart),
            "crashLoopBackOff.maxContainerRestartPeriod must be between 1s and 300s",
        );
        self.check(
            config.max_parallel_image_pulls.is_none_or(|n| n >= 1 && (n == 1 || !config.serialize_image_pulls)),
            "maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) is false",
        );
        self.check(
            config.memory_throttling_factor > 0.0 && config.memory_throttling_factor <= 1.0,
            "memoryThrottlingFactor must be greater than 0 and less than or equal to 1.0",
        );
        for (name, bit) in
            [("iptablesMasqueradeBit", config.iptables_masquerade_bit), ("iptablesDropBit", config.iptables_drop_bit)]
        {
            self.check((0..=31).contains(&bit), format!("{name} must be between 0 and 31, inclusive"));
        }
        self.check(
            cpu_count(&config.reserved_system_cpus).is_some(),
            format!("unable to parse reservedSystemCPUs (--reserved-cpus) {}", config.reserved_system_cpus),
        );
    }

    fn user_namespaces(&mut self, config: &KubeletConfiguration) {
        let Some(ids) = config.user_namespaces.as_ref().map(|own| own.ids_per_pod).filter(|ids| *ids != 0) else {
            return;
        };
        self.check(
            ids > 0 && ids % 65_536 == 0 && u32::try_from(ids).is_ok(),
            format!("userNamespaces.idsPerPod: Invalid value: {ids}: must be a multiple of 65536 and fit in 32 bits"),
        );
    }

    fn shutdown(&mut self, config: &KubeletConfiguration) {
        let (zero, second) = (Span::seconds(0), Span::seconds(1));
        let (all, critical) = (config.shutdown_grace_period, config.shutdown_grace_period_critical_pods);
        self.check(
            critical <= all,
            format!("shutdownGracePeriodCriticalPods {critical} must be <= shutdownGracePeriod {all}"),
        );
        for (name, period) in [("shutdownGracePeriod", all), ("shutdownGracePeriodCriticalPods", critical)] {
            let ok = period == zero || period >= second;
            self.check(ok, format!("{name} {period} must be either zero or otherwise >= 1 sec"));
        }
        let by_priority = &config.shutdown_grace_period_by_pod_priority;
        let features = Features::of(&gates(config));
        self.check(
            features.shutdown || (all == zero && critical == zero),
            "specifying shutdownGracePeriod or shutdownGracePeriodCriticalPods requires feature gate GracefulNodeShutdown",
        );
        self.check(
            features.shutdown_by_priority || by_priority.is_empty(),
            "specifying shutdownGracePeriodByPodPriority requires feature gate GracefulNodeShutdownBasedOnPodPriority",
        );
        self.check(
            features.restart_period || config.crash_loop_back_off.max_container_restart_period == Span::seconds(300),
            "feature gate KubeletCrashLoopBackOffMax is required for crashLoopBackOff.maxContainerRestartPeriod",
        );
        self.check(
            by_priority.is_empty() || (all == zero && critical == zero),
            "Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time",
        );
        for one in by_priority {
            let seconds = one.shutdown_grace_period_seconds;
            self.check(
                seconds >= 0,
                format!("shutdownGracePeriodSeconds of priority {} must not be a negative number", one.priority),
            );
        }
    }

    /// Fields with a few legal values.
    fn choices(&mut self, config: &KubeletConfiguration) {
        let topology = &["none", "best-effort", "restricted", "single-numa-node"];
        let choices: [(&str, &str, &[&str]); 10] = [
            (
                "configMapAndSecretChangeDetectionStrategy",
                &config.config_map_and_secret_change_detection_strategy,
                &["Watch", "Cache", "Get"],
            ),
            ("memoryManagerPolicy (--memory-manager-policy)", &config.memory_manager_policy, &["None", "Static"]),
            ("cpuManagerPolicy (--cpu-manager-policy)", &config.cpu_manager_policy, &["none", "static"]),
            ("topologyManagerPolicy (--topology-manager-policy)", &config.topology_manager_policy, topology),
            ("cgroupDriver (--cgroup-driver)", &config.cgroup_driver, &["cgroupfs", "systemd"]),
            ("authorization.mode", &config.authorization.mode, &["AlwaysAllow", "Webhook"]),
            ("hairpinMode (--hairpin-mode)", &config.hairpin_mode, &["none", "hairpin-veth", "promiscuous-bridge"]),
            ("topologyManagerScope (--topology-manager-scope)", &config.topology_manager_scope, &["container", "pod"]),
            ("memorySwap.swapBehavior", &config.memory_swap.swap_behavior, &["", "NoSwap", "LimitedSwap"]),
            ("showHiddenMetricsForVersion", &config.show_hidden_metrics_for_version, &["", "1.35"]),
        ];
        for (name, value, legal) in choices {
            self.check(legal.contains(&value), format!("{name} {value:?} must be one of {legal:?}"));
        }
        let gates = gates(config);
        self.0.extend(crate::cpus::check_options(config, |gate| gates.enabled(gate)));
        let options = config.topology_manager_policy_options.iter();
        self.0.extend(options.filter_map(|(name, value)| crate::allot::check_option(name, value)));
        self.check(
            config.reserved_memory.is_empty() || config.memory_manager_policy == "Static",
            "reservedMemory (--reserved-memory) needs the Static memoryManagerPolicy",
        );
        let enforced = &config.enforce_node_allocatable;
        let legal = ["pods", "system-reserved", "kube-reserved", "none", ""];
        for what in enforced.iter().filter(|what| !legal.contains(&what.as_str())) {
            self.check(
                false,
                format!(
                    "option {what:?} specified for enforceNodeAllocatable (--enforce-node-allocatable) is not valid"
                ),
            );
        }
        let has = |what: &str| enforced.iter().any(|one| one == what);
        self.check(!has("none") || enforced.len() == 1, "enforceNodeAllocatable (--enforce-node-allocatable) may not contain additional enforcements when none is specified");
        for (what, group, name) in [
            ("system-reserved", &config.system_reserved_cgroup, "systemReservedCgroup (--system-reserved-cgroup)"),
            ("kube-reserved", &config.kube_reserved_cgroup, "kubeReservedCgroup (--kube-reserved-cgroup)"),
        ] {
            self.check(!has(what) || !group.is_empty(), format!("{name} must be specified when {what:?} is contained in enforceNodeAllocatable (--enforce-node-allocatable)"));
        }
        self.check(config.cgroups_per_qos || !has("pods"), "enforceNodeAllocatable (--enforce-node-allocatable) is not supported unless cgroupsPerQOS (--cgroups-per-qos) is set to true");
        self.check(
            config.enable_system_log_handler || !config.enable_system_log_query,
            "enableSystemLogHandler is required for enableSystemLogQuery",
        );
        self.check(
            config.system_cgroups.is_empty() || !config.cgroup_root.is_empty(),
            "systemCgroups (--system-cgroups) was specified and cgroupRoot (--cgroup-root) was not specified",
        );
        for (name, path) in [("systemCgroups", &config.system_cgroups), ("kubeletCgroups", &config.kubelet_cgroups)] {
            let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
            let ok = path.is_empty() || (parts.peek().is_some() && parts.all(|part| part != "." && part != ".."));
            self.check(ok, format!("{name} {path:?} must be the path of a control group below the root"));
        }
        self.check(
            config.static_pod_path.is_empty() || config.static_pod_path.starts_with('/'),
            "staticPodPath must be an absolute path",
        );
    }

    /// What this kubelet cannot do.
    fn unsupported(&mut self, config: &KubeletConfiguration) {
        let default = KubeletConfiguration::default();
        for (asked, what) in [
            (config.run_once, "runOnce (--runonce)"),
            (!config.qos_reserved.is_empty(), "qosReserved (--qos-reserved), whose feature gate QOSReserved is off,"),
            (config.memory_reservation_policy != "None", "a memoryReservationPolicy other than \"None\""),
            (
                config.volume_plugin_dir != default.volume_plugin_dir,
                "a volumePluginDir (--volume-plugin-dir) for FlexVolume plugins",
            ),
            (
                !matches!(
                    config.content_type.as_str(),
                    "" | "application/json" | "application/vnd.kubernetes.protobuf"
                ),
                "this contentType (--kube-api-content-type)",
            ),
        ] {
            self.check(!asked, format!("{what} is not supported"));
        }
    }
}

/// How many cpus a list such as `0-3,8` names; `None` if it is no such list.
pub(super) fn cpu_count(list: &str) -> Option<usize> {
    let mut named = std::collections::BTreeSet::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        if first > last {
            return None;
        }
        named.extend(first..=last);
    }
    Some(named.len())
}
