//! Scheduling of Pods in which extenders have a say. What waits for their answers does so without the lock, so that the
//! cluster may change meanwhile: nodes are known by name from one step to the next.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    cluster::NodeIx,
    cycle::{self, Chosen, Cycle, Found},
    extenders::{ExtenderError, Rejected},
    framework::{Denial, Diagnosis, PluginId, Profile, Reason, Reasons},
    meter::Meter,
    metrics::Attempt,
    plugins::default_preemption::{Candidate, Fruitless},
    queue::Waiting,
    report::Report,
    scheduler::{Decision, Scheduler, Shared, State, Victims},
};

/// What came of the search.
enum Outcome {
    Node { name: String, evaluated: usize, feasible: usize },
    Nowhere(Box<Diagnosis>),
    Broken(String),
}

impl Scheduler {
    /// Tries a Pod, and asks extenders.
    pub(crate) async fn extended(
        &self,
        profile: &Profile,
        waiting: Waiting,
        began: Duration,
        slot: OwnedSemaphorePermit,
    ) {
        let shared = self.shared();
        let pod = Arc::clone(&waiting.pod);
        let whole = match shared.api.pod(&pod).await {
            Ok(whole) => whole,
            Err(error) => {
                shared.state.lock().queue.fail(&pod.uid, shared.now());
                if !error.is_not_found() {
                    tracing::error!(pod = %pod.full_name(), %error, "Cannot read a pod");
                }
                return;
            }
        };
        let outcome = self.find(profile, &waiting, &whole).await;
        let took = shared.now().saturating_sub(began);
        shared.metrics.computed(took);
        let decision = match outcome {
            Outcome::Node { name, evaluated, feasible } => {
                let mut state = shared.state.lock();
                let node = state.cluster.nodes.find(&name).filter(|n| state.cluster.nodes.get(*n).present);
                match node {
                    Some(node) => {
                        let (meter, chosen) = (Meter::new(), Chosen { node, evaluated, feasible });
                        let decision = self.place(&mut state, profile, waiting, chosen, began, &meter);
                        meter.tell(&shared.metrics, &profile.scheduler_name);
                        decision
                    }
                    None => {
                        state.queue.fail(&pod.uid, shared.now());
                        Decision::Nothing
                    }
                }
            }
            Outcome::Nowhere(diagnosis) => {
                let victims = self.victims(profile, &waiting, &whole, &diagnosis).await;
                let mut state = shared.state.lock();
                let meter = Meter::new();
                let report = self.reject(&mut state, profile, &waiting, *diagnosis, Some(victims), &meter);
                meter.tell(&shared.metrics, &profile.scheduler_name);
                shared.metrics.attempted(&profile.scheduler_name, Attempt::Unschedulable, took);
                Decision::Report(report)
            }
            Outcome::Broken(message) => {
                tracing::error!(pod = %pod.full_name(), err = %message, "Error scheduling pod; retrying");
                shared.metrics.attempted(&profile.scheduler_name, Attempt::Error, took);
                shared.state.lock().queue.fail(&pod.uid, shared.now());
                Decision::Report(Report::of_error(&pod, message))
            }
        };
        self.carry_out(decision, slot);
    }

    async fn find(&self, profile: &Profile, waiting: &Waiting, whole: &Value) -> Outcome {
        let (shared, pod) = (self.shared(), &waiting.pod);
        for nominated in [true, false] {
            let found = {
                let mut state = shared.state.lock();
                with_cycle(shared, &mut state, profile, |cycle| {
                    let found = cycle.search(pod, nominated)?;
                    let names = cycle.names(found.nodes());
                    Ok((found, names))
                })
            };
            let (found, names) = match found {
                Ok(found) => found,
                Err(diagnosis) => return Outcome::Nowhere(diagnosis),
            };
            let (left, rejected) = match shared.extenders.filter(pod, whole, names).await {
                Ok(answer) => answer,
                Err(error) => return Outcome::Broken(error.to_string()),
            };
            let (is_nominated, evaluated, mut diagnosis) = match found {
                Found::Nominated(_) => (true, 1, Box::default()),
                Found::Feasible { nodes, diagnosis } => (false, nodes.len() + diagnosis.denials.len(), diagnosis),
            };
            match left.as_slice() {
                [] if is_nominated => continue,
                [] => {
                    self.note(&mut diagnosis, rejected);
                    return Outcome::Nowhere(diagnosis);
                }
                [name] => return Outcome::Node { name: name.clone(), evaluated, feasible: 1 },
                _ => {}
            }
            let totals = {
                let mut state = shared.state.lock();
                with_cycle(shared, &mut state, profile, |cycle| {
                    let nodes = cycle.indices(&left);
                    let totals = cycle.totals(pod, &nodes);
                    cycle.names(&nodes).into_iter().zip(totals).collect::<Vec<_>>()
                })
            };
            let scores: HashMap<String, i64> = shared.extenders.scores(pod, whole, &left).await;
            let totals: Vec<(String, i64)> = totals
                .into_iter()
                .map(|(name, total)| {
                    let more = scores.get(&name).copied().unwrap_or(0);
                    (name, total.saturating_add(more))
                })
                .collect();
            let feasible = totals.len();
            return match cycle::highest(totals, &mut rand::rng()) {
                Some(name) => Outcome::Node { name, evaluated, feasible },
                None => Outcome::Broken("the nodes that were found are gone".to_owned()),
            };
        }
        Outcome::Broken("no nodes were searched".to_owned())
    }

    /// Adds what extenders say to what filters said.
    fn note(&self, diagnosis: &mut Diagnosis, rejected: Vec<Rejected>) {
        let state = self.shared().state.lock();
        diagnosis.plugins.insert(PluginId::Extender);
        for one in rejected {
            if let Some(node) = state.cluster.nodes.find(&one.node) {
                let reasons = Reasons::One(Reason::Told(one.why.into()));
                diagnosis.deny(node, PluginId::Extender, Denial { resolvable: one.resolvable, reasons });
            }
        }
    }

    /// Looks for Pods to preempt, and lets extenders choose among them.
    async fn victims(&self, profile: &Profile, waiting: &Waiting, whole: &Value, diagnosis: &Diagnosis) -> Victims {
        let (shared, pod) = (self.shared(), &waiting.pod);
        let named = {
            let mut state = shared.state.lock();
            let meter = Meter::new();
            let found = self.candidates(&mut state, profile, pod, diagnosis, &meter);
            meter.tell(&shared.metrics, &profile.scheduler_name);
            let found = found?;
            let name = |node: NodeIx| state.cluster.nodes.name(node).to_string();
            found.into_iter().map(|candidate| (name(candidate.plan.node), candidate)).collect::<Vec<_>>()
        };
        let read = |victim: Arc<crate::objects::PodView>| async move { shared.api.pod(&victim).await.ok() };
        let answer: Result<Vec<(String, Candidate)>, ExtenderError> =
            shared.extenders.preempt(pod, whole, named, read).await;
        let left = answer.map_err(|error| Fruitless::Nowhere(error.to_string()))?;
        let state = shared.state.lock();
        let there = left.into_iter().filter_map(|(name, mut candidate)| {
            candidate.plan.node = state.cluster.nodes.find(&name)?;
            Some(candidate)
        });
        let there: Vec<Candidate> = there.collect();
        if there.is_empty() {
            Err(Fruitless::Nowhere("no candidate node for preemption".to_owned()))
        } else {
            Ok(there)
        }
    }
}

/// Works with a cycle over the state.
fn with_cycle<T>(shared: &Shared, state: &mut State, profile: &Profile, work: impl FnOnce(&mut Cycle<'_>) -> T) -> T {
    let meter = Meter::new();
    let State { cluster, nominations, memos, start, .. } = state;
    let done = work(&mut Cycle { profile, cluster, nominations, memos, start, meter: &meter });
    meter.tell(&shared.metrics, &profile.scheduler_name);
    done
}
