//! The loop that takes Pods from the queue, and the state that it shares with the watches.
//!
//! One lock guards the state. A cycle holds it from the Pod to the node and never waits inside; what waits (bindings,
//! status, events, deletions) runs in tasks of its own, of which there is a bounded number.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use controller::Informer;
use parking_lot::Mutex;
use runtime::{clock::Clock, tasks::TaskGroup};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::{
    api::Api,
    bind::Binding,
    cluster::Cluster,
    config::Point,
    cycle::{Chosen, Cycle},
    devices::DevicePlan,
    events::ClusterEvent,
    extenders::Extenders,
    framework::{Diagnosis, PluginId, Profile},
    memo::Memos,
    meter::{Meter, Status},
    metrics::{Attempt, Metrics},
    nominations::Nominations,
    objects::{DisruptionBudgetView, PodView},
    plugins::{
        default_preemption::{self, Candidate, Fruitless, Plan, Preemption},
        volumes::VolumePlan,
    },
    queue::{Judge, PodQueue, Waiting},
    record::{Recorder, Told},
    report::{Nominate, Report},
};

/// Bindings, reports and preemptions under way at once; each may take a connection of its own.
const IN_FLIGHT: usize = 96;
/// How often Pods that wait for too long are looked for.
const FLUSH_EVERY: Duration = Duration::from_secs(30);

/// The profiles by scheduler name.
#[derive(Clone)]
pub(crate) struct Profiles {
    by_name: Arc<HashMap<Box<str>, Profile>>,
    metrics: Metrics,
}

impl Profiles {
    pub(crate) fn new(profiles: Vec<Profile>, metrics: Metrics) -> Self {
        let named = profiles.into_iter().map(|p| (p.scheduler_name.as_str().into(), p));
        Self { by_name: Arc::new(named.collect()), metrics }
    }

    /// The profile of a Pod; `None` if another scheduler is to place it.
    pub(crate) fn of(&self, pod: &PodView) -> Option<&Profile> {
        self.by_name.get(&pod.template.scheduler_name)
    }
}

impl Judge for Profiles {
    fn gate(&self, pod: &PodView) -> Option<PluginId> {
        let profile = self.of(pod)?;
        let (meter, began) = (Meter::new(), Instant::now());
        let status = |is_open: &bool| if *is_open { Status::Success } else { Status::Unresolvable };
        let closed = profile
            .gates()
            .find(|(plugin, gate)| !meter.plugin(*plugin, Point::PreEnqueue, status, || gate.is_open(pod)));
        meter.point(Point::PreEnqueue, status(&closed.is_none()), began.elapsed());
        meter.tell(&self.metrics, &profile.scheduler_name);
        closed.map(|(plugin, _)| plugin)
    }

    fn may_help(&self, plugin: PluginId, pod: &PodView, event: &ClusterEvent<'_>) -> bool {
        let Some(found) = self.of(pod).and_then(|p| p.find(plugin)) else { return true };
        let began = Instant::now();
        let helps = found.may_help(pod, event);
        self.metrics.hinted(plugin, event.label(), helps, began.elapsed());
        helps
    }
}

/// What cycles and watches share.
pub(crate) struct State {
    pub(crate) cluster: Cluster,
    pub(crate) queue: PodQueue,
    pub(crate) nominations: Nominations,
    /// Pods that are being preempted and may not show it yet.
    pub(crate) doomed: HashSet<Arc<str>>,
    pub(crate) memos: Memos,
    /// Where the next search for nodes begins.
    pub(crate) start: usize,
}

impl State {
    pub(crate) fn new(queue: PodQueue) -> Self {
        Self {
            cluster: Cluster::default(),
            queue,
            nominations: Nominations::default(),
            doomed: HashSet::new(),
            memos: Memos::default(),
            start: 0,
        }
    }
}

/// What the tasks of the scheduler work with.
pub(crate) struct Shared {
    pub(crate) state: Mutex<State>,
    /// Told when there may be something in the queue.
    pub(crate) wake: Notify,
    pub(crate) profiles: Profiles,
    pub(crate) api: Api,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Metrics,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) budgets: Informer<DisruptionBudgetView>,
    pub(crate) tasks: TaskGroup,
    pub(crate) extenders: Extenders,
}

impl Shared {
    pub(crate) fn now(&self) -> Duration {
        self.clock.elapsed()
    }

    pub(crate) fn tell(
        &self,
        pod: &Arc<PodView>,
        kind: &'static str,
        reason: &'static str,
        action: &'static str,
        note: String,
    ) {
        self.recorder.record(Told {
            about: Arc::clone(pod),
            related: None,
            kind,
            reason,
            action,
            note,
            scheduler: Arc::from(&*pod.template.scheduler_name),
        });
    }

    /// Brings the gauges up to date.
    pub(crate) fn measure(&self) {
        let state = self.state.lock();
        for (queue, pods) in state.queue.sizes() {
            self.metrics.set_pending(queue, pods);
        }
        let (pods, assumed) = state.cluster.pod_counts();
        self.metrics.set_cache("nodes", state.cluster.nodes.len());
        self.metrics.set_cache("pods", pods);
        self.metrics.set_cache("assumed_pods", assumed);
        let counts = state.queue.rejections();
        self.metrics.set_in_flight(state.queue.in_flight());
        drop(state);
        let counts = counts.iter().map(|((plugin, profile), n)| (plugin.name(), &**profile, *n));
        self.metrics.set_unschedulable(counts);
    }
}

/// What to do after looking into the queue.
enum Next<'a> {
    /// A Pod was tried.
    Again,
    /// Extenders have a say in where a Pod goes.
    Ask(&'a Profile, Box<Waiting>, Duration, OwnedSemaphorePermit),
    /// Nothing to do for so long, if nothing happens.
    Wait(Option<Duration>),
}

/// Where room can be made for a Pod, or why nowhere.
pub(crate) type Victims = Result<Vec<Candidate>, Fruitless>;

/// A decision that is to be carried out.
pub(crate) enum Decision {
    Bind(Binding),
    Report(Report),
    Nothing,
}

/// The scheduling loop.
#[derive(Clone)]
pub(crate) struct Scheduler {
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
}

impl Scheduler {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, slots: Arc::new(Semaphore::new(IN_FLIGHT)) }
    }

    /// Schedules until `stop`.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let flush = self.flush();
        let schedule = self.schedule();
        stop.run_until_cancelled(async { tokio::join!(flush, schedule) }).await;
    }

    async fn flush(&self) {
        loop {
            self.shared.clock.sleep(FLUSH_EVERY).await;
            let now = self.shared.now();
            self.shared.state.lock().queue.flush(&self.shared.profiles, now);
            self.shared.wake.notify_one();
        }
    }

    async fn schedule(&self) {
        loop {
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return };
            match self.next(slot) {
                Next::Ask(profile, waiting, began, slot) => self.extended(profile, *waiting, began, slot).await,
                Next::Again => tokio::task::yield_now().await,
                Next::Wait(None) => self.shared.wake.notified().await,
                Next::Wait(Some(time)) => {
                    tokio::select! {
                        () = self.shared.wake.notified() => {}
                        () = self.shared.clock.sleep(time) => {}
                    }
                }
            }
        }
    }

    /// Tries the next Pod.
    fn next(&self, slot: OwnedSemaphorePermit) -> Next<'_> {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        let now = shared.now();
        let Some(waiting) = state.queue.pop(now) else {
            return Next::Wait(state.queue.next_due().map(|at| at.saturating_sub(now)));
        };
        let pod = Arc::clone(&waiting.pod);
        let Some(profile) = shared.profiles.of(&pod) else {
            state.queue.remove(&pod.uid);
            return Next::Again;
        };
        if pod.terminating {
            state.queue.remove(&pod.uid);
            drop(state);
            let note = format!("skip schedule deleting pod: {}", pod.full_name());
            shared.tell(&pod, "Warning", "FailedScheduling", "Scheduling", note);
            return Next::Again;
        }
        if state.cluster.is_assumed(&pod.uid) {
            state.queue.remove(&pod.uid);
            return Next::Again;
        }
        if shared.extenders.concern(&pod) {
            state.queue.asks_others(&pod.uid);
            return Next::Ask(profile, Box::new(waiting), now, slot);
        }
        let decision = self.decide(&mut state, profile, waiting, now);
        drop(state);
        self.carry_out(decision, slot);
        Next::Again
    }

    fn decide(&self, state: &mut State, profile: &Profile, waiting: Waiting, began: Duration) -> Decision {
        let shared = &self.shared;
        let pod = Arc::clone(&waiting.pod);
        let mut random = rand::rng();
        let meter = Meter::new();
        let State { cluster, nominations, memos, start, .. } = state;
        let outcome = Cycle { profile, cluster, nominations, memos, start, meter: &meter }.run(&pod, &mut random);
        let took = shared.now().saturating_sub(began);
        shared.metrics.computed(took);
        let decision = match outcome {
            Ok(chosen) => self.place(state, profile, waiting, chosen, began, &meter),
            Err(diagnosis) => {
                let report = self.reject(state, profile, &waiting, *diagnosis, None, &meter);
                let took = shared.now().saturating_sub(began);
                shared.metrics.attempted(&profile.scheduler_name, Attempt::Unschedulable, took);
                Decision::Report(report)
            }
        };
        meter.tell(&shared.metrics, &profile.scheduler_name);
        decision
    }

    pub(crate) fn place(
        &self,
        state: &mut State,
        profile: &Profile,
        waiting: Waiting,
        chosen: Chosen,
        began: Duration,
        meter: &Meter,
    ) -> Decision {
        let pod = Arc::clone(&waiting.pod);
        let node = Arc::clone(state.cluster.nodes.name(chosen.node));
        let reserving = Instant::now();
        let reserved = reserve(profile, &pod, &state.cluster, chosen, meter);
        let status = if reserved.is_some() { Status::Success } else { Status::Unschedulable };
        meter.point(Point::Reserve, status, reserving.elapsed());
        let Some((volumes, devices)) = reserved else {
            // Another Pod was given them since the filters ran.
            state.queue.fail(&pod.uid, began);
            return Decision::Nothing;
        };
        // Nothing here has a say in it.
        meter.point(Point::Permit, Status::Success, Duration::ZERO);
        tracing::info!(
            v = 4,
            pod = %pod.full_name(),
            node = %node,
            evaluated = chosen.evaluated,
            feasible = chosen.feasible,
            "Attempting to bind pod to node"
        );
        state.cluster.assume(&pod, chosen.node);
        state.nominations.remove(&pod.uid);
        Decision::Bind(Binding { waiting, node, began, volumes, devices, sampled: meter.is_sampled() })
    }

    /// No node fits: looks for Pods to preempt, and puts the Pod back.
    /// `found` are the victims that extenders were asked about.
    pub(crate) fn reject(
        &self,
        state: &mut State,
        profile: &Profile,
        waiting: &Waiting,
        mut diagnosis: Diagnosis,
        found: Option<Victims>,
        meter: &Meter,
    ) -> Report {
        let began = Instant::now();
        let pod = &waiting.pod;
        let all = state.cluster.nodes.len();
        let mut nominate = Nominate::Keep;
        let mut plan = None;
        let mut told = Vec::new();
        let mut release = None;
        // A PreFilter that runs before DynamicResources has left it without knowledge of the Pod.
        let is_unknown = diagnosis.whole.is_some() && !diagnosis.plugins.contains(PluginId::DynamicResources);
        if profile.claims {
            let (text, freed) = match &profile.devices {
                _ if is_unknown => ("not found", None),
                Some((devices, _)) => {
                    let status = |(_, freed): &(_, Option<_>)| freed_status(freed.is_some());
                    let work = || devices.after_filters(pod, &diagnosis);
                    meter.plugin(PluginId::DynamicResources, Point::PostFilter, status, work)
                }
                None => (crate::devices::NO_CLAIMS, None),
            };
            told.push(text.to_owned());
            release = freed;
        }
        let may_preempt = all > 0 && !(profile.claims && is_unknown);
        if profile.preemption.is_some() && may_preempt {
            self.shared.metrics.preemption_tried();
            let status = |found: &Victims| freed_status(found.is_ok());
            let work = || found.unwrap_or_else(|| self.candidates(state, profile, pod, &diagnosis, meter));
            match meter.plugin(PluginId::DefaultPreemption, Point::PostFilter, status, work) {
                Ok(found) => plan = default_preemption::choose(found),
                Err(fruitless) => {
                    if matches!(fruitless, Fruitless::Nowhere(_)) {
                        nominate = Nominate::Nothing;
                    }
                    told.push(format!("preemption: {}", fruitless.text()));
                }
            }
        }
        meter.point(Point::PostFilter, freed_status(plan.is_some() || release.is_some()), began.elapsed());
        if plan.is_none() && all > 0 {
            diagnosis.after = told.join(", ");
        }
        let now = self.shared.now();
        state.queue.reject(&pod.uid, diagnosis.plugins, now);
        let preemption = plan.map(|p| {
            let name = Arc::clone(state.cluster.nodes.name(p.node));
            nominate = Nominate::Node(Arc::clone(&name));
            self.begin_preemption(state, pod, p, name)
        });
        match &nominate {
            Nominate::Keep => {}
            Nominate::Nothing => state.nominations.remove(&pod.uid),
            Nominate::Node(node) => state.nominations.set(pod, node),
        }
        let message = diagnosis.message(all);
        Report { pod: Arc::clone(pod), reason: "Unschedulable", message, nominate, preemption, release }
    }

    /// Nodes where other Pods could make room.
    pub(crate) fn candidates(
        &self,
        state: &mut State,
        profile: &Profile,
        pod: &Arc<PodView>,
        diagnosis: &Diagnosis,
        meter: &Meter,
    ) -> Victims {
        let Some(settings) = profile.preemption else { return Ok(Vec::new()) };
        let budgets: Vec<DisruptionBudgetView> = self.shared.budgets.list().iter().map(|b| b.view.clone()).collect();
        let State { cluster, nominations, doomed, .. } = state;
        let mut preemption = Preemption { settings, profile, cluster, nominations, doomed, budgets: &budgets, meter };
        preemption.candidates(pod, diagnosis, &mut rand::rng())
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn begin_preemption(
        &self,
        state: &mut State,
        pod: &Arc<PodView>,
        plan: Plan,
        node: Arc<str>,
    ) -> crate::preempt::Eviction {
        self.shared.metrics.preempted(plan.victims.len());
        let leaving = plan.victims.iter().filter(|v| !v.terminating).map(|v| Arc::clone(&v.uid));
        let before = state.doomed.len();
        state.doomed.extend(leaving);
        if state.doomed.len() > before {
            state.queue.preemption_began(&pod.uid);
        }
        let lower = |p: &&Arc<PodView>| p.priority() < pod.priority();
        let displaced: Vec<Arc<PodView>> = state.nominations.on(&node).iter().filter(lower).cloned().collect();
        displaced.iter().for_each(|p| state.nominations.remove(&p.uid));
        crate::preempt::Eviction { node, victims: plan.victims, displaced }
    }

    pub(crate) fn carry_out(&self, decision: Decision, slot: OwnedSemaphorePermit) {
        let shared = Arc::clone(&self.shared);
        match decision {
            Decision::Nothing => {}
            Decision::Bind(binding) => self.shared.tasks.spawn("binding", async move {
                binding.run(&shared, slot).await;
            }),
            Decision::Report(report) => self.shared.tasks.spawn("report", async move {
                report.run(&shared).await;
                drop(slot);
            }),
        }
    }
}

/// What is kept for a Pod on its node; `None` if it is there no more.
fn reserve(
    profile: &Profile,
    pod: &Arc<PodView>,
    cluster: &Cluster,
    chosen: Chosen,
    meter: &Meter,
) -> Option<(Option<VolumePlan>, Option<DevicePlan>)> {
    fn status<T>(plan: &Option<T>) -> Status {
        if plan.is_some() { Status::Success } else { Status::Unschedulable }
    }
    let volumes = match &profile.volumes {
        None => None,
        Some((storage, _)) => {
            let work = || storage.reserve(pod, cluster, chosen.node);
            Some(meter.plugin(PluginId::VolumeBinding, Point::Reserve, status, work)?)
        }
    };
    let devices = match &profile.devices {
        None => None,
        Some((devices, _)) => {
            let work = || devices.reserve(pod, cluster, chosen.node);
            let plan = meter.plugin(PluginId::DynamicResources, Point::Reserve, status, work);
            if let (None, Some(kept), Some((storage, _))) = (&plan, &volumes, &profile.volumes) {
                storage.release(kept);
            }
            Some(plan?)
        }
    };
    Some((volumes.filter(|plan| !plan.is_empty()), devices.filter(|plan| !plan.is_empty())))
}

/// How a PostFilter ended that made room, or none.
fn freed_status(made_room: bool) -> Status {
    if made_room { Status::Success } else { Status::Unschedulable }
}

/// Puts a Pod back whose binding failed.
pub(crate) fn take_back(shared: &Shared, pod: &Arc<PodView>) -> bool {
    let mut state = shared.state.lock();
    let now = shared.now();
    if state.cluster.forget(&pod.uid) {
        // The room that was taken for it is free again.
        state.queue.happened(&ClusterEvent::PodDeleted(pod), &shared.profiles, now);
    }
    let known = state.queue.get(&pod.uid).is_some();
    state.queue.fail(&pod.uid, now);
    drop(state);
    shared.wake.notify_one();
    known
}
