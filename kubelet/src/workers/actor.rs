//! The task of one Pod.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use rand::Rng;
use spans::{Kind, Span};
use tokio::sync::watch;

use super::inbox::{Inbox, Orders};
use super::plan::{self, PodPlan};
use super::registry::Stage;
use super::start::StartError;
use super::steps::Steps;
use crate::admission::{self, Refusal};
use crate::cri::{CriError, PodView};
use crate::events::EventType;
use crate::metrics::METRICS;
use crate::pods;
use crate::probes::PodState;
use crate::resize::Changes;
use crate::services::Services;
use crate::status::{Verdict, Waiting, order_by_family};

pub(super) const RETRY: Duration = Duration::from_secs(10);
pub(super) const NETWORK_RETRY: Duration = Duration::from_secs(1);
pub(super) const VOLUME_RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(122));

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum RoundError {
    #[error(transparent)]
    Runtime(#[from] CriError),
    #[error("network is not ready: {0}")]
    Network(String),
    #[error("volumes are not ready: {0}")]
    Volumes(String),
    #[error("{}", .0.message)]
    Refused(Refusal),
    #[error("{0}")]
    Other(String),
    #[error("{0}")]
    Start(StartError),
}

/// How a round went.
enum Done {
    /// Nothing to do.
    Idle,
    /// Something was done; look again.
    Acted,
    /// The Pod is over.
    Ended,
}

pub(super) struct Actor {
    pub(super) services: Arc<Services>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) stage: watch::Sender<Stage>,
    pub(super) probe_state: watch::Sender<Option<PodState>>,
    pub(super) pod: Arc<Pod>,
    /// When the Pod was first seen.
    pub(super) seen: Timestamp,
    pub(super) waiting: HashMap<String, Waiting>,
    pub(super) messages: HashMap<String, String>,
    pub(super) volume_delay: Duration,
    pub(super) verdict: Option<Verdict>,
    pub(super) reported_start: bool,
    /// Every container is being removed, to start from the beginning.
    pub(super) restarting_all: bool,
}

impl Actor {
    pub(super) fn new(services: Arc<Services>, inbox: Arc<Inbox>, stage: watch::Sender<Stage>, pod: Arc<Pod>) -> Self {
        Self {
            services,
            inbox,
            stage,
            probe_state: watch::channel(None).0,
            pod,
            seen: Timestamp::now(),
            waiting: HashMap::new(),
            messages: HashMap::new(),
            volume_delay: VOLUME_RETRY.0,
            verdict: None,
            reported_start: false,
            restarting_all: false,
        }
    }

    pub(super) async fn run(mut self, after: Vec<watch::Receiver<Stage>>) {
        self.wait_for(after).await;
        self.services.objects.register(&self.pod);
        if !self.is_admitted().await {
            return;
        }
        METRICS.pods.worker_start.observe(Timestamp::now().duration_since(self.seen).as_secs_f64());
        self.sync_until_stopped().await;
        self.stage.send_replace(Stage::Terminating);
        self.terminate_until_stopped().await;
        self.stage.send_replace(Stage::Terminated);
        self.clean_until_done().await;
        self.services.statuses.finish(pods::uid(&self.pod));
        self.stage.send_replace(Stage::Finished);
    }

    /// Waits until other Pods have made room, unless this one is to end.
    async fn wait_for(&self, others: Vec<watch::Receiver<Stage>>) {
        let all = async {
            for mut other in others {
                // A task that is gone has ended too.
                let _ended = other.wait_for(|stage| *stage == Stage::Finished).await.is_err();
            }
        };
        tokio::select! {
            () = all => {}
            () = self.inbox.stopped(&self.pod) => {}
        }
    }

    /// Whether the node has what the containers want for themselves. What an earlier kubelet took stays.
    async fn is_admitted(&mut self) -> bool {
        if self.take_orders().stop {
            return true;
        }
        let services = Arc::clone(&self.services);
        let taken = super::reject::is_taken(&self.pod);
        let wanted = if taken { Ok(()) } else { self.is_wanted().await };
        let admitted = match wanted {
            Ok(()) => services.allot.admit(&self.pod).await,
            refused => refused,
        };
        services.resizes.flush().await;
        let Err(refusal) = admitted else { return true };
        if taken {
            tracing::warn!(pod = pods::describe(&self.pod), ?refusal, "a pod that was taken before");
            return true;
        }
        services.objects.unregister(self.uid());
        services.reject(&self.pod, &refusal, &self.stage);
        false
    }

    /// Whether the Pod is wanted here; before that is denied the Node is read anew.
    async fn is_wanted(&self) -> Result<(), Refusal> {
        let facts = self.services.facts.get();
        let Some(node) = facts.object.as_ref() else { return Ok(()) };
        if admission::admit_to(&self.pod, node).is_ok() {
            return Ok(());
        }
        match self.services.objects.node(&facts.name).await {
            Ok(node) => admission::admit_to(&self.pod, &node),
            Err(_) => admission::admit_to(&self.pod, node),
        }
    }

    pub(super) fn uid(&self) -> &str {
        pods::uid(&self.pod)
    }

    pub(super) fn take_orders(&mut self) -> Orders {
        let orders = self.inbox.read(&self.pod);
        if !Arc::ptr_eq(&orders.pod, &self.pod) {
            self.pod = Arc::clone(&orders.pod);
            self.services.objects.register(&self.pod);
        }
        self.verdict = self.verdict.take().or_else(|| orders.verdict.clone());
        orders
    }

    async fn sync_until_stopped(&mut self) {
        let mut operation = "create";
        loop {
            let known = Arc::clone(&self.pod);
            let orders = self.take_orders();
            if orders.stop {
                return;
            }
            if operation != "create" {
                operation = if Arc::ptr_eq(&known, &self.pod) { "sync" } else { "update" };
            }
            if let Some(verdict) = deadline(&self.pod, self.started_at()) {
                let services = Arc::clone(&self.services);
                services.events.pod(&self.pod, EventType::Normal, &verdict.reason, verdict.message.as_str());
                self.verdict = Some(verdict);
                return;
            }
            let (inbox, pod) = (Arc::clone(&self.inbox), Arc::clone(&self.pod));
            let start = std::time::Instant::now();
            let span = self.span("syncPod");
            span.set("k8s.pod.update_type", operation);
            let result = tokio::select! {
                result = Box::pin(span.within(self.round())) => result,
                () = inbox.stopped(&pod) => continue,
            };
            METRICS.worker_duration.with_label_values(&[operation]).observe(start.elapsed().as_secs_f64());
            operation = "sync";
            let delay = match result {
                Ok(Done::Ended) => return,
                Ok(Done::Acted) => continue,
                Ok(Done::Idle) => self.services.config.sync_frequency.0,
                Err(RoundError::Refused(refusal)) => return self.refused(refusal),
                Err(error) => self.retry_delay(&error),
            };
            let jittered = delay.mul_f64(rand::rng().random_range(1.0..1.5));
            let wait = jittered.min(self.until_deadline());
            tokio::select! {
                () = self.inbox.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// It turned out that the node cannot have the Pod.
    fn refused(&mut self, Refusal { reason, message }: Refusal) {
        METRICS.admission_rejections.with_label_values(&[&reason]).inc();
        self.services.events.pod(&self.pod, EventType::Warning, &reason, message.as_str());
        let message = format!("Pod was rejected: {message}");
        self.verdict = Some(Verdict { phase: "Failed", reason, message, disruption: None });
    }

    /// A piece of work for the Pod, of which traces tell.
    pub(super) fn span(&self, name: &'static str) -> Span {
        let tracer = &self.services.tracer;
        if !tracer.is_on() {
            return Span::default();
        }
        let span = tracer.span(name, Kind::Internal, None);
        let (namespace, pod) = (pods::namespace(&self.pod), pods::name(&self.pod));
        span.set("k8s.pod.uid", self.uid().to_owned());
        span.set("k8s.pod", format!("{namespace}/{pod}"));
        span.set("k8s.pod.name", pod.to_owned());
        span.set("k8s.namespace.name", namespace.to_owned());
        span
    }

    fn retry_delay(&mut self, error: &RoundError) -> Duration {
        tracing::debug!(pod = pods::describe(&self.pod), %error, "sync");
        match error {
            RoundError::Network(_) => NETWORK_RETRY,
            RoundError::Volumes(_) => {
                let delay = self.volume_delay;
                self.volume_delay = (delay * 2).min(VOLUME_RETRY.1);
                delay
            }
            RoundError::Start(StartError { retry_after: Some(left), .. }) => {
                (*left).min(self.services.config.sync_frequency.0)
            }
            RoundError::Runtime(_) | RoundError::Refused(_) | RoundError::Other(_) | RoundError::Start(_) => RETRY,
        }
    }

    fn started_at(&self) -> Timestamp {
        let own = self.services.statuses.get(self.uid()).and_then(|status| status.start_time);
        let api = self.pod.status.as_ref().and_then(|status| status.start_time.clone());
        own.or(api).map_or(self.seen, |time| time.0)
    }

    fn until_deadline(&self) -> Duration {
        let Some(seconds) = pods::spec(&self.pod).active_deadline_seconds else { return Duration::MAX };
        let end = self.started_at().as_second().saturating_add(seconds);
        Duration::from_secs(u64::try_from(end - Timestamp::now().as_second()).unwrap_or(0)) + Duration::from_millis(10)
    }

    /// One look and one set of actions.
    async fn round(&mut self) -> Result<Done, RoundError> {
        let services = Arc::clone(&self.services);
        let mut steps = Steps::begin(&self.pod);
        let errors = services.health.runtime_errors();
        if !errors.is_empty() {
            return Err(RoundError::Other(errors.join(", ")));
        }
        let view = match PodView::read(&services.cri, self.uid()).await {
            Ok(view) => Arc::new(view),
            Err(error) => {
                let text = format!("error determining status: {error}");
                services.events.pod(&self.pod, EventType::Warning, "FailedSync", text);
                return Err(error.into());
            }
        };
        self.publish(&view, false).await;
        steps.done("status");
        let pod = Arc::clone(&self.pod);
        let mut plan = {
            let probes = services.probes.of(&pod, &view);
            plan::plan(&pod, &view, &probes)
        };
        let changes = Changes::find(&pod, &view, &services.resizes.actuated(self.uid()));
        if !plan.restart_all.is_empty() {
            self.restart_all(&plan.restart_all, &view).await?;
            return Ok(Done::Acted);
        }
        changes.plan_restarts(&pod, &mut plan);
        self.settle_resize(&changes, &view).await;
        if plan.ends() {
            return Ok(Done::Ended);
        }
        if self.lost_its_group(&view).await {
            tracing::warn!(pod = pods::describe(&pod), "the pod's cgroup is gone: its containers start anew");
            services.kill_pod(&pod, &view, pods::termination_grace(&pod)).await?;
            return Ok(Done::Acted);
        }
        self.network_ready()?;
        self.prepare_node().await?;
        steps.done("control group and directories");
        let mounted = self.mount().await?;
        steps.done("volumes");
        services.probes.register(&pod, &self.probe_state.subscribe());
        let secrets = self.pull_secrets().await;
        steps.done("pull secrets");
        let acted = !plan_is_empty(&plan) || !changes.is_empty();
        let outcome = Box::pin(self.act(&plan, &changes, &view, &mounted, &secrets)).await;
        if outcome.is_err()
            && let Ok(fresh) = PodView::read(&services.cri, pods::uid(&pod)).await
        {
            self.publish(&Arc::new(fresh), false).await;
        }
        outcome?;
        Ok(if acted { Done::Acted } else { Done::Idle })
    }

    fn network_ready(&self) -> Result<(), RoundError> {
        if pods::host_network(&self.pod) {
            return Ok(());
        }
        let Some(error) = self.services.health.network_error() else { return Ok(()) };
        let text = format!("network is not ready: {error}");
        self.services.events.pod(&self.pod, EventType::Warning, "NetworkNotReady", text);
        Err(RoundError::Network(error))
    }

    pub(super) fn ips(&self, view: &PodView) -> Vec<IpAddr> {
        if pods::host_network(&self.pod) {
            return self.services.facts.get().addresses.clone();
        }
        let node: Vec<String> = self.services.facts.get().addresses.iter().map(ToString::to_string).collect();
        order_by_family(view.ips(), &node).iter().filter_map(|ip| ip.parse().ok()).collect()
    }
}

pub(super) fn plan_is_empty(plan: &PodPlan) -> bool {
    !plan.kill_pod
        && !plan.create_sandbox
        && plan.kill.is_empty()
        && plan.start.is_empty()
        && plan.start_init.is_empty()
        && plan.start_ephemeral.is_empty()
        && plan.restart_all.is_empty()
}

/// The verdict on a Pod that was active for too long.
fn deadline(pod: &Pod, started: Timestamp) -> Option<Verdict> {
    let seconds = pods::spec(pod).active_deadline_seconds?;
    (Timestamp::now().as_second() >= started.as_second().saturating_add(seconds)).then(|| Verdict {
        phase: "Failed",
        reason: "DeadlineExceeded".to_owned(),
        message: "Pod was active on the node longer than the specified deadline".to_owned(),
        disruption: None,
    })
}
