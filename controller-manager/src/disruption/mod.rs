//! PodDisruptionBudgets: how many Pods may be evicted now. The eviction subresource spends what is written here.

mod plan;
mod scale;
mod stale;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ::controller::{
    Cached, Change, EventRecorder, EventType, Index, Informer, ObjectKey, Outcome, Reconcile, ReconcileError, Viewed,
    events::reference_to,
};
use client::{ApiErrorExt, CallError, Discovery};
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use machinery::selector::LabelSelector;
use runtime::clock::Clock;

use crate::{
    StartError,
    children::{matches, selector_of},
    context::{Context, Syncs, now},
    nodelifecycle::eviction::reference,
    table::Started,
    views::PodView,
};
use plan::Need;
use scale::Scales;

const CONTROLLER: &str = "disruption-controller";
const STALE: &str = "disruption-controller stale targets";

/// A budget with its selector read; one without a selector selects nothing.
struct BudgetView {
    budget: PodDisruptionBudget,
    selector: Option<LabelSelector>,
}

impl BudgetView {
    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.as_ref().is_some_and(|selector| matches(selector, labels))
    }
}

impl Viewed for BudgetView {
    type Object = PodDisruptionBudget;

    const INDICES: &'static [Index<Self>] = &[];

    fn project(mut budget: PodDisruptionBudget) -> Self {
        budget.metadata.managed_fields = None;
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        let selector = selector.and_then(|selector| selector_of(selector).ok());
        Self { budget, selector }
    }
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let (budgets, pods): (Informer<BudgetView>, Informer<PodView>) = (context.informers.get(), context.informers.get());
    let queue = context.queue("disruption");
    let keys = queue.clone();
    budgets.on_change(move |change| {
        if !matches!(change, Change::Deleted { .. }) {
            keys.add(change.object().key.clone());
        }
    });
    let (keys, all) = (queue.clone(), budgets.clone());
    pods.on_change(move |change| budgets_of(&all, change).into_iter().for_each(|key| keys.add(key)));
    let scales = Scales {
        client: client.clone(),
        discovery: Discovery::new(client.clone()),
        deployments: context.informers.get(),
        sets: context.informers.get(),
        controllers: context.informers.get(),
        stateful: context.informers.get(),
    };
    let stale = context.queue("stale_pod_disruption");
    stale::watch(&pods, &stale);
    let revoker = stale::Revoker { client: client.clone(), pods: pods.clone(), clock: Arc::clone(&context.clock) };
    context.drive(STALE, stale, 1, revoker, &[&pods]);
    let (deployments, sets) = (scales.deployments.clone(), scales.sets.clone());
    let (controllers, stateful) = (scales.controllers.clone(), scales.stateful.clone());
    let informers: [&dyn Syncs; 6] = [&budgets, &pods, &deployments, &sets, &controllers, &stateful];
    let reconciler = Reconciler {
        recorder: context.recorder(&client, "controllermanager"),
        clock: Arc::clone(&context.clock),
        client,
        budgets: budgets.clone(),
        pods: pods.clone(),
        scales,
    };
    context.drive(CONTROLLER, queue, 1, reconciler, &informers);
    Ok(Started::Running)
}

/// Budgets that a change of a Pod concerns.
fn budgets_of(budgets: &Informer<BudgetView>, change: &Change<PodView>) -> Vec<ObjectKey> {
    let new = change.object();
    let before = match change {
        Change::Updated { old, .. } if old.labels != new.labels => Some(&old.labels),
        _ => None,
    };
    let concerned = |b: &Arc<Cached<BudgetView>>| b.selects(&new.labels) || before.is_some_and(|l| b.selects(l));
    budgets.in_namespace(&new.key.namespace).into_iter().filter(concerned).map(|b| b.key.clone()).collect()
}

/// Time from `now` to `at`.
fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}

/// Why the status of a budget is not known.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error(transparent)]
    Scale(#[from] scale::ScaleError),
    #[error(transparent)]
    Value(#[from] machinery::intstr::IntOrStringError),
}

struct Reconciler {
    client: Client,
    budgets: Informer<BudgetView>,
    pods: Informer<PodView>,
    scales: Scales,
    recorder: EventRecorder,
    clock: Arc<dyn Clock>,
}

impl Reconcile for Reconciler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(view) = self.budgets.get(key) else { return Ok(Outcome::Done) };
        let (budget, now) = (&view.budget, now(&*self.clock));
        let mut pods = self.pods.in_namespace(&key.namespace);
        pods.retain(|pod| view.selects(&pod.labels));
        let about = reference_to(budget);
        if pods.is_empty() {
            self.recorder.event(&about, EventType::Normal, "NoPods", "No matching pods found");
        }
        let need = match self.need(budget, &pods, &about).await {
            Ok(need) => need,
            Err(error) => {
                let text = format!("Failed to calculate the number of expected pods: {error}");
                self.recorder.event(&about, EventType::Warning, "CalculateExpectedPodCountFailed", text);
                self.write(budget, plan::failed(budget, &error.to_string(), &now)).await?;
                return Err(error.into());
            }
        };
        let entries = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
        let disrupted = plan::disrupted(entries, &pods, now.0);
        for name in &disrupted.overdue {
            let text = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
            if let Some(pod) = pods.iter().find(|pod| pod.key.name == *name) {
                self.recorder.event(&reference(&pod.key, &pod.uid), EventType::Warning, "NotDeleted", text);
            }
        }
        self.write(budget, plan::status(budget, need, &pods, &disrupted.kept, &now)).await?;
        // An entry is overdue only after its last second.
        let next = disrupted.next.map(|at| until(at, now.0) + Duration::from_secs(1));
        Ok(next.map_or(Outcome::Done, Outcome::After))
    }
}

impl Reconciler {
    async fn need(
        &self,
        budget: &PodDisruptionBudget,
        pods: &[Arc<Cached<PodView>>],
        about: &ObjectReference,
    ) -> Result<Need, SyncError> {
        let Some(spec) = &budget.spec else { return Ok(Need::default()) };
        if !plan::needs_scale(spec) {
            return Ok(plan::need(spec, i32::try_from(pods.len()).unwrap_or(i32::MAX))?);
        }
        let count = self.scales.count(pods).await?;
        if !count.unmanaged.is_empty() {
            let text = format!(
                "Pods without a controller are not counted: {}. Set minAvailable to a number to count them.",
                shown(&count.unmanaged)
            );
            self.recorder.event(about, EventType::Warning, "UnmanagedPods", text);
        }
        Ok(plan::need(spec, count.expected)?)
    }

    /// Writes over the version that was read: an eviction that came first must not be forgotten.
    async fn write(&self, budget: &PodDisruptionBudget, status: PodDisruptionBudgetStatus) -> Result<(), CallError> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let metadata = &budget.metadata;
        let (namespace, name) =
            (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
        let api: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), &namespace);
        let changed = PodDisruptionBudget { status: Some(status), ..budget.clone() };
        match api.replace_status(&name, &PostParams::default(), &changed).await {
            Err(error) if !error.is_not_found() => {
                Err(CallError::new(format!("update the status of PodDisruptionBudget {namespace}/{name}"), error))
            }
            _ => Ok(()),
        }
    }
}

/// Some of many names.
fn shown(names: &[String]) -> String {
    const MOST: usize = 10;
    let some = names.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > MOST { format!("{some} and {} more", names.len() - MOST) } else { some }
}
