//! Health probes: one task per probe of a container, results by container id.
//!
//! A task knows its Pod only through [`PodState`], which the Pod's worker publishes; a changed result wakes that worker.

mod exchange;
pub mod exec;
pub mod grpc;
pub mod http;
mod runner;
pub mod tcp;
mod thread;
mod worker;

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

pub use runner::{Runner, resolve_port};
use thread::ProbeThread;

use crate::cri::PodView;
use crate::pods::{self, Role};
use crate::status::Readiness;
use crate::workers::plan::{Verdict, Verdicts};

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Restarts the container.
    Liveness,
    /// Takes it out of service.
    Readiness,
    /// Holds the other two back.
    Startup,
}

impl Kind {
    /// As messages and metrics name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
            Self::Startup => "Startup",
        }
    }

    fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
            Self::Startup => container.startup_probe.as_ref(),
        }
    }

    /// Before the first result.
    fn initial(self) -> Verdict {
        match self {
            Self::Liveness => Verdict::Success,
            Self::Readiness => Verdict::Failure,
            Self::Startup => Verdict::Unknown,
        }
    }
}

const KINDS: [Kind; 3] = [Kind::Liveness, Kind::Readiness, Kind::Startup];

/// What probes may know about their Pod.
#[derive(Clone, Debug)]
pub struct PodState {
    /// The Pod as last seen.
    pub pod: Arc<Pod>,
    /// The runtime's view.
    pub view: Arc<PodView>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
}

/// `(Pod UID, container, kind)`
type Key = (String, String, Kind);

struct Slot {
    task: AbortHandle,
    trigger: Arc<Notify>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Wakes a Pod's worker.
pub type Wake = Arc<dyn Fn(&str) + Send + Sync>;

/// All probes of the node.
pub struct Probes {
    runner: Arc<Runner>,
    wake: Wake,
    started: Timestamp,
    thread: ProbeThread,
    slots: Mutex<HashMap<Key, Slot>>,
    results: Mutex<HashMap<(String, Kind), Verdict>>,
}

impl Probes {
    /// Probes run by `runner`; `started` is when the kubelet began.
    pub fn new(runner: Runner, wake: Wake, started: Timestamp) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            runner: Arc::new(runner),
            wake,
            started,
            thread: ProbeThread::start()?,
            slots: Mutex::default(),
            results: Mutex::default(),
        }))
    }

    /// Starts the tasks of a Pod that are not yet there.
    pub fn register(self: &Arc<Self>, pod: &Pod, state: &watch::Receiver<Option<PodState>>) {
        let sidecars = pods::init_containers(pod).iter().filter(|container| pods::is_sidecar(container));
        for container in sidecars.chain(pods::containers(pod)) {
            for kind in KINDS.into_iter().filter(|kind| kind.of(container).is_some()) {
                let key = (pods::uid(pod).to_owned(), container.name.clone(), kind);
                self.slots.lock().entry(key).or_insert_with_key(|key| {
                    let trigger = Arc::new(Notify::new());
                    let worker = worker::Worker::new(self, key.clone(), Arc::clone(&trigger), state.clone());
                    Slot { task: self.thread.spawn(worker.run()), trigger }
                });
            }
        }
    }

    /// Ends liveness and startup probes of a Pod that is going away.
    pub fn stop_liveness(&self, uid: &str) {
        self.slots.lock().retain(|(owner, _, kind), _| owner != uid || *kind == Kind::Readiness);
    }

    /// Ends all probes of a Pod.
    pub fn remove(&self, uid: &str, view: Option<&PodView>) {
        self.slots.lock().retain(|(owner, _, _), _| owner != uid);
        if let Some(view) = view {
            let mut results = self.results.lock();
            for record in &view.containers {
                results.retain(|(id, _), _| *id != record.id);
            }
        }
    }

    fn result(&self, id: &str, kind: Kind) -> Option<Verdict> {
        self.results.lock().get(&(id.to_owned(), kind)).copied()
    }

    /// Sets a result and wakes the worker if it changed.
    fn set(&self, uid: &str, id: &str, kind: Kind, verdict: Verdict) {
        let old = self.results.lock().insert((id.to_owned(), kind), verdict);
        if old != Some(verdict) {
            (self.wake)(uid);
        }
    }

    fn forget_result(&self, id: &str) {
        let mut results = self.results.lock();
        results.retain(|(owner, _), _| owner != id);
    }

    /// Asks for a probe now.
    fn trigger(&self, uid: &str, container: &str, kind: Kind) {
        if let Some(slot) = self.slots.lock().get(&(uid.to_owned(), container.to_owned(), kind)) {
            slot.trigger.notify_one();
        }
    }

    /// The results as a Pod's decisions and status see them.
    pub fn of<'a>(&'a self, pod: &'a Pod, view: &'a PodView) -> PodProbes<'a> {
        PodProbes { probes: self, pod, view }
    }
}

/// One Pod's results.
pub struct PodProbes<'a> {
    probes: &'a Probes,
    pod: &'a Pod,
    view: &'a PodView,
}

impl PodProbes<'_> {
    fn container(&self, name: &str) -> Option<Container> {
        let (container, role) = pods::find_container(self.pod, name)?;
        matches!(role, Role::Regular | Role::Sidecar).then(|| container.into_owned())
    }

    fn by_id(&self, id: &str) -> Option<Container> {
        let record = self.view.containers.iter().find(|record| record.id == id)?;
        self.container(&record.name)
    }

    /// What the API said before this kubelet started, for containers older than that.
    fn before_restart(
        &self,
        name: &str,
        id: &str,
        read: impl Fn(&k8s_openapi::api::core::v1::ContainerStatus) -> bool,
    ) -> bool {
        let Some(record) = self.view.containers.iter().find(|record| record.id == id) else { return false };
        let limit = self.probes.started.as_nanosecond() - 10_000_000_000;
        if i128::from(record.started_at) > limit {
            return false;
        }
        let status = self.pod.status.as_ref();
        let lists = status.map(|status| [&status.container_statuses, &status.init_container_statuses]);
        let mut all = lists.into_iter().flatten().flatten().flatten();
        all.any(|found| {
            found.name == name && found.container_id.as_deref().is_some_and(|full| full.ends_with(id)) && read(found)
        })
    }
}

impl Verdicts for PodProbes<'_> {
    fn liveness(&self, id: &str) -> Verdict {
        match self.by_id(id).is_some_and(|container| container.liveness_probe.is_some()) {
            true => self.probes.result(id, Kind::Liveness).unwrap_or(Verdict::Success),
            false => Verdict::Success,
        }
    }

    fn startup(&self, id: &str) -> Verdict {
        let Some(container) = self.by_id(id).filter(|container| container.startup_probe.is_some()) else {
            return Verdict::Success;
        };
        match self.probes.result(id, Kind::Startup).unwrap_or(Verdict::Unknown) {
            Verdict::Unknown if self.before_restart(&container.name, id, |status| status.started == Some(true)) => {
                Verdict::Success
            }
            verdict => verdict,
        }
    }
}

impl Readiness for PodProbes<'_> {
    fn started(&self, name: &str, id: &str) -> bool {
        match self.container(name).is_some_and(|container| container.startup_probe.is_some()) {
            true => self.startup(id) == Verdict::Success,
            false => true,
        }
    }

    fn ready(&self, name: &str, id: &str) -> bool {
        if self.container(name).is_none_or(|container| container.readiness_probe.is_none()) {
            return true;
        }
        match self.probes.result(id, Kind::Readiness) {
            Some(verdict) => {
                if verdict != Verdict::Success {
                    self.probes.trigger(pods::uid(self.pod), name, Kind::Readiness);
                }
                verdict == Verdict::Success
            }
            None => self.before_restart(name, id, |status| status.ready),
        }
    }
}

impl PodProbes<'_> {
    fn is_started(&self, id: &str) -> bool {
        self.startup(id) == Verdict::Success
    }
}
