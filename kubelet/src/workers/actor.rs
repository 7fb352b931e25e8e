//! The task of one Pod.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use rand::Rng;
use tokio::sync::watch;

use super::inbox::{Inbox, Orders};
use super::plan::{self, KillReason, PodPlan};
use super::registry::Stage;
use super::start::{Round, StartError};
use crate::cri::{ContainerRecord, CriError, PodView, RecordState, labels};
use crate::events::EventType;
use crate::metrics::METRICS;
use crate::pods::{self, Role};
use crate::probes::PodState;
use crate::services::Services;
use crate::spec::{pod_cgroup, pod_limits};
use crate::status::{self, StatusInput, Verdict, Waiting};
use crate::volumes::Mounted;

const MAX_MESSAGE_BYTES: u64 = 4096;
const MAX_LOG_BYTES: usize = 2048;
const MAX_LOG_LINES: u64 = 80;
/// Termination messages of one Pod together.
const ALL_MESSAGES: usize = 12_288;
const RETRY: Duration = Duration::from_secs(10);
const NETWORK_RETRY: Duration = Duration::from_secs(1);
const VOLUME_RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(122));
const CLEANUP_RETRY: Duration = Duration::from_millis(200);

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Runtime(#[from] CriError),
    #[error("network is not ready: {0}")]
    Network(String),
    #[error("volumes are not ready")]
    Volumes,
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
    services: Arc<Services>,
    inbox: Arc<Inbox>,
    stage: watch::Sender<Stage>,
    probe_state: watch::Sender<Option<PodState>>,
    pod: Arc<Pod>,
    /// When the Pod was first seen.
    seen: Timestamp,
    waiting: HashMap<String, Waiting>,
    messages: HashMap<String, String>,
    volume_delay: Duration,
    verdict: Option<Verdict>,
    reported_start: bool,
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
        }
    }

    pub(super) async fn run(mut self) {
        self.services.objects.register(&self.pod);
        self.sync_until_stopped().await;
        self.stage.send_replace(Stage::Terminating);
        self.terminate_until_stopped().await;
        self.stage.send_replace(Stage::Terminated);
        self.clean_until_done().await;
        self.services.statuses.finish(pods::uid(&self.pod));
        self.stage.send_replace(Stage::Finished);
    }

    fn uid(&self) -> &str {
        pods::uid(&self.pod)
    }

    fn take_orders(&mut self) -> Orders {
        let orders = self.inbox.read(&self.pod);
        if !Arc::ptr_eq(&orders.pod, &self.pod) {
            self.pod = Arc::clone(&orders.pod);
            self.services.objects.register(&self.pod);
        }
        self.verdict = self.verdict.take().or_else(|| orders.verdict.clone());
        orders
    }

    async fn sync_until_stopped(&mut self) {
        loop {
            let orders = self.take_orders();
            if orders.stop {
                return;
            }
            if let Some(verdict) = deadline(&self.pod, self.started_at()) {
                let services = Arc::clone(&self.services);
                services.events.pod(&self.pod, EventType::Normal, &verdict.reason, verdict.message.as_str());
                self.verdict = Some(verdict);
                return;
            }
            let (inbox, pod) = (Arc::clone(&self.inbox), Arc::clone(&self.pod));
            let start = std::time::Instant::now();
            let result = tokio::select! {
                result = Box::pin(self.round()) => result,
                () = inbox.stopped(&pod) => continue,
            };
            METRICS.worker_duration.with_label_values(&["sync"]).observe(start.elapsed().as_secs_f64());
            let delay = match result {
                Ok(Done::Ended) => return,
                Ok(Done::Acted) => continue,
                Ok(Done::Idle) => self.services.config.sync_frequency.0,
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

    fn retry_delay(&mut self, error: &RoundError) -> Duration {
        tracing::debug!(pod = pods::describe(&self.pod), %error, "sync");
        match error {
            RoundError::Network(_) => NETWORK_RETRY,
            RoundError::Volumes => {
                let delay = self.volume_delay;
                self.volume_delay = (delay * 2).min(VOLUME_RETRY.1);
                delay
            }
            RoundError::Start(StartError { retry_after: Some(left), .. }) => {
                (*left).min(self.services.config.sync_frequency.0)
            }
            RoundError::Runtime(_) | RoundError::Other(_) | RoundError::Start(_) => RETRY,
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
        let pod = Arc::clone(&self.pod);
        let plan = {
            let probes = services.probes.of(&pod, &view);
            plan::plan(&pod, &view, &probes)
        };
        if plan.ends() {
            return Ok(Done::Ended);
        }
        self.network_ready()?;
        self.prepare_node().await?;
        let mounted = self.mount().await?;
        services.probes.register(&pod, &self.probe_state.subscribe());
        let secrets = self.pull_secrets().await;
        let acted = !plan_is_empty(&plan);
        let outcome = Box::pin(self.act(&plan, &view, &mounted, &secrets)).await;
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

    /// Control group and directories.
    async fn prepare_node(&self) -> Result<(), RoundError> {
        let services = Arc::clone(&self.services);
        let (name, limits) = (pod_cgroup(&self.pod, &services.settings), pod_limits(&self.pod, &services.settings));
        let pod_dir = services.paths.pod(self.uid());
        let per_pod = services.settings.cgroups_per_qos;
        let work = tokio::task::spawn_blocking(move || {
            if per_pod && !services.platform.cgroup_exists(&name) {
                let start = std::time::Instant::now();
                services.platform.apply_cgroup(&name, &limits).map_err(|error| (true, error))?;
                METRICS.cgroup_duration.with_label_values(&["create"]).observe(start.elapsed().as_secs_f64());
            }
            make_pod_dirs(&pod_dir).map_err(|error| (false, error))
        });
        let result = work.await.map_err(|error| RoundError::Other(error.to_string()))?;
        result.map_err(|(is_cgroup, error)| {
            let text = if is_cgroup {
                format!("unable to ensure pod container exists: {error}")
            } else {
                format!("error making pod data directories: {error}")
            };
            let reason = if is_cgroup { "FailedCreatePodContainer" } else { "FailedToMakePodDataDirectories" };
            self.services.events.pod(&self.pod, EventType::Warning, reason, text.as_str());
            RoundError::Other(text)
        })
    }

    async fn mount(&mut self) -> Result<Mounted, RoundError> {
        let facts = self.services.facts.get();
        match self.services.volumes.set_up(&self.pod, &facts).await {
            Ok(mounted) => {
                self.volume_delay = VOLUME_RETRY.0;
                Ok(mounted)
            }
            Err(errors) => {
                for error in errors {
                    self.services.events.pod(&self.pod, EventType::Warning, "FailedMount", error.to_string());
                }
                Err(RoundError::Volumes)
            }
        }
    }

    async fn pull_secrets(&self) -> Vec<Arc<Secret>> {
        let mut found = Vec::new();
        let mut missing = Vec::new();
        let names = pods::spec(&self.pod).image_pull_secrets.iter().flatten().map(|secret| secret.name.as_str());
        for name in names.filter(|name| !name.is_empty()) {
            match self.services.objects.secret(pods::namespace(&self.pod), name).await {
                Ok(secret) => found.push(secret),
                Err(_) => missing.push(name),
            }
        }
        if !missing.is_empty() {
            let text = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                missing.join(", ")
            );
            self.services.events.pod(&self.pod, EventType::Warning, "FailedToRetrieveImagePullSecret", text);
        }
        found
    }

    async fn act(
        &mut self,
        plan: &PodPlan,
        view: &Arc<PodView>,
        mounted: &Mounted,
        secrets: &[Arc<Secret>],
    ) -> Result<(), RoundError> {
        let services = Arc::clone(&self.services);
        let pod = Arc::clone(&self.pod);
        let mut view = Arc::clone(view);
        if plan.kill_pod {
            if plan.create_sandbox && plan.attempt > 0 {
                let text = "Pod sandbox changed, it will be killed and re-created.";
                services.events.pod(&pod, EventType::Normal, "SandboxChanged", text);
            }
            services.kill_pod(&pod, &view, pods::termination_grace(&pod)).await?;
            self.prune_init(&view, true).await?;
        } else {
            self.kill_unwanted(plan, &view).await?;
            self.prune_init(&view, false).await?;
        }
        let sandbox =
            services.sandbox(&pod, plan.attempt).await.map_err(|error| self.sandbox_failed(&error.to_string()))?;
        let sandbox_id = if plan.create_sandbox {
            let created = services.create_sandbox(&pod, &sandbox).await;
            let id = created.map_err(|error| self.sandbox_failed(&error))?;
            view = Arc::new(PodView::read(&services.cri, self.uid()).await?);
            self.publish(&view, false).await;
            id
        } else {
            plan.sandbox.clone().unwrap_or_default()
        };
        let ips = self.ips(&view);
        let round = Round {
            services: &services,
            pod: &pod,
            view: &view,
            sandbox_id: &sandbox_id,
            sandbox: &sandbox,
            mounted,
            secrets,
            ips: &ips,
        };
        Box::pin(self.start_all(plan, &round)).await
    }

    fn sandbox_failed(&self, error: &str) -> RoundError {
        let text = format!("Failed to create pod sandbox: {error}");
        self.services.events.pod(&self.pod, EventType::Warning, "FailedCreatePodSandBox", text.as_str());
        RoundError::Other(text)
    }

    async fn start_all(&mut self, plan: &PodPlan, round: &Round<'_>) -> Result<(), RoundError> {
        let mut first_error = None;
        for index in &plan.start_ephemeral {
            let container = pods::as_container(&pods::ephemeral_containers(round.pod)[*index]);
            self.start(round, &container, Role::Ephemeral, &mut first_error).await;
        }
        for index in &plan.start_init {
            let container = &pods::init_containers(round.pod)[*index];
            let role = pods::init_role(container);
            if !self.start(round, container, role, &mut first_error).await && role == Role::Init {
                return first_error.map_or(Ok(()), |error| Err(RoundError::Start(error)));
            }
        }
        for index in &plan.start {
            self.start(round, &pods::containers(round.pod)[*index], Role::Regular, &mut first_error).await;
        }
        first_error.map_or(Ok(()), |error| Err(RoundError::Start(error)))
    }

    /// Starts one; of several errors the one with the earliest retry is kept.
    async fn start(
        &mut self,
        round: &Round<'_>,
        container: &Container,
        role: Role,
        kept: &mut Option<StartError>,
    ) -> bool {
        match Box::pin(round.start(container, role)).await {
            Ok(()) => {
                self.waiting.remove(&container.name);
                true
            }
            Err(error) => {
                let waiting = Waiting { reason: error.reason.clone(), message: error.message.clone() };
                self.waiting.insert(container.name.clone(), waiting);
                let delay = |error: &StartError| error.retry_after.unwrap_or(RETRY);
                if kept.as_ref().is_none_or(|kept| delay(&error) < delay(kept)) {
                    *kept = Some(error);
                }
                false
            }
        }
    }

    async fn kill_unwanted(&self, plan: &PodPlan, view: &PodView) -> Result<(), CriError> {
        for kill in &plan.kill {
            let Some(record) = view.containers.iter().find(|record| record.id == kill.id) else { continue };
            let grace = self.kill_grace(record, kill.reason);
            self.services.kill_container(&self.pod, record, &kill.message, grace).await?;
        }
        Ok(())
    }

    /// A probe's own grace wins while the Pod stays.
    fn kill_grace(&self, record: &ContainerRecord, reason: KillReason) -> i64 {
        let default = pods::termination_grace(&self.pod);
        let Some((container, _)) = pods::find_container(&self.pod, &record.name) else {
            return record.seconds(labels::GRACE).unwrap_or(default);
        };
        let probe = match reason {
            KillReason::Liveness => container.liveness_probe.as_ref(),
            KillReason::Startup => container.startup_probe.as_ref(),
            _ => None,
        };
        probe.and_then(|probe| probe.termination_grace_period_seconds).unwrap_or(default)
    }

    /// Removes records of init containers: all for a new sandbox, else all but the newest of each.
    async fn prune_init(&self, view: &PodView, all: bool) -> Result<(), CriError> {
        for container in pods::init_containers(&self.pod) {
            let ended = view.records(&container.name).filter(|record| {
                matches!(record.state, RecordState::Exited | RecordState::Unknown)
                    || (all && record.state != RecordState::Created)
            });
            for record in ended.skip(usize::from(!all)) {
                self.services.cri.remove_container(&record.id).await?;
            }
        }
        Ok(())
    }

    fn ips(&self, view: &PodView) -> Vec<IpAddr> {
        if pods::host_network(&self.pod) {
            return self.services.facts.get().addresses.clone();
        }
        view.ips().iter().filter_map(|ip| ip.parse().ok()).collect()
    }

    /// Computes and publishes the status, and shows the view to probes.
    async fn publish(&mut self, view: &Arc<PodView>, terminal: bool) {
        self.read_messages(view).await;
        let services = Arc::clone(&self.services);
        let previous = services.statuses.get(self.uid()).or_else(|| self.pod.status.clone());
        let probes = services.probes.of(&self.pod, view);
        let facts = services.facts.get();
        let mut status = status::compute(&StatusInput {
            pod: &self.pod,
            view,
            previous: previous.as_ref(),
            waiting: &self.waiting,
            messages: &self.messages,
            readiness: &probes,
            node: &facts,
            runtime: &services.runtime_name,
            started: self.seen,
            now: Timestamp::now(),
            terminal,
            verdict: self.verdict.as_ref(),
        });
        if !self.reported_start && status.phase.as_deref() == Some("Running") {
            self.reported_start = true;
            METRICS.pod_start.observe(Timestamp::now().duration_since(self.seen).as_secs_f64());
        }
        if terminal && pods::is_static(&self.pod) {
            status.phase = previous.and_then(|previous| previous.phase).or(status.phase);
        }
        services.statuses.set(&self.pod, status);
        let state = PodState { pod: Arc::clone(&self.pod), view: Arc::clone(view), ips: self.ips(view) };
        self.probe_state.send_replace(Some(state));
    }

    /// Reads the last words of containers that ended since the last look.
    async fn read_messages(&mut self, view: &PodView) {
        self.messages.retain(|id, _| view.containers.iter().any(|record| record.id == *id));
        let count = pods::all_containers(&self.pod).count().max(1);
        for record in view.containers.iter().filter(|record| record.state == RecordState::Exited) {
            if !self.messages.contains_key(&record.id) {
                let mut text = self.last_words(record).await;
                text.truncate(text.floor_char_boundary(ALL_MESSAGES / count));
                self.messages.insert(record.id.clone(), text);
            }
        }
    }

    async fn last_words(&self, record: &ContainerRecord) -> String {
        let Some(wanted) = record.annotations.get(labels::TERMINATION_PATH) else { return String::new() };
        let mount = record.mounts.iter().find(|mount| mount.container_path == *wanted);
        let dir = self.services.paths.container(self.uid(), &record.name);
        if let Some(path) =
            mount.map(|mount| std::path::PathBuf::from(&mount.host_path)).filter(|path| path.starts_with(&dir))
        {
            let read = tokio::task::spawn_blocking(move || read_end(&path));
            match read.await {
                Ok(Ok(text)) if !text.is_empty() => return text,
                _ => {}
            }
        }
        let fallback =
            record.annotations.get(labels::TERMINATION_POLICY).is_some_and(|policy| policy == "FallbackToLogsOnError");
        if !fallback || record.exit_code == 0 || record.reason == "ContainerCannotRun" || record.log_path.is_empty() {
            return String::new();
        }
        match crate::logs::tail_bytes(std::path::Path::new(&record.log_path), MAX_LOG_LINES, MAX_LOG_BYTES).await {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("Error on reading termination message from logs: {error}"),
        }
    }

    async fn terminate_until_stopped(&mut self) {
        self.services.probes.stop_liveness(self.uid());
        loop {
            let orders = self.take_orders();
            let (inbox, pod) = (Arc::clone(&self.inbox), Arc::clone(&self.pod));
            let result = tokio::select! {
                result = Box::pin(self.terminate(orders.grace)) => result,
                () = inbox.shortened(&pod, orders.grace) => continue,
            };
            match result {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(pod = pods::describe(&self.pod), %error, "stopping the pod");
                    let text = format!("error killing pod: {error}");
                    self.services.events.pod(&self.pod, EventType::Warning, "FailedKillPod", text);
                    tokio::time::sleep(NETWORK_RETRY).await;
                }
            }
        }
    }

    async fn terminate(&mut self, grace: i64) -> Result<(), RoundError> {
        let services = Arc::clone(&self.services);
        let view = Arc::new(PodView::read(&services.cri, self.uid()).await?);
        self.publish(&view, false).await;
        services.kill_pod(&self.pod, &view, grace).await?;
        let view = Arc::new(PodView::read(&services.cri, self.uid()).await?);
        let left: Vec<&str> = view.running().map(|record| record.name.as_str()).collect();
        if !left.is_empty() {
            let left = left.join(" ");
            let text = format!("detected running containers after a successful KillPod, CRI violation: [{left}]");
            return Err(RoundError::Other(text));
        }
        services.probes.remove(self.uid(), Some(&view));
        self.publish(&view, true).await;
        Ok(())
    }

    /// Volumes and control group must be gone before the Pod counts as over.
    async fn clean_until_done(&mut self) {
        let services = Arc::clone(&self.services);
        let uid = self.uid().to_owned();
        let cgroup = pod_cgroup(&self.pod, &services.settings);
        let mut delay = CLEANUP_RETRY;
        loop {
            let mut errors = Vec::new();
            if let Err(error) = services.volumes.tear_down(&uid).await {
                errors.push(format!("unmount volumes: {error}"));
            }
            if services.settings.cgroups_per_qos {
                let (services, cgroup) = (Arc::clone(&services), cgroup.clone());
                let removed = tokio::task::spawn_blocking(move || services.platform.remove_cgroup(&cgroup)).await;
                if let Ok(Err(error)) = removed {
                    errors.push(format!("remove cgroup: {error}"));
                }
            }
            if errors.is_empty() {
                break;
            }
            tracing::warn!(pod = pods::describe(&self.pod), errors = errors.join("; "), "cleaning up after the pod");
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(RETRY);
        }
        services.objects.unregister(&uid);
        services.images.forget(&uid);
        services.restarts.forget(|(owner, _, _)| *owner == uid);
    }
}

fn plan_is_empty(plan: &PodPlan) -> bool {
    !plan.kill_pod
        && !plan.create_sandbox
        && plan.kill.is_empty()
        && plan.start.is_empty()
        && plan.start_init.is_empty()
        && plan.start_ephemeral.is_empty()
}

fn make_pod_dirs(pod_dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for dir in [pod_dir.to_owned(), pod_dir.join("volumes"), pod_dir.join("plugins")] {
        if !dir.is_dir() {
            std::fs::create_dir_all(&dir)?;
            std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o750))?;
        }
    }
    Ok(())
}

/// The last bytes of a file the container could write to.
fn read_end(path: &std::path::Path) -> std::io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MAX_MESSAGE_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(MAX_MESSAGE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
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
