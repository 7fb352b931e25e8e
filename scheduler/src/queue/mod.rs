//! Pods that wait for a node.
//!
//! ```text
//!            add                    pop                        bound or gone
//!   (new) ---------> active ------------------> in flight ------------------> (out)
//!     |                ^  ^                      |      |
//!     | gates          |  | back-off over        |      | rejected
//!     v                |  +------- back-off <----+      v
//!   gated -------------+              ^   error      unschedulable
//!          gates gone                 +------ an event helps, or five minutes
//! ```

mod backoff;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

pub(crate) use backoff::BackoffTimes;

use crate::{
    events::ClusterEvent,
    framework::{PluginId, PluginSet},
    objects::PodView,
};

/// Where a Pod waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Active,
    Backoff,
    Unschedulable,
    Gated(PluginId),
    InFlight,
}

/// A Pod with its history.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) pod: Arc<PodView>,
    pub(crate) attempts: u32,
    /// When it was first tried.
    pub(crate) first_attempt: Option<Duration>,
    pub(crate) place: Place,
    /// Plugins that rejected it the last time; empty after an error.
    pub(crate) rejected_by: PluginSet,
    /// Attempts in which no node fitted, and attempts in a row that failed for other causes.
    unschedulable: u32,
    errors: u32,
    /// Since when it is where it is, for order and back-off.
    since: Duration,
    /// Its place among those of equal rank.
    rank: Rank,
    /// An event helped while something still held it back.
    released: bool,
    /// Plugins to which something happened while others were asked about the Pod: a rejection of theirs is out of date.
    missed: PluginSet,
}

impl Waiting {
    fn is_helped(&self, event: &ClusterEvent<'_>, judge: &dyn Judge) -> bool {
        self.rejected_by.iter().any(|p| judge.may_help(p, &self.pod, event))
    }
}

/// Order of trying: priority first, then who waits longer.
type Rank = (Reverse<i32>, Duration, u64);

/// What decides over a Pod in the queue: the plugins of its profile.
pub(crate) trait Judge {
    /// The plugin whose gate keeps the Pod out, if any.
    fn gate(&self, pod: &PodView) -> Option<PluginId>;
    /// Whether `plugin`, having rejected the Pod, takes an event for a reason to try again.
    fn may_help(&self, plugin: PluginId, pod: &PodView, event: &ClusterEvent<'_>) -> bool;
}

/// Counts a Pod that comes to a queue: name of the queue, name of the event.
pub(crate) type Incoming = Box<dyn Fn(&'static str, &str) + Send>;

/// See the module.
pub(crate) struct PodQueue {
    waiting: HashMap<Arc<str>, Waiting>,
    by_sequence: HashMap<u64, Arc<str>>,
    active: BTreeSet<Rank>,
    /// By expiry. Errors wait until then; others may be tried earlier if nothing else is to do.
    backoff: BTreeSet<(Duration, Rank)>,
    error_backoff: BTreeSet<(Duration, Rank)>,
    unschedulable: HashSet<Arc<str>>,
    /// How many of them each plugin rejected.
    rejected: HashMap<PluginId, usize>,
    /// Pods whose preemption is under way.
    preempting: HashSet<Arc<str>>,
    /// Pods in flight about which others are asked, while the cluster changes.
    asking: HashSet<Arc<str>>,
    /// Pods that the gate of a plugin keeps out until something happens that concerns the plugin.
    gated: HashSet<Arc<str>>,
    sequence: u64,
    times: BackoffTimes,
    /// Time after which an unschedulable Pod is tried again in any case.
    flush_after: Duration,
    incoming: Incoming,
}

impl PodQueue {
    pub(crate) fn new(times: BackoffTimes, flush_after: Duration, incoming: Incoming) -> Self {
        Self {
            waiting: HashMap::new(),
            by_sequence: HashMap::new(),
            active: BTreeSet::new(),
            backoff: BTreeSet::new(),
            error_backoff: BTreeSet::new(),
            unschedulable: HashSet::new(),
            rejected: HashMap::new(),
            preempting: HashSet::new(),
            asking: HashSet::new(),
            gated: HashSet::new(),
            sequence: 0,
            times,
            flush_after,
            incoming,
        }
    }

    /// Pods by queue: active, backoff, unschedulable, gated.
    pub(crate) fn sizes(&self) -> [(&'static str, usize); 4] {
        let gated = self.waiting.values().filter(|w| matches!(w.place, Place::Gated(_))).count();
        [
            ("active", self.active.len()),
            ("backoff", self.backoff.len() + self.error_backoff.len()),
            ("unschedulable", self.unschedulable.len()),
            ("gated", gated),
        ]
    }

    /// Pods that were taken out and are not decided.
    pub(crate) fn in_flight(&self) -> usize {
        self.waiting.values().filter(|w| w.place == Place::InFlight).count()
    }

    /// Unschedulable Pods by plugin that rejected them and scheduler name.
    pub(crate) fn rejections(&self) -> HashMap<(PluginId, Box<str>), usize> {
        let mut counts = HashMap::new();
        for waiting in self.unschedulable.iter().filter_map(|uid| self.waiting.get(uid)) {
            for plugin in waiting.rejected_by.iter() {
                *counts.entry((plugin, waiting.pod.template.scheduler_name.clone())).or_default() += 1;
            }
        }
        counts
    }

    pub(crate) fn get(&self, uid: &str) -> Option<&Waiting> {
        self.waiting.get(uid)
    }

    /// A Pod without a node came or changed.
    pub(crate) fn set(&mut self, pod: &Arc<PodView>, judge: &dyn Judge, now: Duration) {
        let Some(entry) = self.waiting.get_mut(&pod.uid) else {
            self.add(pod, judge, now);
            return;
        };
        let old = std::mem::replace(&mut entry.pod, Arc::clone(pod));
        match entry.place {
            Place::InFlight => self.missed_by(&pod.uid, &ClusterEvent::Own { old: &old, new: pod }, judge),
            Place::Active | Place::Backoff => {
                if old.priority() != pod.priority() {
                    self.rerank(&pod.uid);
                }
            }
            Place::Gated(_) => {
                if judge.gate(pod).is_none() {
                    self.activate(&pod.uid, "PodUpdate", now);
                }
            }
            Place::Unschedulable => {
                let event = ClusterEvent::Own { old: &old, new: pod };
                if entry.is_helped(&event, judge) {
                    self.release(&pod.uid, event.label(), judge, now);
                }
            }
        }
    }

    fn add(&mut self, pod: &Arc<PodView>, judge: &dyn Judge, now: Duration) {
        self.sequence += 1;
        let waiting = Waiting {
            pod: Arc::clone(pod),
            attempts: 0,
            first_attempt: None,
            place: Place::InFlight,
            rejected_by: PluginSet::default(),
            unschedulable: 0,
            errors: 0,
            since: now,
            rank: (Reverse(pod.priority()), now, self.sequence),
            released: false,
            missed: PluginSet::default(),
        };
        self.by_sequence.insert(self.sequence, Arc::clone(&pod.uid));
        self.waiting.insert(Arc::clone(&pod.uid), waiting);
        match judge.gate(pod) {
            None => self.activate(&pod.uid, "PodAdd", now),
            Some(plugin) => {
                (self.incoming)("gated", "PodAdd");
                self.put(&pod.uid, Place::Gated(plugin));
            }
        }
    }

    /// The Pod is bound, gone, or somebody else's.
    pub(crate) fn remove(&mut self, uid: &str) -> Option<Waiting> {
        self.take_out(uid);
        let gone = self.waiting.remove(uid)?;
        self.by_sequence.remove(&gone.rank.2);
        self.preempting.remove(uid);
        self.asking.remove(uid);
        Some(gone)
    }

    /// The next Pod to try.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<Waiting> {
        self.expire(now);
        let rank = match self.active.pop_first() {
            Some(rank) => rank,
            None => self.backoff.pop_first()?.1,
        };
        let uid = Arc::clone(self.by_sequence.get(&rank.2)?);
        let entry = self.waiting.get_mut(&uid)?;
        entry.place = Place::InFlight;
        entry.attempts += 1;
        entry.first_attempt.get_or_insert(now);
        entry.rejected_by = PluginSet::default();
        entry.released = false;
        entry.missed = PluginSet::default();
        Some(entry.clone())
    }

    /// Others are asked about a Pod in flight: what happens meanwhile is remembered.
    pub(crate) fn asks_others(&mut self, uid: &Arc<str>) {
        self.asking.insert(Arc::clone(uid));
    }

    /// Remembers whom an event concerns that happens while others are asked about a Pod.
    fn missed_by(&mut self, uid: &str, event: &ClusterEvent<'_>, judge: &dyn Judge) {
        if !self.asking.contains(uid) {
            return;
        }
        let Some(entry) = self.waiting.get_mut(uid) else { return };
        let all = PluginId::ALL.iter().copied().chain([PluginId::Extender]);
        let concerned = all.filter(|p| event.concerns(*p) && judge.may_help(*p, &entry.pod, event));
        entry.missed.extend(concerned);
    }

    /// When there will be something to pop though nothing happens; `None` for no such time.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        if !self.active.is_empty() || !self.backoff.is_empty() {
            return Some(Duration::ZERO);
        }
        self.error_backoff.first().map(|(at, _)| *at)
    }

    /// No node fitted; `plugins` said so.
    pub(crate) fn reject(&mut self, uid: &str, plugins: PluginSet, now: Duration) {
        self.asking.remove(uid);
        let Some(entry) = self.waiting.get_mut(uid) else { return };
        entry.unschedulable += 1;
        entry.errors = 0;
        entry.rejected_by = plugins;
        entry.since = now;
        let is_out_of_date = entry.missed.iter().any(|p| plugins.contains(p));
        if plugins.is_empty() || is_out_of_date {
            self.back_off(uid, "ScheduleAttemptFailure", now);
        } else {
            (self.incoming)("unschedulable", "ScheduleAttemptFailure");
            self.put(uid, Place::Unschedulable);
        }
    }

    /// The attempt failed for a cause that is not the Pod's.
    pub(crate) fn fail(&mut self, uid: &str, now: Duration) {
        self.asking.remove(uid);
        let Some(entry) = self.waiting.get_mut(uid) else { return };
        entry.errors += 1;
        entry.rejected_by = PluginSet::default();
        entry.since = now;
        self.back_off(uid, "ScheduleAttemptFailure", now);
    }

    /// Something happened: Pods that it may help are tried again.
    pub(crate) fn happened(&mut self, event: &ClusterEvent<'_>, judge: &dyn Judge, now: Duration) {
        self.open_gates(event, judge, now);
        if !self.asking.is_empty() {
            let asking: Vec<Arc<str>> = self.asking.iter().cloned().collect();
            asking.iter().for_each(|uid| self.missed_by(uid, event, judge));
        }
        // Most events concern none of the plugins that rejected anything.
        if !self.rejected.keys().any(|plugin| event.concerns(*plugin)) {
            return;
        }
        let helps = |uid: &&Arc<str>| self.waiting.get(&***uid).is_some_and(|w| w.is_helped(event, judge));
        let helped: Vec<Arc<str>> = self.unschedulable.iter().filter(helps).cloned().collect();
        for uid in helped {
            self.release(&uid, event.label(), judge, now);
        }
    }

    /// Lets Pods in whose gate an event has opened.
    fn open_gates(&mut self, event: &ClusterEvent<'_>, judge: &dyn Judge, now: Duration) {
        let opened = |uid: &&Arc<str>| {
            let Some(waiting) = self.waiting.get(&***uid) else { return false };
            let Place::Gated(plugin) = waiting.place else { return false };
            event.concerns(plugin)
                && judge.may_help(plugin, &waiting.pod, event)
                && judge.gate(&waiting.pod) != Some(plugin)
        };
        let opened: Vec<Arc<str>> = self.gated.iter().filter(opened).cloned().collect();
        for uid in opened {
            let Some(waiting) = self.waiting.get(&uid) else { continue };
            match judge.gate(&waiting.pod) {
                None => self.activate(&uid, event.label(), now),
                Some(plugin) => self.put(&uid, Place::Gated(plugin)),
            }
        }
    }

    /// Tries Pods again that wait for too long.
    pub(crate) fn flush(&mut self, judge: &dyn Judge, now: Duration) {
        let late =
            |uid: &&Arc<str>| self.waiting.get(&***uid).is_some_and(|w| now.saturating_sub(w.since) > self.flush_after);
        let due: Vec<Arc<str>> = self.unschedulable.iter().filter(late).cloned().collect();
        for uid in due {
            self.release(&uid, "UnschedulableTimeout", judge, now);
        }
    }

    /// There is a reason to try an unschedulable Pod again.
    fn release(&mut self, uid: &Arc<str>, event: &'static str, judge: &dyn Judge, now: Duration) {
        if !self.preempting.contains(uid) {
            self.retry(uid, event, judge, now);
        } else if let Some(entry) = self.waiting.get_mut(uid) {
            entry.released = true;
        }
    }

    /// From the unschedulable Pods to where it is tried again.
    fn retry(&mut self, uid: &Arc<str>, event: &'static str, judge: &dyn Judge, now: Duration) {
        let Some(entry) = self.waiting.get(uid) else { return };
        if let Some(plugin) = judge.gate(&entry.pod) {
            self.put(uid, Place::Gated(plugin));
        } else if self.times.expiry(entry.since, entry.unschedulable, entry.errors) > now {
            self.back_off(uid, event, now);
        } else {
            self.activate(uid, event, now);
        }
    }

    /// A preemption for the Pod has begun: it is not tried before that ends.
    pub(crate) fn preemption_began(&mut self, uid: &Arc<str>) {
        self.preempting.insert(Arc::clone(uid));
    }

    /// All victims of the preemption are on their way out. `again` tries the Pod in any case.
    pub(crate) fn preemption_ended(&mut self, uid: &Arc<str>, again: bool, judge: &dyn Judge, now: Duration) {
        self.preempting.remove(uid);
        let Some(entry) = self.waiting.get(uid) else { return };
        if entry.place == Place::Unschedulable && (again || entry.released) {
            self.retry(uid, "PreemptionEnded", judge, now);
        }
    }

    fn back_off(&mut self, uid: &str, event: &str, now: Duration) {
        let Some(entry) = self.waiting.get(uid) else { return };
        if self.times.expiry(entry.since, entry.unschedulable, entry.errors) <= now {
            self.activate(uid, event, now);
        } else {
            (self.incoming)("backoff", event);
            self.put(uid, Place::Backoff);
        }
    }

    fn activate(&mut self, uid: &str, event: &str, now: Duration) {
        (self.incoming)("active", event);
        if let Some(entry) = self.waiting.get_mut(uid)
            && entry.attempts == 0
        {
            entry.since = now;
        }
        self.put(uid, Place::Active);
    }

    /// Pods whose back-off is over become active.
    fn expire(&mut self, now: Duration) {
        for errors in [false, true] {
            loop {
                let queue = if errors { &mut self.error_backoff } else { &mut self.backoff };
                let Some((_, rank)) = queue.first().copied().filter(|(at, _)| *at <= now) else { break };
                let uid = self.by_sequence.get(&rank.2).cloned();
                queue.pop_first();
                if let Some(uid) = uid {
                    self.activate(&uid, "BackoffComplete", now);
                }
            }
        }
    }

    /// Takes a Pod out of the queue it is in and puts it into another.
    fn put(&mut self, uid: &str, place: Place) {
        self.take_out(uid);
        let Some(entry) = self.waiting.get_mut(uid) else { return };
        entry.place = place;
        entry.rank = (Reverse(entry.pod.priority()), entry.since, entry.rank.2);
        match place {
            Place::Active => drop(self.active.insert(entry.rank)),
            Place::Backoff => {
                let at = self.times.expiry(entry.since, entry.unschedulable, entry.errors);
                let queue = if entry.rejected_by.is_empty() { &mut self.error_backoff } else { &mut self.backoff };
                queue.insert((at, entry.rank));
            }
            Place::Unschedulable => {
                self.unschedulable.insert(Arc::clone(&entry.pod.uid));
                for plugin in entry.rejected_by.iter() {
                    *self.rejected.entry(plugin).or_default() += 1;
                }
            }
            Place::Gated(PluginId::SchedulingGates) | Place::InFlight => {}
            Place::Gated(_) => drop(self.gated.insert(Arc::clone(&entry.pod.uid))),
        }
    }

    fn take_out(&mut self, uid: &str) {
        let Some(entry) = self.waiting.get(uid) else { return };
        match entry.place {
            Place::Active => drop(self.active.remove(&entry.rank)),
            Place::Backoff => {
                let at = (self.times.expiry(entry.since, entry.unschedulable, entry.errors), entry.rank);
                self.backoff.remove(&at);
                self.error_backoff.remove(&at);
            }
            Place::Unschedulable => {
                self.unschedulable.remove(uid);
                for plugin in entry.rejected_by.iter() {
                    if let Some(pods) = self.rejected.get_mut(&plugin) {
                        *pods -= 1;
                        if *pods == 0 {
                            self.rejected.remove(&plugin);
                        }
                    }
                }
            }
            Place::Gated(_) => drop(self.gated.remove(uid)),
            Place::InFlight => {}
        }
    }

    /// The priority changed.
    fn rerank(&mut self, uid: &str) {
        if let Some(place) = self.waiting.get(uid).map(|w| w.place) {
            self.put(uid, place);
        }
    }
}

#[cfg(test)]
mod tests;
