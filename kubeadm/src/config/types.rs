//! `kubeadm.k8s.io/v1beta4` as it stands in files.

use std::{collections::BTreeMap, fmt, time::Duration};

use machinery::duration::{self, GoDuration};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::Value;

/// Group and version of all kinds here.
pub const API_VERSION: &str = "kubeadm.k8s.io/v1beta4";

/// A duration in Go's notation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

impl Period {
    /// Whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Reads Go's notation; negative periods are refused.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parsed = duration::parse(text).map_err(|e| e.to_string())?;
        Duration::try_from(parsed).map(Self).map_err(|_| format!("negative duration {text:?}"))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = i64::try_from(self.0.as_nanos()).unwrap_or(i64::MAX);
        f.write_str(&duration::format(GoDuration(nanos)))
    }
}

impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

fn absent<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads `null` as the default.
fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

macro_rules! object {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident $(as $json:literal)? : $kind:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct $name {
            $(
                $(#[$field_doc])*
                #[serde(default, deserialize_with = "or_default", skip_serializing_if = "absent" $(, rename = $json)?)]
                pub $field: $kind,
            )*
        }
    };
}

object! {
    /// A name and its value: an argument of a component.
    Arg {
        /// Name without dashes.
        name: String,
        /// Value.
        value: String,
    }
}

object! {
    /// The timeouts of all kinds.
    Timeouts {
        /// Until a control plane component is healthy.
        control_plane_component_health_check: Option<Period>,
        /// Until the kubelet is healthy.
        kubelet_health_check: Option<Period>,
        /// One call of the API with its repetitions.
        kubernetes_api_call as "kubernetesAPICall": Option<Period>,
        /// One call of etcd with its repetitions.
        etcd_api_call as "etcdAPICall": Option<Period>,
        /// Until the kubelet has its certificate.
        tls_bootstrap: Option<Period>,
        /// Until the cluster is discovered.
        discovery: Option<Period>,
        /// Until upgraded manifests run.
        upgrade_manifests: Option<Period>,
    }
}

object! {
    /// A bootstrap token.
    BootstrapToken {
        /// `id.secret`.
        token: String,
        /// What it is for.
        description: String,
        /// How long it lives.
        ttl: Option<Period>,
        /// Until when it lives.
        expires: Option<String>,
        /// What it is good for.
        usages: Vec<String>,
        /// Groups of its bearer.
        groups: Vec<String>,
    }
}

/// A taint of a Node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Taint {
    /// What pods must not do.
    pub effect: String,
    /// Key.
    pub key: String,
    /// Value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// When a NoExecute taint came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_added: Option<String>,
}

/// How a node is registered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeRegistration {
    /// Name of the Node.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "absent")]
    pub name: String,
    /// Endpoint of the container runtime.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "absent")]
    pub cri_socket: String,
    /// Taints; `None` leaves them to the role of the node.
    #[serde(default)]
    pub taints: Option<Vec<Taint>>,
    /// More arguments of the kubelet.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "absent")]
    pub kubelet_extra_args: Vec<Arg>,
    /// Checks that only warn.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "absent")]
    pub ignore_preflight_errors: Vec<String>,
    /// When images are pulled.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "absent")]
    pub image_pull_policy: String,
    /// Whether images are pulled one after the other.
    #[serde(default, skip_serializing_if = "absent")]
    pub image_pull_serial: Option<bool>,
}

object! {
    /// Where the API server of this host listens.
    ApiEndpoint {
        /// Address.
        advertise_address: String,
        /// Port.
        bind_port: i32,
    }
}

object! {
    /// A directory of patches.
    Patches {
        /// Path.
        directory: String,
    }
}

object! {
    /// InitConfiguration.
    InitConfiguration {
        /// Tokens to create.
        bootstrap_tokens: Vec<BootstrapToken>,
        /// Only tell what would be done.
        dry_run: bool,
        /// The node.
        node_registration: NodeRegistration,
        /// Endpoint of this host.
        local_api_endpoint as "localAPIEndpoint": ApiEndpoint,
        /// Key that uploaded certificates are encrypted with.
        certificate_key: String,
        /// Phases to leave out.
        skip_phases: Vec<String>,
        /// Patches.
        patches: Option<Patches>,
        /// Timeouts.
        timeouts: Option<Timeouts>,
    }
}

object! {
    /// `upgrade apply`.
    UpgradeApply {
        /// The target.
        kubernetes_version: String,
        /// Alpha, beta and release candidates are allowed.
        allow_experimental_upgrades: Option<bool>,
        /// Release candidates are allowed.
        allow_rc_upgrades as "allowRCUpgrades": Option<bool>,
        /// Whether certificates are renewed; true by default.
        certificate_renewal: Option<bool>,
        /// Only tell what would be done.
        dry_run: Option<bool>,
        /// Whether etcd is upgraded; true by default.
        etcd_upgrade: Option<bool>,
        /// Go on against the version policy, and without a question.
        force_upgrade: Option<bool>,
        /// Checks that only warn.
        ignore_preflight_errors: Vec<String>,
        /// Patches.
        patches: Option<Patches>,
        /// Print the configuration of the cluster.
        print_config: Option<bool>,
        /// Phases to leave out.
        skip_phases: Vec<String>,
        /// When images are pulled.
        image_pull_policy: String,
        /// Whether images are pulled one after the other.
        image_pull_serial: Option<bool>,
    }
}

object! {
    /// `upgrade node`.
    UpgradeNode {
        /// Whether certificates are renewed; true by default.
        certificate_renewal: Option<bool>,
        /// Only tell what would be done.
        dry_run: Option<bool>,
        /// Whether etcd is upgraded; true by default.
        etcd_upgrade: Option<bool>,
        /// Checks that only warn.
        ignore_preflight_errors: Vec<String>,
        /// Phases to leave out.
        skip_phases: Vec<String>,
        /// Patches.
        patches: Option<Patches>,
        /// When images are pulled.
        image_pull_policy: String,
        /// Whether images are pulled one after the other.
        image_pull_serial: Option<bool>,
    }
}

object! {
    /// `upgrade plan`.
    UpgradePlan {
        /// The target.
        kubernetes_version: String,
        /// Alpha, beta and release candidates are allowed.
        allow_experimental_upgrades: Option<bool>,
        /// Release candidates are allowed.
        allow_rc_upgrades as "allowRCUpgrades": Option<bool>,
        /// Only tell what would be done.
        dry_run: Option<bool>,
        /// Whether etcd is upgraded; true by default.
        etcd_upgrade: Option<bool>,
        /// Checks that only warn.
        ignore_preflight_errors: Vec<String>,
        /// Print the configuration of the cluster.
        print_config: Option<bool>,
    }
}

object! {
    /// `upgrade diff`.
    UpgradeDiff {
        /// The target.
        kubernetes_version: String,
        /// Lines around a change.
        context_lines as "contextLines": i32,
    }
}

object! {
    /// UpgradeConfiguration.
    UpgradeConfiguration {
        /// `upgrade apply`.
        apply: UpgradeApply,
        /// `upgrade diff`.
        diff: UpgradeDiff,
        /// `upgrade node`.
        node: UpgradeNode,
        /// `upgrade plan`.
        plan: UpgradePlan,
        /// Timeouts.
        timeouts: Option<Timeouts>,
    }
}

object! {
    /// A host directory that a component mounts.
    HostPathMount {
        /// Name of the volume.
        name: String,
        /// Path on the host.
        host_path: String,
        /// Path in the container.
        mount_path: String,
        /// Whether it cannot be written.
        read_only: bool,
        /// Type of the host path.
        path_type: String,
    }
}

object! {
    /// The controller manager or the scheduler.
    ControlPlaneComponent {
        /// More arguments.
        extra_args: Vec<Arg>,
        /// More volumes.
        extra_volumes: Vec<HostPathMount>,
        /// More variables.
        extra_envs: Vec<Value>,
    }
}

object! {
    /// The API server.
    ApiServer {
        /// More arguments.
        extra_args: Vec<Arg>,
        /// More volumes.
        extra_volumes: Vec<HostPathMount>,
        /// More variables.
        extra_envs: Vec<Value>,
        /// More names of its certificate.
        cert_sans as "certSANs": Vec<String>,
    }
}

object! {
    /// Networks of the cluster.
    Networking {
        /// Addresses of Services.
        service_subnet: String,
        /// Addresses of Pods.
        pod_subnet: String,
        /// Domain of Services.
        dns_domain: String,
    }
}

object! {
    /// An etcd member on this host.
    LocalEtcd {
        /// Repository of its image.
        image_repository: String,
        /// Tag of its image.
        image_tag: String,
        /// Its data.
        data_dir: String,
        /// More arguments.
        extra_args: Vec<Arg>,
        /// More variables.
        extra_envs: Vec<Value>,
        /// More names of its serving certificate.
        server_cert_sans as "serverCertSANs": Vec<String>,
        /// More names of its peer certificate.
        peer_cert_sans as "peerCertSANs": Vec<String>,
    }
}

object! {
    /// An etcd cluster made by others.
    ExternalEtcd {
        /// gRPC endpoints.
        endpoints: Vec<String>,
        /// Endpoints of `/version`.
        http_endpoints as "httpEndpoints": Vec<String>,
        /// Its certificate authority.
        ca_file: String,
        /// Client certificate.
        cert_file: String,
        /// Key of it.
        key_file: String,
    }
}

object! {
    /// Where etcd is.
    Etcd {
        /// On this host.
        local: Option<LocalEtcd>,
        /// Elsewhere.
        external: Option<ExternalEtcd>,
    }
}

object! {
    /// The DNS addon.
    Dns {
        /// Repository of its image.
        image_repository: String,
        /// Tag of its image.
        image_tag: String,
        /// Whether it is left out.
        disabled: bool,
    }
}

object! {
    /// The kube-proxy addon.
    Proxy {
        /// Whether it is left out.
        disabled: bool,
    }
}

/// ClusterConfiguration. The components are written even when empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields carry the names of the file")]
pub struct ClusterConfiguration {
    #[serde(default, deserialize_with = "or_default")]
    pub etcd: Etcd,
    #[serde(default, deserialize_with = "or_default")]
    pub networking: Networking,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "absent")]
    pub kubernetes_version: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "absent")]
    pub control_plane_endpoint: String,
    #[serde(default, deserialize_with = "or_default")]
    pub api_server: ApiServer,
    #[serde(default, deserialize_with = "or_default")]
    pub controller_manager: ControlPlaneComponent,
    #[serde(default, deserialize_with = "or_default")]
    pub scheduler: ControlPlaneComponent,
    #[serde(default, deserialize_with = "or_default")]
    pub dns: Dns,
    #[serde(default, deserialize_with = "or_default")]
    pub proxy: Proxy,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "absent")]
    pub certificates_dir: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "absent")]
    pub image_repository: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "absent")]
    pub feature_gates: BTreeMap<String, bool>,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "absent")]
    pub cluster_name: String,
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "absent")]
    pub encryption_algorithm: String,
    #[serde(default, skip_serializing_if = "absent")]
    pub certificate_validity_period: Option<Period>,
    #[serde(default, skip_serializing_if = "absent")]
    pub ca_certificate_validity_period: Option<Period>,
}

object! {
    /// Discovery by a bootstrap token.
    TokenDiscovery {
        /// The token.
        token: String,
        /// `host:port` of an API server.
        api_server_endpoint as "apiServerEndpoint": String,
        /// Pins of the certificate authority.
        ca_cert_hashes: Vec<String>,
        /// Whether to go without pins.
        unsafe_skip_ca_verification as "unsafeSkipCAVerification": bool,
    }
}

object! {
    /// Discovery by a kubeconfig.
    FileDiscovery {
        /// Path or https URL.
        kube_config_path: String,
    }
}

object! {
    /// How the cluster is found and trusted.
    Discovery {
        /// By a token.
        bootstrap_token: Option<TokenDiscovery>,
        /// By a kubeconfig.
        file: Option<FileDiscovery>,
        /// Token of the kubelet's first request.
        tls_bootstrap_token: String,
    }
}

object! {
    /// A joining control plane.
    JoinControlPlane {
        /// Endpoint of this host.
        local_api_endpoint as "localAPIEndpoint": ApiEndpoint,
        /// Key that uploaded certificates are encrypted with.
        certificate_key: String,
    }
}

object! {
    /// JoinConfiguration.
    JoinConfiguration {
        /// Only tell what would be done.
        dry_run: bool,
        /// The node.
        node_registration: NodeRegistration,
        /// Where the certificate authority is put.
        ca_cert_path as "caCertPath": String,
        /// Discovery.
        discovery: Discovery,
        /// Present when a control plane joins.
        control_plane: Option<JoinControlPlane>,
        /// Phases to leave out.
        skip_phases: Vec<String>,
        /// Patches.
        patches: Option<Patches>,
        /// Timeouts.
        timeouts: Option<Timeouts>,
    }
}

object! {
    /// ResetConfiguration.
    ResetConfiguration {
        /// Empty `/etc/kubernetes/tmp` too.
        cleanup_tmp_dir: bool,
        /// Directory of certificates.
        certificates_dir: String,
        /// Endpoint of the container runtime.
        cri_socket: String,
        /// Only tell what would be done.
        dry_run: bool,
        /// Do not ask.
        force: bool,
        /// Checks that only warn.
        ignore_preflight_errors: Vec<String>,
        /// Phases to leave out.
        skip_phases: Vec<String>,
        /// Flags of umount2.
        unmount_flags: Vec<String>,
        /// Timeouts.
        timeouts: Option<Timeouts>,
    }
}
