//! Everything a Pod's worker calls.

use std::sync::Arc;

use jiff::Timestamp;

use spans::Tracer;

use crate::admission::Allowlist;
use crate::allot::Allotter;
use crate::backoff::BackOff;
use crate::claims::Claims;
use crate::config::KubeletConfiguration;
use crate::cri::Cri;
use crate::csi::Csi;
use crate::events::Events;
use crate::hooks::Hooks;
use crate::images::Images;
use crate::node::SharedFacts;
use crate::node::status::SharedPressure;
use crate::objects::Objects;
use crate::paths::Paths;
use crate::platform::Platform;
use crate::probes::Probes;
use crate::resize::Resizes;
use crate::runtime_health::RuntimeHealth;
use crate::shutdown::Shutdown;
use crate::spec::Settings;
use crate::start_times::StartTimes;
use crate::status::StatusStore;
use crate::user_namespaces::UserNamespaces;
use crate::volumes::Volumes;

/// One container of one Pod, as restarts are counted: `(Pod UID, container, image and resources)`.
pub type RestartKey = (String, String, String);

/// The parts of one kubelet.
pub struct Services {
    /// Container runtime.
    pub cri: Cri,
    /// The runtime's name, scheme of container ids.
    pub runtime_name: String,
    /// State of the runtime.
    pub health: Arc<RuntimeHealth>,
    /// Operating system.
    pub platform: Arc<dyn Platform>,
    /// Directories.
    pub paths: Paths,
    /// Configuration.
    pub config: Arc<KubeletConfiguration>,
    /// Settings that shape containers.
    pub settings: Settings,
    /// Facts about the node.
    pub facts: SharedFacts,
    /// What is short on the node.
    pub pressure: SharedPressure,
    /// Whether the machine is going down.
    pub shutdown: Shutdown,
    /// Kernel parameters that Pods may set.
    pub sysctls: Allowlist,
    /// API objects.
    pub objects: Arc<dyn Objects>,
    /// Events.
    pub events: Events,
    /// Images.
    pub images: Images,
    /// What containers have for themselves.
    pub allot: Allotter,
    /// Dynamic resources.
    pub claims: Arc<Claims>,
    /// Storage drivers.
    pub csi: Arc<Csi>,
    /// Volumes.
    pub volumes: Volumes,
    /// What Pods were given, and what they have.
    pub resizes: Resizes,
    /// User ids of Pods.
    pub user_namespaces: UserNamespaces,
    /// Probes.
    pub probes: Arc<Probes>,
    /// Hooks.
    pub hooks: Hooks,
    /// Statuses.
    pub statuses: Arc<StatusStore>,
    /// Begins traces.
    pub tracer: Tracer,
    /// How long Pods take to start.
    pub starts: Arc<StartTimes>,
    /// Waiting between restarts.
    pub restarts: BackOff<RestartKey>,
    /// When this kubelet began.
    pub started: Timestamp,
}
