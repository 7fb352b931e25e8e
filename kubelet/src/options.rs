//! Command line: the few flags that are not in the configuration file, and the many that may stand in for its fields.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use machinery::duration;
use runtime::ComponentInfo;
use serde_json::{Map, Value};

const NODE_IPS: &str = "must contain either a single IP or a dual-stack pair of IPs";

/// A command line that cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum OptionError {
    /// A value of the wrong form.
    #[error("invalid argument {value:?} for \"--{flag}\" flag: {problem}")]
    Value {
        /// Flag name.
        flag: String,
        /// What was given.
        value: String,
        /// What is wrong.
        problem: String,
    },
}

/// Flags of their own.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct KubeletFlags {
    pub config: Option<PathBuf>,
    pub config_dir: Option<PathBuf>,
    pub kubeconfig: Option<PathBuf>,
    pub bootstrap_kubeconfig: Option<PathBuf>,
    pub hostname_override: Option<String>,
    pub node_ip: Option<String>,
    pub cert_dir: PathBuf,
    pub cloud_provider: String,
    pub root_dir: PathBuf,
    pub node_labels: BTreeMap<String, String>,
    pub runtime_cgroups: String,
    pub credential_providers: Option<(PathBuf, PathBuf)>,
    pub lock_file: Option<PathBuf>,
    pub exit_on_lock_contention: bool,
    pub ignore_eviction_in_allocatable: bool,
    pub minimum_container_ttl: std::time::Duration,
    pub maximum_dead_containers_per_container: i32,
    pub maximum_dead_containers: i32,
    /// Values of flags that stand in for configuration fields, in the configuration's shape.
    pub overrides: Value,
}

/// Form of a flag's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Integer,
    Float,
    Bool,
    Span,
    List,
    Map,
    BoolMap,
    Thresholds,
    Headers,
    Taints,
    Memory,
}

use Form::{Bool, BoolMap, Float, Headers, Integer, List, Memory, Span, Taints, Text, Thresholds};

/// `(flag, JSON pointer into the configuration, form)`
const FIELDS: &[(&str, &str, Form)] = &[
    ("address", "/address", Text),
    ("allowed-unsafe-sysctls", "/allowedUnsafeSysctls", List),
    ("anonymous-auth", "/authentication/anonymous/enabled", Bool),
    ("authentication-token-webhook", "/authentication/webhook/enabled", Bool),
    ("authentication-token-webhook-cache-ttl", "/authentication/webhook/cacheTTL", Span),
    ("authorization-mode", "/authorization/mode", Text),
    ("authorization-webhook-cache-authorized-ttl", "/authorization/webhook/cacheAuthorizedTTL", Span),
    ("authorization-webhook-cache-unauthorized-ttl", "/authorization/webhook/cacheUnauthorizedTTL", Span),
    ("cgroup-driver", "/cgroupDriver", Text),
    ("cgroup-root", "/cgroupRoot", Text),
    ("cgroups-per-qos", "/cgroupsPerQOS", Bool),
    ("client-ca-file", "/authentication/x509/clientCAFile", Text),
    ("cluster-dns", "/clusterDNS", List),
    ("cluster-domain", "/clusterDomain", Text),
    ("container-log-max-files", "/containerLogMaxFiles", Integer),
    ("container-log-max-size", "/containerLogMaxSize", Text),
    ("container-runtime-endpoint", "/containerRuntimeEndpoint", Text),
    ("contention-profiling", "/enableContentionProfiling", Bool),
    ("cpu-cfs-quota", "/cpuCFSQuota", Bool),
    ("cpu-cfs-quota-period", "/cpuCFSQuotaPeriod", Span),
    ("cpu-manager-policy", "/cpuManagerPolicy", Text),
    ("cpu-manager-policy-options", "/cpuManagerPolicyOptions", Form::Map),
    ("cpu-manager-reconcile-period", "/cpuManagerReconcilePeriod", Span),
    ("enable-controller-attach-detach", "/enableControllerAttachDetach", Bool),
    ("enable-debugging-handlers", "/enableDebuggingHandlers", Bool),
    ("enable-server", "/enableServer", Bool),
    ("enforce-node-allocatable", "/enforceNodeAllocatable", List),
    ("event-burst", "/eventBurst", Integer),
    ("event-qps", "/eventRecordQPS", Integer),
    ("eviction-hard", "/evictionHard", Thresholds),
    ("eviction-max-pod-grace-period", "/evictionMaxPodGracePeriod", Integer),
    ("eviction-minimum-reclaim", "/evictionMinimumReclaim", Form::Map),
    ("eviction-pressure-transition-period", "/evictionPressureTransitionPeriod", Span),
    ("eviction-soft", "/evictionSoft", Thresholds),
    ("eviction-soft-grace-period", "/evictionSoftGracePeriod", Form::Map),
    ("fail-cgroupv1", "/failCgroupV1", Bool),
    ("fail-swap-on", "/failSwapOn", Bool),
    ("feature-gates", "/featureGates", BoolMap),
    ("file-check-frequency", "/fileCheckFrequency", Span),
    ("hairpin-mode", "/hairpinMode", Text),
    ("healthz-bind-address", "/healthzBindAddress", Text),
    ("healthz-port", "/healthzPort", Integer),
    ("http-check-frequency", "/httpCheckFrequency", Span),
    ("image-gc-high-threshold", "/imageGCHighThresholdPercent", Integer),
    ("image-gc-low-threshold", "/imageGCLowThresholdPercent", Integer),
    ("image-service-endpoint", "/imageServiceEndpoint", Text),
    ("kernel-memcg-notification", "/kernelMemcgNotification", Bool),
    ("kube-api-burst", "/kubeAPIBurst", Integer),
    ("kube-api-content-type", "/contentType", Text),
    ("kube-api-qps", "/kubeAPIQPS", Integer),
    ("kube-reserved", "/kubeReserved", Form::Map),
    ("kube-reserved-cgroup", "/kubeReservedCgroup", Text),
    ("kubelet-cgroups", "/kubeletCgroups", Text),
    ("local-storage-capacity-isolation", "/localStorageCapacityIsolation", Bool),
    ("make-iptables-util-chains", "/makeIPTablesUtilChains", Bool),
    ("manifest-url", "/staticPodURL", Text),
    ("manifest-url-header", "/staticPodURLHeader", Headers),
    ("max-open-files", "/maxOpenFiles", Integer),
    ("max-pods", "/maxPods", Integer),
    ("memory-manager-policy", "/memoryManagerPolicy", Text),
    ("minimum-image-ttl-duration", "/imageMinimumGCAge", Span),
    ("node-status-max-images", "/nodeStatusMaxImages", Integer),
    ("node-status-update-frequency", "/nodeStatusUpdateFrequency", Span),
    ("oom-score-adj", "/oomScoreAdj", Integer),
    ("pod-cidr", "/podCIDR", Text),
    ("pod-manifest-path", "/staticPodPath", Text),
    ("pod-max-pids", "/podPidsLimit", Integer),
    ("pods-per-core", "/podsPerCore", Integer),
    ("port", "/port", Integer),
    ("protect-kernel-defaults", "/protectKernelDefaults", Bool),
    ("provider-id", "/providerID", Text),
    ("qos-reserved", "/qosReserved", Form::Map),
    ("read-only-port", "/readOnlyPort", Integer),
    ("register-node", "/registerNode", Bool),
    ("register-with-taints", "/registerWithTaints", Taints),
    ("registry-burst", "/registryBurst", Integer),
    ("registry-qps", "/registryPullQPS", Integer),
    ("reserved-cpus", "/reservedSystemCPUs", Text),
    ("reserved-memory", "/reservedMemory", Memory),
    ("resolv-conf", "/resolvConf", Text),
    ("rotate-certificates", "/rotateCertificates", Bool),
    ("rotate-server-certificates", "/serverTLSBootstrap", Bool),
    ("runonce", "/runOnce", Bool),
    ("runtime-request-timeout", "/runtimeRequestTimeout", Span),
    ("seccomp-default", "/seccompDefault", Bool),
    ("serialize-image-pulls", "/serializeImagePulls", Bool),
    ("streaming-connection-idle-timeout", "/streamingConnectionIdleTimeout", Span),
    ("sync-frequency", "/syncFrequency", Span),
    ("system-cgroups", "/systemCgroups", Text),
    ("system-reserved", "/systemReserved", Form::Map),
    ("system-reserved-cgroup", "/systemReservedCgroup", Text),
    ("memory-throttling-factor", "/memoryThrottlingFactor", Float),
    ("tls-cert-file", "/tlsCertFile", Text),
    ("tls-cipher-suites", "/tlsCipherSuites", List),
    ("tls-min-version", "/tlsMinVersion", Text),
    ("tls-private-key-file", "/tlsPrivateKeyFile", Text),
    ("topology-manager-policy", "/topologyManagerPolicy", Text),
    ("topology-manager-policy-options", "/topologyManagerPolicyOptions", Form::Map),
    ("topology-manager-scope", "/topologyManagerScope", Text),
    ("volume-plugin-dir", "/volumePluginDir", Text),
    ("volume-stats-agg-period", "/volumeStatsAggPeriod", Span),
];

const DEPRECATED: &str = "This parameter should be set via the config file specified by the Kubelet's --config flag. See https://kubernetes.io/docs/tasks/administer-cluster/kubelet-config-file/ for more information.";
const GONE: &str = "will be removed in a future release.";

/// Fields whose flags are not deprecated.
const CURRENT: [&str; 3] = ["fail-cgroupv1", "provider-id", "seccomp-default"];

/// Deprecated flags that stand for no field.
const OLD: [(&str, &str); 5] = [
    ("experimental-mounter-path", "will be removed in 1.25 or later. in favor of using CSI."),
    ("experimental-allocatable-ignore-eviction", GONE),
    ("maximum-dead-containers", "Use --eviction-hard or --eviction-soft instead. Will be removed in a future version."),
    (
        "maximum-dead-containers-per-container",
        "Use --eviction-hard or --eviction-soft instead. Will be removed in a future version.",
    ),
    (
        "minimum-container-ttl-duration",
        "Use --eviction-hard or --eviction-soft instead. Will be removed in a future version.",
    ),
];

const fn deprecated() -> [(&'static str, &'static str); FIELDS.len() - CURRENT.len() + OLD.len()] {
    let mut all = [("", ""); FIELDS.len() - CURRENT.len() + OLD.len()];
    let (mut from, mut to) = (0, 0);
    while from < FIELDS.len() {
        if !is_current(FIELDS[from].0) {
            all[to] = (FIELDS[from].0, DEPRECATED);
            to += 1;
        }
        from += 1;
    }
    from = 0;
    while from < OLD.len() {
        all[to] = OLD[from];
        (from, to) = (from + 1, to + 1);
    }
    all
}

const fn is_current(flag: &str) -> bool {
    let mut index = 0;
    while index < CURRENT.len() {
        if same(CURRENT[index].as_bytes(), flag.as_bytes()) {
            return true;
        }
        index += 1;
    }
    false
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    let mut index = 0;
    while index < a.len() && index < b.len() && a[index] == b[index] {
        index += 1;
    }
    index == a.len() && index == b.len()
}

const ALL_DEPRECATED: &[(&str, &str)] = &deprecated();

/// The component.
pub const INFO: ComponentInfo = ComponentInfo {
    name: "kubelet",
    about: "The kubelet is the primary \"node agent\" that runs on each node.",
    deprecated: ALL_DEPRECATED,
};

impl Args for KubeletFlags {
    fn augment_args(command: Command) -> Command {
        let text =
            |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help).allow_hyphen_values(true);
        let mut command = command
            .arg(text("config", "The Kubelet will load its initial configuration from this file."))
            .arg(text("config-dir", "Path to a directory to specify drop-ins"))
            .arg(text("kubeconfig", "Path to a kubeconfig file, specifying how to connect to the API server. Omitting --kubeconfig enables standalone mode."))
            .arg(text("bootstrap-kubeconfig", "Path to a kubeconfig file that will be used to get client certificate for kubelet."))
            .arg(text("hostname-override", "If non-empty, will use this string as identification instead of the actual hostname."))
            .arg(text("node-ip", "IP address (or comma-separated dual-stack IP addresses) of the node."))
            .arg(text("cert-dir", "The directory where the TLS certs are located.").default_value("/var/lib/kubelet/pki"))
            .arg(text("cloud-provider", "The provider for cloud services. Set to empty string for running with no cloud provider, 'external' for an external one.").default_value(""))
            .arg(text("root-dir", "Directory path for managing kubelet files (volume mounts, etc).").default_value("/var/lib/kubelet"))
            .arg(text("node-labels", "Labels to add when registering the node in the cluster."))
            .arg(text("runtime-cgroups", "Optional absolute name of cgroups to create and run the runtime in.").default_value(""))
            .arg(text("image-credential-provider-config", "Path to a credential provider plugin config file."))
            .arg(text("image-credential-provider-bin-dir", "The path to the directory where credential provider plugin binaries are located."))
            .arg(text("lock-file", "The path to file for kubelet to use as a lock file."))
            .arg(flag("exit-on-lock-contention").help("Whether kubelet should exit upon lock-file contention."))
            .arg(text("experimental-mounter-path", "[Experimental] Path of mounter binary. Leave empty to use the default mount. Only plugins that are gone mounted through it.").default_value("mount"))
            .arg(flag("experimental-allocatable-ignore-eviction").help("When set to true, Hard Eviction Thresholds will be ignored while calculating Node Allocatable."))
            .arg(text("minimum-container-ttl-duration", "Minimum age for a finished container before it is garbage collected.").default_value("0s"))
            .arg(text("maximum-dead-containers-per-container", "Maximum number of old instances to retain per container.").default_value("1"))
            .arg(text("maximum-dead-containers", "Maximum number of old instances of containers to retain globally.").default_value("-1"));
        for (name, _, form) in FIELDS {
            let arg = if *form == Bool { flag(name) } else { text(name, DEPRECATED) };
            command = command.arg(arg.help(DEPRECATED).action(ArgAction::Append));
        }
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for KubeletFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        read(matches).map_err(|error| clap::Error::raw(clap::error::ErrorKind::Format, error))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// `--x`, `--x=true`, `--x=false`
fn flag(name: &'static str) -> Arg {
    Arg::new(name).long(name).num_args(0..=1).require_equals(true).default_missing_value("true")
}

/// Reads matches.
fn read(matches: &ArgMatches) -> Result<KubeletFlags, OptionError> {
    let text = |name: &str| matches.get_one::<String>(name).cloned().filter(|value| !value.is_empty());
    let path = |name: &str| text(name).map(PathBuf::from);
    let number = |name: &str| -> Result<i32, OptionError> {
        let value = text(name).unwrap_or_default();
        value.parse().map_err(|_| wrong(name, &value, "not a number"))
    };
    let switch = |name: &str| -> Result<bool, OptionError> {
        text(name)
            .map_or(Ok(false), |value| runtime::flags::boolean(&value).map_err(|problem| wrong(name, &value, &problem)))
    };
    let ttl = text("minimum-container-ttl-duration").unwrap_or_default();
    let ttl =
        crate::config::Span::parse(&ttl).map_err(|problem| wrong("minimum-container-ttl-duration", &ttl, &problem))?;
    let labels = text("node-labels").unwrap_or_default();
    let node_labels = pairs("node-labels", &labels, '=')?;
    if let Some(problem) = crate::node::labels::check(&node_labels) {
        return Err(wrong("node-labels", &labels, &problem));
    }
    let providers = ["image-credential-provider-config", "image-credential-provider-bin-dir"];
    if let [Some(_), None] | [None, Some(_)] = providers.map(text) {
        return Err(wrong(providers[0], "", "both flags of credential providers are needed"));
    }
    let mut flags = KubeletFlags {
        config: path("config"),
        config_dir: path("config-dir"),
        kubeconfig: path("kubeconfig"),
        bootstrap_kubeconfig: path("bootstrap-kubeconfig"),
        hostname_override: text("hostname-override"),
        node_ip: text("node-ip").map(node_ips).transpose()?,
        cert_dir: path("cert-dir").unwrap_or_default(),
        cloud_provider: text("cloud-provider").unwrap_or_default(),
        root_dir: path("root-dir").unwrap_or_default(),
        node_labels,
        runtime_cgroups: text("runtime-cgroups").unwrap_or_default(),
        credential_providers: path("image-credential-provider-config").zip(path("image-credential-provider-bin-dir")),
        lock_file: path("lock-file"),
        exit_on_lock_contention: switch("exit-on-lock-contention")?,
        ignore_eviction_in_allocatable: switch("experimental-allocatable-ignore-eviction")?,
        minimum_container_ttl: ttl.0,
        maximum_dead_containers_per_container: number("maximum-dead-containers-per-container")?,
        maximum_dead_containers: number("maximum-dead-containers")?,
        overrides: Value::Object(Map::new()),
    };
    flags.overrides = overrides(matches, flags.config.is_none())?;
    Ok(flags)
}

/// The addresses of the node that were given: one, or one of each family. What is no address does not count.
fn node_ips(text: String) -> Result<String, OptionError> {
    let ips: Vec<IpAddr> = text.split(',').filter_map(|ip| ip.trim().parse().ok()).collect();
    match ips.as_slice() {
        [] | [_] => Ok(text),
        [first, second] if first.is_ipv4() == second.is_ipv4() => Err(wrong("node-ip", &text, NODE_IPS)),
        [_, _] if ips.iter().any(IpAddr::is_unspecified) => {
            Err(wrong("node-ip", &text, "dual-stack node IP cannot include '0.0.0.0' or '::'"))
        }
        [_, _] => Ok(text),
        _ => Err(wrong("node-ip", &text, NODE_IPS)),
    }
}

fn wrong(flag: &str, value: &str, problem: &str) -> OptionError {
    OptionError::Value { flag: flag.to_owned(), value: value.to_owned(), problem: problem.to_owned() }
}

/// Values of explicit flags as a patch; without a configuration file the flags' own, older defaults hold.
fn overrides(matches: &ArgMatches, without_file: bool) -> Result<Value, OptionError> {
    let mut patch = Value::Object(Map::new());
    if without_file {
        put(&mut patch, "/authentication/anonymous/enabled", Value::Bool(true));
        put(&mut patch, "/authentication/webhook/enabled", Value::Bool(false));
        put(&mut patch, "/authorization/mode", Value::from("AlwaysAllow"));
        put(&mut patch, "/readOnlyPort", Value::from(10255));
    }
    for (name, pointer, form) in FIELDS {
        if matches.value_source(name) != Some(ValueSource::CommandLine) {
            continue;
        }
        let values: Vec<String> = matches.get_many::<String>(name).into_iter().flatten().cloned().collect();
        put(&mut patch, pointer, convert(name, *form, &values)?);
    }
    Ok(patch)
}

fn put(target: &mut Value, pointer: &str, value: Value) {
    let mut at = target;
    for part in pointer.split('/').skip(1) {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Some(map) = at.as_object_mut() else { return };
        at = map.entry(part.to_owned()).or_insert(Value::Null);
    }
    *at = value;
}

fn convert(flag: &str, form: Form, values: &[String]) -> Result<Value, OptionError> {
    let last = values.last().cloned().unwrap_or_default();
    let fail = |problem: &str| Err(wrong(flag, &last, problem));
    Ok(match form {
        Text => Value::from(last),
        Integer => match last.parse::<i64>() {
            Ok(number) => Value::from(number),
            Err(_) => return fail("strconv.ParseInt: parsing failed: invalid syntax"),
        },
        Float => match last.parse::<f64>() {
            Ok(number) => Value::from(number),
            Err(_) => return fail("strconv.ParseFloat: parsing failed: invalid syntax"),
        },
        Bool => match last.to_ascii_lowercase().as_str() {
            "true" | "1" | "t" => Value::Bool(true),
            "false" | "0" | "f" => Value::Bool(false),
            _ => return fail("strconv.ParseBool: parsing failed: invalid syntax"),
        },
        Span => match duration::parse(&last) {
            Ok(_) => Value::from(last),
            Err(error) => return fail(&error.to_string()),
        },
        List => Value::from(
            values
                .iter()
                .flat_map(|value| value.split(','))
                .filter(|v| !v.is_empty())
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        ),
        Form::Map => serde_json::json!(pairs(flag, &values.join(","), '=')?),
        Thresholds => serde_json::json!(pairs(flag, &values.join(","), '<')?),
        BoolMap => {
            let mut gates = Map::new();
            for (gate, value) in pairs(flag, &values.join(","), '=')? {
                match value.to_ascii_lowercase().as_str() {
                    "true" => gates.insert(gate, Value::Bool(true)),
                    "false" => gates.insert(gate, Value::Bool(false)),
                    _ => return fail(&format!("invalid value of {gate}={value}, err: invalid syntax")),
                };
            }
            Value::Object(gates)
        }
        Headers => {
            let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for value in values {
                let Some((name, content)) = value.split_once(':') else {
                    return fail("malformed pair, expect string:string");
                };
                headers.entry(name.to_owned()).or_default().push(content.to_owned());
            }
            serde_json::json!(headers)
        }
        Taints => {
            let texts = values.iter().flat_map(|value| value.split(',')).filter(|text| !text.is_empty());
            let mut taints = Vec::new();
            for text in texts {
                let (left, effect) = text.rsplit_once(':').ok_or_else(|| wrong(flag, text, "invalid taint spec"))?;
                let (key, value) = left.split_once('=').unwrap_or((left, ""));
                if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
                    return fail(&format!("invalid taint effect: {effect}, unsupported taint effect"));
                }
                taints.push(serde_json::json!({ "key": key, "value": value, "effect": effect }));
            }
            Value::Array(taints)
        }
        Memory => {
            let mut out = Vec::new();
            for text in values.iter().flat_map(|value| value.split(';')) {
                let (node, limits) = text.split_once(':').ok_or_else(|| wrong(flag, text, "invalid format"))?;
                let node: i32 = node.parse().map_err(|_| wrong(flag, text, "invalid NUMA node"))?;
                out.push(serde_json::json!({ "numaNode": node, "limits": pairs(flag, limits, '=')? }));
            }
            Value::Array(out)
        }
    })
}

fn pairs(flag: &str, text: &str, separator: char) -> Result<BTreeMap<String, String>, OptionError> {
    let mut out = BTreeMap::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((key, value)) = part.split_once(separator) else {
            return Err(wrong(flag, text, "malformed pair, expect string=string"));
        };
        out.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn try_parse(args: &[&str]) -> Result<KubeletFlags, runtime::flags::FlagError> {
        let command_line = runtime::flags::CommandLine::new::<KubeletFlags>(INFO.name, INFO.about, INFO.deprecated);
        command_line.parse(args.iter().map(|arg| (*arg).to_owned())).map(|parsed| parsed.args)
    }

    fn parse(args: &[&str]) -> KubeletFlags {
        try_parse(args).unwrap()
    }

    #[test]
    fn addresses_of_the_node_are_of_two_families_at_most() {
        for (text, good) in [
            ("10.0.0.1", true),
            ("::", true),
            ("10.0.0.1,fd00::1", true),
            ("fd00::1, 10.0.0.1", true),
            ("10.0.0.1,10.0.0.2", false),
            ("10.0.0.1,::", false),
            ("10.0.0.1,fd00::1,10.0.0.3", false),
        ] {
            assert_eq!(try_parse(&[&format!("--node-ip={text}")]).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn flags_become_a_patch() {
        let flags = parse(&[
            "--config=/x",
            "--max-pods=5",
            "--rotate-certificates",
            "--fail-swap-on=false",
            "--eviction-hard=memory.available<1Gi,nodefs.available<10%",
            "--register-with-taints=a=b:NoSchedule,c:NoExecute",
            "--feature-gates=A=true,B=false",
            "--cluster-dns=10.0.0.1",
            "--node-labels=x=y",
        ]);
        let patch = &flags.overrides;
        assert_eq!(patch["maxPods"], 5);
        assert_eq!(patch["rotateCertificates"], true);
        assert_eq!(patch["failSwapOn"], false);
        assert_eq!(patch["evictionHard"]["memory.available"], "1Gi");
        assert_eq!(patch["registerWithTaints"][1]["effect"], "NoExecute");
        assert_eq!(patch["featureGates"]["B"], false);
        assert_eq!(patch["clusterDNS"][0], "10.0.0.1");
        assert_eq!(flags.node_labels["x"], "y");
        assert!(patch.pointer("/authorization/mode").is_none());
    }

    #[test]
    fn without_a_file_the_flags_defaults_hold() {
        let flags = parse(&[]);
        assert_eq!(flags.overrides.pointer("/authorization/mode").unwrap(), "AlwaysAllow");
        assert_eq!(flags.overrides["readOnlyPort"], 10255);
    }

    #[test]
    fn every_flag_names_a_field() {
        let known = serde_json::to_value(crate::config::KubeletConfiguration::default()).unwrap();
        for (flag, pointer, _) in FIELDS {
            assert!(known.pointer(pointer).is_some(), "{flag}");
        }
    }

    #[test]
    fn removed_and_wrong_flags_are_errors() {
        assert!(try_parse(&["--network-plugin=cni"]).is_err());
        assert!(try_parse(&["--pod-infra-container-image=x"]).is_err());
        let error = try_parse(&["--max-pods=many"]).unwrap_err().to_string();
        assert!(error.contains("invalid argument \"many\" for \"--max-pods\" flag"), "{error}");
    }

    #[test]
    fn what_the_file_has_is_deprecated() {
        assert!(INFO.deprecated.iter().any(|(flag, _)| *flag == "max-pods"));
        assert!(!INFO.deprecated.iter().any(|(flag, _)| CURRENT.contains(flag) || flag.is_empty()));
    }
}
