//! What a Pod's task does in a round: killing, sandboxes, starting.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Secret};

use super::actor::{Actor, RETRY, RoundError, plan_is_empty};
use super::plan::{KillReason, PodPlan};
use super::start::{Round, StartError};
use crate::cri::{ContainerRecord, CriError, PodView, RecordState, labels};
use crate::events::EventType;
use crate::metrics::METRICS;
use crate::pods::{self, Role};
use crate::resize::Changes;
use crate::status::Waiting;
use crate::volumes::Mounted;

impl Actor {
    pub(super) async fn act(
        &mut self,
        plan: &PodPlan,
        changes: &Changes,
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
        if plan_is_empty(plan) && changes.is_empty() {
            return Ok(());
        }
        if plan.create_sandbox {
            self.prepare_claims().await?;
        }
        let sandbox =
            services.sandbox(&pod, plan.attempt).await.map_err(|error| self.sandbox_failed(&error.to_string()))?;
        let sandbox_id = if plan.create_sandbox {
            let created = services.create_sandbox(&pod, &sandbox).await;
            METRICS.started_pods.inc();
            if created.is_err() {
                METRICS.started_pods_errors.inc();
            }
            if pods::spec(&pod).host_users == Some(false) {
                METRICS.pods.user_namespaced.inc();
                METRICS.pods.user_namespaced_errors.inc_by(u64::from(created.is_err()));
            }
            let id = created.map_err(|error| self.sandbox_failed(&error))?;
            let fresh = PodView::read(&services.cri, self.uid()).await.inspect_err(|error| {
                let text = format!("Unable to get pod sandbox status: {error}");
                services.events.pod(&pod, EventType::Warning, "FailedPodSandBoxStatus", text);
            });
            view = Arc::new(fresh?);
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
        let resized = self.resize(changes, &sandbox_id).await;
        let started = Box::pin(self.start_all(plan, &round)).await;
        services.resizes.flush().await;
        resized.and(started)
    }

    /// Stops and removes records, without hooks and with their logs kept, so that everything starts from the beginning.
    pub(super) async fn restart_all(&mut self, ids: &[String], view: &Arc<PodView>) -> Result<(), RoundError> {
        let services = Arc::clone(&self.services);
        self.restarting_all = true;
        self.publish(view, false).await;
        for id in ids {
            let Some(record) = view.containers.iter().find(|record| record.id == *id) else { continue };
            if record.state == RecordState::Running {
                let text = format!("Stopping container {}", record.name);
                services.kill_container(&self.pod, record, &text, 0).await?;
            }
            services.cri.remove_container(id).await?;
        }
        let fresh = Arc::new(PodView::read(&services.cri, self.uid()).await?);
        self.publish(&fresh, false).await;
        self.restarting_all = false;
        Ok(())
    }

    /// What drivers have to do before there is a sandbox.
    async fn prepare_claims(&self) -> Result<(), RoundError> {
        self.services.claims.prepare(&self.pod).await.map_err(|error| {
            let text = format!("Failed to prepare dynamic resources: {error}");
            self.services.events.pod(&self.pod, EventType::Warning, "FailedPrepareDynamicResources", text.as_str());
            RoundError::Other(text)
        })
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
                self.services.remove_container(&record.id).await?;
            }
        }
        Ok(())
    }
}
