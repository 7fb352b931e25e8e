//! Names and paths of a kubeadm cluster.

/// Directory of kubeconfig files.
pub const KUBERNETES_DIR: &str = "/etc/kubernetes";
/// Directory of static Pod manifests.
pub const MANIFESTS_DIR: &str = "/etc/kubernetes/manifests";
/// Directory of temporary files and backups.
pub const TMP_DIR: &str = "/etc/kubernetes/tmp";
/// Default of `certificatesDir`.
pub const PKI_DIR: &str = "/etc/kubernetes/pki";
/// The kubelet's state.
pub const KUBELET_DIR: &str = "/var/lib/kubelet";
/// The kubelet's configuration file.
pub const KUBELET_CONFIG: &str = "/var/lib/kubelet/config.yaml";
/// What of the kubelet's configuration belongs to this host.
pub const KUBELET_INSTANCE_CONFIG: &str = "/var/lib/kubelet/instance-config.yaml";
/// The kubelet's arguments.
pub const KUBELET_ENV: &str = "/var/lib/kubelet/kubeadm-flags.env";
/// Where an API server without etcd keeps its data.
pub const EMBEDDED_STORE_DIR: &str = "/var/lib/timonel";
/// Data of a local etcd.
pub const ETCD_DIR: &str = "/var/lib/etcd";

/// `admin.conf`.
pub const ADMIN_CONF: &str = "/etc/kubernetes/admin.conf";
/// `super-admin.conf`.
pub const SUPER_ADMIN_CONF: &str = "/etc/kubernetes/super-admin.conf";
/// `kubelet.conf`.
pub const KUBELET_CONF: &str = "/etc/kubernetes/kubelet.conf";
/// `bootstrap-kubelet.conf`.
pub const BOOTSTRAP_KUBELET_CONF: &str = "/etc/kubernetes/bootstrap-kubelet.conf";
/// `controller-manager.conf`.
pub const CONTROLLER_MANAGER_CONF: &str = "/etc/kubernetes/controller-manager.conf";
/// `scheduler.conf`.
pub const SCHEDULER_CONF: &str = "/etc/kubernetes/scheduler.conf";

/// Default image repository; images of this name are built from the installed programs.
pub const DEFAULT_REPOSITORY: &str = "registry.k8s.io";
/// Where packages install the programs that only run in containers.
pub const PROGRAMS_OF_CONTAINERS: &str = "/usr/libexec/timonel";
/// The default container runtime.
pub const DEFAULT_CRI_SOCKET: &str = "unix:///var/run/containerd/containerd.sock";
/// Sockets that are looked for.
pub const KNOWN_CRI_SOCKETS: [&str; 3] =
    [DEFAULT_CRI_SOCKET, "unix:///var/run/crio/crio.sock", "unix:///var/run/cri-dockerd.sock"];
/// Tag of the sandbox image.
pub const PAUSE_TAG: &str = "3.10.2";
/// Tag of CoreDNS.
pub const COREDNS_TAG: &str = "v1.14.2";
/// Tag of etcd.
pub const ETCD_TAG: &str = "3.6.8-0";

/// Group of nodes that join with a token.
pub const BOOTSTRAPPERS: &str = "system:bootstrappers:kubeadm:default-node-token";
/// Group of administrators.
pub const CLUSTER_ADMINS: &str = "kubeadm:cluster-admins";
/// Label and taint of control planes.
pub const CONTROL_PLANE_LABEL: &str = "node-role.kubernetes.io/control-plane";
/// Keeps load balancers away from control planes.
pub const EXCLUDE_LOAD_BALANCERS: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Marks a component configuration that kubeadm made.
pub const COMPONENT_HASH: &str = "kubeadm.kubernetes.io/component-config.hash";
/// Address of the API server of a Pod.
pub const ADVERTISE_ANNOTATION: &str = "kubeadm.kubernetes.io/kube-apiserver.advertise-address.endpoint";
/// Client URL of the etcd of a Pod.
pub const ETCD_ANNOTATION: &str = "kubeadm.kubernetes.io/etcd.advertise-client-urls";
