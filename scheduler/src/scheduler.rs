//! The loop that takes Pods from the queue, and the state that it shares with the watches.
//!
//! One lock guards the state. A cycle holds it from the Pod to the node and never waits inside; what waits (bindings,
//! status, events, deletions) runs in tasks of its own, of which there is a bounded number.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
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
    cycle::{Chosen, Cycle},
    events::ClusterEvent,
    extenders::Extenders,
    framework::{Diagnosis, PluginId, Profile},
    memo::Memos,
    metrics::{Attempt, Metrics},
    nominations::Nominations,
    objects::{DisruptionBudgetView, PodView},
    plugins::default_preemption::{self, Candidate, Fruitless, Plan, Preemption},
    queue::{Judge, PodQueue, Waiting},
    record::{Recorder, Told},
    report::{Nominate, Report},
};

/// Bindings, reports and preemptions under way at once; each may take a connection of its own.
const IN_FLIGHT: usize = 96;
/// How often Pods that wait for too long are looked for.
const FLUSH_EVERY: Duration = Duration::from_secs(30);

/// The profiles by scheduler name.
#[derive(Clone, Default)]
pub(crate) struct Profiles(Arc<HashMap<Box<str>, Profile>>);

impl Profiles {
    pub(crate) fn new(profiles: Vec<Profile>) -> Self {
        Self(Arc::new(profiles.into_iter().map(|p| (p.scheduler_name.as_str().into(), p)).collect()))
    }

    /// The profile of a Pod; `None` if another scheduler is to place it.
    pub(crate) fn of(&self, pod: &PodView) -> Option<&Profile> {
        self.0.get(&pod.template.scheduler_name)
    }
}

impl Judge for Profiles {
    fn gate(&self, pod: &PodView) -> Option<PluginId> {
        self.of(pod)?.gates().find(|(_, gate)| !gate.is_open(pod)).map(|(plugin, _)| plugin)
    }

    fn may_help(&self, plugin: PluginId, pod: &PodView, event: &ClusterEvent<'_>) -> bool {
        self.of(pod).and_then(|p| p.find(plugin)).is_none_or(|p| p.may_help(pod, event))
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
        let State { cluster, nominations, memos, start, .. } = state;
        let outcome = Cycle { profile, cluster, nominations, memos, start }.run(&pod, &mut random);
        let took = shared.now().saturating_sub(began);
        shared.metrics.computed(took);
        match outcome {
            Ok(chosen) => {
                shared.metrics.ran("Filter", "Success", &profile.scheduler_name, took);
                self.place(state, profile, waiting, chosen, began)
            }
            Err(diagnosis) => {
                shared.metrics.ran("Filter", "Unschedulable", &profile.scheduler_name, took);
                let report = self.reject(state, profile, &waiting, *diagnosis, None);
                let took = shared.now().saturating_sub(began);
                shared.metrics.attempted(&profile.scheduler_name, Attempt::Unschedulable, took);
                Decision::Report(report)
            }
        }
    }

    pub(crate) fn place(
        &self,
        state: &mut State,
        profile: &Profile,
        waiting: Waiting,
        chosen: Chosen,
        began: Duration,
    ) -> Decision {
        let pod = Arc::clone(&waiting.pod);
        let node = Arc::clone(state.cluster.nodes.name(chosen.node));
        let volumes = match &profile.volumes {
            None => None,
            Some((storage, _)) => match storage.reserve(&pod, &state.cluster, chosen.node) {
                Some(plan) => Some(plan).filter(|p| !p.is_empty()),
                None => {
                    // Another Pod was given the volumes since the filters ran.
                    state.queue.fail(&pod.uid, began);
                    return Decision::Nothing;
                }
            },
        };
        let devices = match &profile.devices {
            None => None,
            Some((devices, _)) => match devices.reserve(&pod, &state.cluster, chosen.node) {
                Some(plan) => Some(plan).filter(|p| !p.is_empty()),
                None => {
                    if let (Some(plan), Some((storage, _))) = (&volumes, &profile.volumes) {
                        storage.release(plan);
                    }
                    state.queue.fail(&pod.uid, began);
                    return Decision::Nothing;
                }
            },
        };
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
        Decision::Bind(Binding { waiting, node, began, volumes, devices })
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
    ) -> Report {
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
                Some((devices, _)) => devices.after_filters(pod, &diagnosis),
                None => (crate::devices::NO_CLAIMS, None),
            };
            told.push(text.to_owned());
            release = freed;
        }
        let may_preempt = all > 0 && !(profile.claims && is_unknown);
        if profile.preemption.is_some() && may_preempt {
            self.shared.metrics.preemption_tried();
            match found.unwrap_or_else(|| self.candidates(state, profile, pod, &diagnosis)) {
                Ok(found) => plan = default_preemption::choose(found),
                Err(fruitless) => {
                    if matches!(fruitless, Fruitless::Nowhere(_)) {
                        nominate = Nominate::Nothing;
                    }
                    told.push(format!("preemption: {}", fruitless.text()));
                }
            }
        }
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
    ) -> Victims {
        let Some(settings) = profile.preemption else { return Ok(Vec::new()) };
        let budgets: Vec<DisruptionBudgetView> = self.shared.budgets.list().iter().map(|b| b.view.clone()).collect();
        let State { cluster, nominations, doomed, .. } = state;
        let mut preemption = Preemption { settings, profile, cluster, nominations, doomed, budgets: &budgets };
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
