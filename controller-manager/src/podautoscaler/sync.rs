//! One look at an autoscaler: scale read, metrics evaluated, scale written, status written.

use std::{collections::HashMap, sync::Arc};

use ::controller::{
    Cached, EventRecorder, EventType, Informer, ObjectKey, Outcome, Reconcile, ReconcileError, Whole,
    events::reference_to,
};
use client::{ApiErrorExt, CallError, DiscoveredResource, Discovery, api_for};
use k8s_openapi::{
    api::{
        autoscaling::{
            v1::Scale,
            v2::{HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricStatus},
        },
        core::v1::ObjectReference,
    },
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{DynamicObject, PostParams},
};
use machinery::{quantity::Quantity, selector::LabelSelector};
use parking_lot::Mutex;
use runtime::clock::Clock;

use super::{
    calculator::{Scene, Tolerances},
    evaluate::{Failure, Proposal, Target},
    metrics::MetricsApi,
    options::AutoscalerOptions,
    recommendation::{Bounds, History},
    report::{Action, Fault, Report},
    status::{ABLE, ACTIVE, Draft, LIMITED},
};
use crate::{children::matches, context::now, views::PodView};

/// Why a look ended early.
#[derive(Debug, thiserror::Error)]
enum SyncError {
    #[error("invalid API version in scale target reference: {0}")]
    Version(String),
    #[error("unable to determine resource for scale target reference: {0}")]
    Kind(String),
    #[error("failed to query scale subresource for {0}: {1}")]
    Scale(String, String),
    #[error("failed to compute desired number of replicas based on listed metrics for {0}: {1}")]
    Metrics(String, String),
    #[error("failed to rescale {0}: {1}")]
    Rescale(String, String),
    #[error(transparent)]
    Status(#[from] CallError),
}

impl SyncError {
    fn fault(&self) -> Fault {
        match self {
            Self::Version(_) => Fault::Spec,
            _ => Fault::Internal,
        }
    }
}

/// What is kept of an autoscaler between two looks.
#[derive(Default)]
pub(super) struct Memory {
    history: History,
    /// Which Pods it scales; `None` until it was looked at.
    selector: Option<LabelSelector>,
}

/// What the controller works with.
pub(super) struct Reconciler {
    pub(super) client: Client,
    pub(super) discovery: Arc<Discovery>,
    pub(super) metrics: MetricsApi,
    pub(super) recorder: EventRecorder,
    pub(super) autoscalers: Informer<Whole<HorizontalPodAutoscaler>>,
    pub(super) pods: Informer<PodView>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) options: AutoscalerOptions,
    pub(super) memory: Mutex<HashMap<ObjectKey, Memory>>,
    pub(super) report: Report,
}

/// The [`Reconciler`] as the driver takes it.
pub(super) struct Shell(pub(super) Arc<Reconciler>);

impl Reconcile for Shell {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let this = &*self.0;
        let Some(autoscaler) = this.autoscalers.get(key) else {
            this.forget(key);
            return Ok(Outcome::Done);
        };
        let started = this.clock.elapsed();
        let mut action = Action::None;
        let outcome = this.look(&autoscaler, &mut action).await;
        let took = this.clock.elapsed().saturating_sub(started);
        this.report.reconciled(action, outcome.as_ref().err().map(SyncError::fault), took);
        if let Err(error) = outcome {
            tracing::error!(err = %util::chain(&error), autoscaler = %key, "Error syncing");
        }
        Ok(Outcome::After(this.options.horizontal_pod_autoscaler_sync_period))
    }
}

/// A target that can be scaled.
struct Scalable {
    api: Api<DynamicObject>,
    name: String,
    scale: Scale,
}

/// What all metrics together ask for.
struct Wanted {
    replicas: i32,
    metric: String,
}

/// One look at one autoscaler.
struct Look<'a> {
    spec: &'a HorizontalPodAutoscalerSpec,
    key: &'a ObjectKey,
    about: ObjectReference,
    draft: Draft,
    metrics: Vec<MetricStatus>,
    now: Timestamp,
}

impl Reconciler {
    pub(super) fn forget(&self, key: &ObjectKey) {
        self.memory.lock().remove(key);
    }

    async fn look(
        &self,
        autoscaler: &Cached<Whole<HorizontalPodAutoscaler>>,
        action: &mut Action,
    ) -> Result<(), SyncError> {
        let spec = &autoscaler.view.0.spec;
        let time = now(&*self.clock);
        let mut look = Look {
            spec,
            key: &autoscaler.key,
            about: reference_to(&autoscaler.view.0),
            draft: Draft::of(autoscaler, time),
            metrics: Vec::new(),
            now: Timestamp::try_from(self.clock.now()).unwrap_or(Timestamp::UNIX_EPOCH),
        };
        let outcome = self.work_out(&mut look, action).await;
        let written = self.write(autoscaler, look.draft).await;
        outcome.and(written)
    }

    async fn work_out(&self, look: &mut Look<'_>, action: &mut Action) -> Result<(), SyncError> {
        let target = self.scale(look).await?;
        look.draft.condition(
            ABLE,
            true,
            "SucceededGetScale",
            "the HPA controller was able to get the target's current scale",
        );
        let current = target.scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        self.memory.lock().entry(look.key.clone()).or_default().history.begin(current, look.now);
        let spec = look.spec;
        let min = spec.min_replicas.unwrap_or(1);
        let (desired, reason) = if current == 0 && min != 0 {
            let text = "scaling is disabled since the replica count of the target is zero";
            look.draft.condition(ACTIVE, false, "ScalingDisabled", text);
            (current, String::new())
        } else if current > spec.max_replicas {
            (spec.max_replicas, "Current number of replicas above Spec.MaxReplicas".to_owned())
        } else if current < min {
            (min, "Current number of replicas below Spec.MinReplicas".to_owned())
        } else {
            self.by_metrics(look, &target, current, min).await?
        };
        if desired == current {
            let metrics = std::mem::take(&mut look.metrics);
            look.draft.outcome(current, desired, metrics, false);
            return Ok(());
        }
        self.rescale(look, target, current, desired, &reason).await?;
        *action = Action::of(current, desired);
        Ok(())
    }

    /// The size that metrics ask for, within all limits, and what an event calls the reason.
    async fn by_metrics(
        &self,
        look: &mut Look<'_>,
        target: &Scalable,
        current: i32,
        min: i32,
    ) -> Result<(i32, String), SyncError> {
        let wanted = match self.evaluate(look, target, current).await {
            Ok(wanted) => wanted,
            Err(text) => {
                let metrics = std::mem::take(&mut look.metrics);
                look.draft.observed(current, metrics);
                self.recorder.event(&look.about, EventType::Warning, "FailedComputeMetricsReplicas", text.as_str());
                return Err(SyncError::Metrics(look.target(), text));
            }
        };
        let reason = match Action::of(current, wanted.replicas) {
            Action::ScaleUp => format!("{} above target", wanted.metric),
            Action::ScaleDown => "All metrics below target".to_owned(),
            Action::None => String::new(),
        };
        let bounds = Bounds {
            min,
            max: look.spec.max_replicas,
            behavior: look.spec.behavior.as_ref(),
            stabilization: self.options.horizontal_pod_autoscaler_downscale_stabilization,
        };
        let decision = {
            let mut memory = self.memory.lock();
            let history = &mut memory.entry(look.key.clone()).or_default().history;
            history.decide(current, wanted.replicas, bounds, look.now)
        };
        let (able, limited) = (decision.able, decision.limited);
        look.draft.condition(ABLE, able.holds, able.reason, able.message);
        look.draft.condition(LIMITED, limited.holds, limited.reason, limited.message);
        Ok((decision.replicas, reason))
    }

    /// Evaluates all metrics; the most replicas win, but with a metric missing nothing is taken away.
    async fn evaluate(&self, look: &mut Look<'_>, target: &Scalable, current: i32) -> Result<Wanted, String> {
        let selector = self.selector(look, &target.scale)?;
        let pods = self.selected(look.key, &selector);
        let existing = target.scale.status.as_ref().map_or(0, |status| status.replicas);
        let scene = Scene {
            pods: &pods,
            now: look.now,
            initialization: self.options.horizontal_pod_autoscaler_cpu_initialization_period,
            readiness_delay: self.options.horizontal_pod_autoscaler_initial_readiness_delay,
            tolerances: self.tolerances(look.spec),
            current,
        };
        let namespace = look.key.namespace.as_str();
        let source = Target { api: &self.metrics, namespace, selector: &selector, scene, existing };
        let specs = look.spec.metrics.as_deref().unwrap_or_default();
        let mut most: Option<Proposal> = None;
        let mut failures = Vec::new();
        for spec in specs {
            let started = self.clock.elapsed();
            let result = source.evaluate(spec).await;
            let took = self.clock.elapsed().saturating_sub(started);
            let wanted = result.as_ref().map_or(current, |proposal| proposal.replicas);
            let fault = result.as_ref().err().map(|_| Fault::Internal);
            self.report.computed(Action::of(current, wanted), fault, &spec.type_, took);
            match result {
                Ok(proposal) => {
                    look.metrics.push(proposal.status.clone());
                    if most.as_ref().is_none_or(|most| proposal.replicas > most.replicas) {
                        most = Some(proposal);
                    }
                }
                Err(failure) => {
                    // A metric keeps its place.
                    look.metrics.push(MetricStatus::default());
                    self.recorder.event(&look.about, EventType::Warning, failure.reason, failure.cause.as_str());
                    failures.push(failure);
                }
            }
        }
        match (most, failures.first()) {
            (Some(most), first) if first.is_none() || most.replicas >= current => {
                if let Some(first) = first {
                    tracing::info!(autoscaler = %look.key, err = %first.summary, "some metrics are missing");
                }
                let text = format!("the HPA was able to successfully calculate a replica count from {}", most.name);
                look.draft.condition(ACTIVE, true, "ValidMetricFound", text);
                Ok(Wanted { replicas: most.replicas, metric: most.name })
            }
            (_, Some(first)) => Err(look.failed(first, failures.len(), specs.len())),
            (None, None) => Err("no metrics are specified".to_owned()),
            (Some(_), None) => Err(String::new()),
        }
    }

    /// The selector of the target's Pods, which must be nobody else's.
    fn selector(&self, look: &mut Look<'_>, scale: &Scale) -> Result<LabelSelector, String> {
        let text = scale.status.as_ref().and_then(|status| status.selector.as_deref()).unwrap_or_default();
        if text.is_empty() {
            let message = "selector is required";
            self.recorder.event(&look.about, EventType::Warning, "SelectorRequired", message);
            look.draft.condition(ACTIVE, false, "InvalidSelector", "the HPA target's scale is missing a selector");
            return Err(message.to_owned());
        }
        let refuse = |look: &mut Look<'_>, reason: &str, message: String| {
            self.recorder.event(&look.about, EventType::Warning, reason, message.as_str());
            look.draft.condition(ACTIVE, false, reason, message.as_str());
            message
        };
        let selector = match LabelSelector::parse(text) {
            Ok(selector) => selector,
            Err(error) => {
                let message =
                    format!("couldn't convert selector into a corresponding internal selector object: {error}");
                return Err(refuse(look, "InvalidSelector", message));
            }
        };
        let pods = self.selected(look.key, &selector);
        let rivals = self.rivals(look.key, &selector, &pods);
        if rivals.len() > 1 {
            let names: Vec<String> = rivals.iter().map(ToString::to_string).collect();
            let message = format!("pods by selector {selector} are controlled by multiple HPAs: [{}]", names.join(" "));
            return Err(refuse(look, "AmbiguousSelector", message));
        }
        Ok(selector)
    }

    fn selected(&self, key: &ObjectKey, selector: &LabelSelector) -> Vec<Arc<Cached<PodView>>> {
        let mut pods = self.pods.in_namespace(&key.namespace);
        pods.retain(|pod| matches(selector, &pod.labels));
        pods
    }

    /// All autoscalers that select one of the Pods, this one included.
    fn rivals(&self, key: &ObjectKey, selector: &LabelSelector, pods: &[Arc<Cached<PodView>>]) -> Vec<ObjectKey> {
        let mut memory = self.memory.lock();
        memory.entry(key.clone()).or_default().selector = Some(selector.clone());
        let selects = |selector: &LabelSelector| pods.iter().any(|pod| matches(selector, &pod.labels));
        let same = |other: &ObjectKey| other.namespace == key.namespace;
        let all = memory.iter().filter(|(other, known)| same(other) && known.selector.as_ref().is_some_and(selects));
        let mut keys: Vec<ObjectKey> = all.map(|(other, _)| other.clone()).collect();
        keys.sort();
        keys
    }

    fn tolerances(&self, spec: &HorizontalPodAutoscalerSpec) -> Tolerances {
        let usual = self.options.horizontal_pod_autoscaler_tolerance;
        let of = |rules: Option<&HPAScalingRules>| {
            let text = rules.and_then(|rules| rules.tolerance.as_ref());
            text.and_then(|text| Quantity::parse(&text.0).ok()).map_or(usual, |quantity| quantity.as_f64())
        };
        let behavior = spec.behavior.as_ref();
        Tolerances {
            down: of(behavior.and_then(|b| b.scale_down.as_ref())),
            up: of(behavior.and_then(|b| b.scale_up.as_ref())),
        }
    }

    /// The scale of the target.
    async fn scale(&self, look: &mut Look<'_>) -> Result<Scalable, SyncError> {
        let outcome = self.find_scale(look).await;
        if let Err(error) = &outcome {
            let (SyncError::Version(cause) | SyncError::Kind(cause) | SyncError::Scale(_, cause)) = error else {
                return outcome;
            };
            self.recorder.event(&look.about, EventType::Warning, "FailedGetScale", cause.as_str());
            let text = format!("the HPA controller was unable to get the target's current scale: {cause}");
            look.draft.condition(ABLE, false, "FailedGetScale", text);
        }
        outcome
    }

    async fn find_scale(&self, look: &Look<'_>) -> Result<Scalable, SyncError> {
        let reference = &look.spec.scale_target_ref;
        let text = reference.api_version.as_deref().unwrap_or_default();
        if text.matches('/').count() > 1 {
            return Err(SyncError::Version(format!("unexpected GroupVersion string: {text}")));
        }
        let (group, version) = text.split_once('/').unwrap_or(("", text));
        let resource = self.resource(group, version, &reference.kind).await;
        let resource = resource
            .map_err(|error| SyncError::Kind(error.text()))?
            .ok_or_else(|| SyncError::Kind(format!("no matches for kind {:?} in group {group:?}", reference.kind)))?;
        let namespace = resource.namespaced.then_some(look.key.namespace.as_str());
        let api: Api<DynamicObject> = api_for(self.client.clone(), &resource.api_resource(), namespace);
        let scale = api.get_scale(&reference.name).await;
        let scale = scale.map_err(|error| SyncError::Scale(look.target(), error.text()))?;
        Ok(Scalable { api, name: reference.name.clone(), scale })
    }

    /// The resource of a kind, in the version that is named or in any other of the group.
    async fn resource(
        &self,
        group: &str,
        version: &str,
        kind: &str,
    ) -> Result<Option<DiscoveredResource>, kube::Error> {
        if let Some(found) = self.discovery.kind(group, version, kind).await? {
            return Ok(Some(found));
        }
        Ok(self.discovery.snapshot().await?.preferred_kind(group, kind).cloned())
    }

    async fn rescale(
        &self,
        look: &mut Look<'_>,
        target: Scalable,
        current: i32,
        desired: i32,
        reason: &str,
    ) -> Result<(), SyncError> {
        let Scalable { api, name, mut scale } = target;
        scale.spec.get_or_insert_default().replicas = Some(desired);
        let metrics = std::mem::take(&mut look.metrics);
        if let Err(error) = api.replace_scale(&name, &PostParams::default(), &scale).await {
            let error = error.text();
            let text = format!("New size: {desired}; reason: {reason}; error: {error}");
            self.recorder.event(&look.about, EventType::Warning, "FailedRescale", text);
            let text = format!("the HPA controller was unable to update the target scale: {error}");
            look.draft.condition(ABLE, false, "FailedUpdateScale", text);
            look.draft.observed(current, metrics);
            return Err(SyncError::Rescale(look.target(), error));
        }
        let text = format!("the HPA controller was able to update the target scale to {desired}");
        look.draft.condition(ABLE, true, "SucceededRescale", text);
        let text = format!("New size: {desired}; reason: {reason}");
        self.recorder.event(&look.about, EventType::Normal, "SuccessfulRescale", text);
        if let Some(behavior) = &look.spec.behavior {
            let mut memory = self.memory.lock();
            let history = &mut memory.entry(look.key.clone()).or_default().history;
            history.scaled(current, desired, behavior, look.now);
        }
        tracing::info!(autoscaler = %look.key, current, desired, reason, "Successfully rescaled");
        look.draft.outcome(current, desired, metrics, true);
        Ok(())
    }

    async fn write(&self, autoscaler: &Cached<Whole<HorizontalPodAutoscaler>>, draft: Draft) -> Result<(), SyncError> {
        let status = draft.into_status();
        let old = &autoscaler.view.0;
        if old.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let key = &autoscaler.key;
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.client.clone(), &key.namespace);
        let changed = HorizontalPodAutoscaler { status: Some(status), ..old.clone() };
        match api.replace_status(&key.name, &PostParams::default(), &changed).await {
            Err(error) if !error.is_not_found() => {
                Err(CallError::new(format!("update the status of HorizontalPodAutoscaler {key}"), error).into())
            }
            _ => Ok(()),
        }
    }
}

impl Look<'_> {
    /// The target as errors name it.
    fn target(&self) -> String {
        let target = &self.spec.scale_target_ref;
        format!("{}/{}/{}", target.kind, self.key.namespace, target.name)
    }

    /// Reports the first of the metrics that are missing.
    fn failed(&mut self, first: &Failure, failed: usize, all: usize) -> String {
        let text = format!("the HPA was unable to compute the replica count: {}", first.cause);
        self.draft.condition(ACTIVE, false, first.reason, text);
        format!("invalid metrics ({failed} invalid out of {all}), first error is: {}", first.summary)
    }
}

#[cfg(test)]
mod tests;
