//! Leader election by Lease: at most one process leads, measured by each candidate's own clock.

use std::{sync::Arc, time::Duration};

use client::ApiErrorExt;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::ObjectReference,
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, ResourceExt, api::PostParams};
use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGaugeVec, Registry};
use runtime::{
    clock::Clock,
    flags::LeaderElectionArgs,
    health::{HealthChecks, Scope},
    metrics::{self, Stability},
};
use tokio_util::sync::CancellationToken;

use crate::{EventRecorder, EventType};

/// How much later than `retry` the next attempt may be, as a factor of it.
const JITTER: f64 = 1.2;
/// Time beyond the lease after which a leader that could not renew reports to be sick.
const HEALTH_SLACK: Duration = Duration::from_secs(20);

/// Settings of an election.
#[derive(Clone, Debug)]
pub struct LeaderConfig {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease; also of the metrics.
    pub name: String,
    /// Who we are: `<hostname>_<uuid>`.
    pub identity: String,
    /// Time a lease is good for after it was last renewed.
    pub lease: Duration,
    /// Time a leader tries to renew before it gives up.
    pub renew: Duration,
    /// Time between attempts.
    pub retry: Duration,
    /// Whether a leader that stops hands the lease back.
    pub release: bool,
}

impl LeaderConfig {
    /// From flags; `name` is the default of the Lease's name.
    pub fn of(args: &LeaderElectionArgs, name: &str, identity: String, release: bool) -> Self {
        Self {
            namespace: args.leader_elect_resource_namespace.clone(),
            name: args.leader_elect_resource_name.clone().unwrap_or_else(|| name.to_owned()),
            identity,
            lease: args.leader_elect_lease_duration,
            renew: args.leader_elect_renew_deadline,
            retry: args.leader_elect_retry_period,
            release,
        }
    }
}

/// How leading ended when it should not have.
#[derive(Debug, thiserror::Error)]
pub enum LeaderError {
    /// The lease could not be renewed in time, or somebody else holds it. The process has to end.
    #[error("leaderelection lost")]
    Lost,
}

#[derive(Default)]
struct Observed {
    /// The record as it was last seen, and when it changed.
    record: Option<LeaseSpec>,
    /// The object that this process wrote last, if it has seen no other since.
    written: Option<Lease>,
    resource_version: Option<String>,
    changed: Duration,
}

struct Inner {
    config: LeaderConfig,
    api: Api<Lease>,
    clock: Arc<dyn Clock>,
    recorder: EventRecorder,
    observed: Mutex<Observed>,
    /// Whether this process leads, and when it last renewed.
    leading: Mutex<Option<Duration>>,
    metrics: Option<ElectionMetrics>,
}

/// A candidate. Cheap to clone.
#[derive(Clone)]
pub struct LeaderElector(Arc<Inner>);

impl LeaderElector {
    /// A candidate that has not run yet. `registry` gets `leader_election_*`.
    pub fn new(
        client: Client,
        config: LeaderConfig,
        clock: Arc<dyn Clock>,
        recorder: EventRecorder,
        registry: Option<&Registry>,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self::counted(client, config, clock, recorder, registry.map(ElectionMetrics::new).transpose()?))
    }

    /// [`LeaderElector::new`] with metrics that another candidate of the process has, too.
    pub fn counted(
        client: Client,
        config: LeaderConfig,
        clock: Arc<dyn Clock>,
        recorder: EventRecorder,
        metrics: Option<ElectionMetrics>,
    ) -> Self {
        let api = Api::namespaced(client, &config.namespace);
        if let Some(metrics) = &metrics {
            metrics.status.with_label_values(&[&config.name]).set(0);
        }
        let (observed, leading) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { config, api, clock, recorder, observed, leading, metrics }))
    }

    /// Whether this process leads now.
    pub fn is_leader(&self) -> bool {
        self.0.leading.lock().is_some()
    }

    /// Who leads, as far as it is known.
    pub fn leader(&self) -> Option<String> {
        self.0.observed.lock().record.as_ref().and_then(|r| r.holder_identity.clone()).filter(|h| !h.is_empty())
    }

    /// Adds the check `leaderElection`: it fails only while this process leads and is long overdue to renew.
    pub fn add_health_check(&self, health: &HealthChecks, scope: Scope) {
        let elector = self.clone();
        health.add_to(scope, "leaderElection", move || {
            let renewed = *elector.0.leading.lock();
            let overdue = renewed.map(|at| elector.0.clock.elapsed().saturating_sub(at));
            match overdue {
                Some(age) if age > elector.0.config.lease + HEALTH_SLACK => {
                    Err(format!("failed election to renew leadership on lease {}", elector.0.config.name))
                }
                _ => Ok(()),
            }
        });
    }

    /// Waits for the lease, then runs `lead` while it is renewed. `lead` gets a token that is cancelled when leading
    /// ends. Returns when `stop` is cancelled, or with an error when the lease is lost; `lead` has ended then or was
    /// dropped.
    pub async fn run<F>(
        &self,
        stop: &CancellationToken,
        lead: impl FnOnce(CancellationToken) -> F,
    ) -> Result<(), LeaderError>
    where
        F: Future<Output = ()>,
    {
        tracing::info!(lock = %self.lock_name(), "Attempting to acquire leader lease...");
        if stop.run_until_cancelled(self.acquire()).await.is_none() {
            return Ok(());
        }
        self.became(true);
        let leading = stop.child_token();
        let (lost, mut work) = (self.renew(), std::pin::pin!(lead(leading.clone())));
        let mut lost = std::pin::pin!(lost);
        let ended_by_itself = tokio::select! {
            () = &mut lost => {
                leading.cancel();
                self.became(false);
                tracing::error!(lock = %self.lock_name(), "Failed to renew lease, leader election lost");
                return Err(LeaderError::Lost);
            }
            () = &mut work => true,
            () = stop.cancelled() => false,
        };
        leading.cancel();
        if !ended_by_itself {
            // The lease stays ours while the work ends.
            tokio::select! {
                () = &mut lost => {
                    self.became(false);
                    return Err(LeaderError::Lost);
                }
                () = &mut work => {}
            }
        }
        if self.0.config.release {
            self.release().await;
        }
        self.became(false);
        Ok(())
    }

    fn lock_name(&self) -> String {
        format!("{}/{}", self.0.config.namespace, self.0.config.name)
    }

    fn became(&self, leader: bool) {
        let inner = &self.0;
        *inner.leading.lock() = leader.then(|| inner.clock.elapsed());
        if let Some(metrics) = &inner.metrics {
            metrics.status.with_label_values(&[&inner.config.name]).set(i64::from(leader));
        }
        let verb = if leader { "became leader" } else { "stopped leading" };
        if leader {
            tracing::info!(lock = %self.lock_name(), "Successfully acquired lease");
        }
        let about = ObjectReference {
            kind: Some("Lease".into()),
            api_version: Some("coordination.k8s.io/v1".into()),
            namespace: Some(inner.config.namespace.clone()),
            name: Some(inner.config.name.clone()),
            ..ObjectReference::default()
        };
        let message = format!("{} {verb}", inner.config.identity);
        inner.recorder.event(&about, EventType::Normal, "LeaderElection", message);
    }

    async fn acquire(&self) {
        while !self.attempt().await {
            self.0.clock.sleep(util::jitter(self.0.config.retry, JITTER)).await;
        }
    }

    /// Ends when the lease is lost.
    async fn renew(&self) {
        let (clock, config) = (&self.0.clock, &self.0.config);
        loop {
            let deadline = clock.sleep(config.renew);
            let renewed = async {
                while !self.attempt().await {
                    clock.sleep(config.retry).await;
                }
            };
            tokio::select! {
                () = renewed => *self.0.leading.lock() = Some(clock.elapsed()),
                () = deadline => return,
            }
            clock.sleep(config.retry).await;
        }
    }

    /// One attempt to get or keep the lease.
    async fn attempt(&self) -> bool {
        let outcome = tokio::time::timeout(self.0.config.renew, self.try_once()).await;
        match outcome {
            Ok(Ok(held)) => held,
            Ok(Err(error)) if error.is_conflict() || error.is_already_exists() => {
                tracing::debug!(err = %error.text(), lock = %self.lock_name(), "lost a race for the lease");
                false
            }
            Ok(Err(error)) => {
                tracing::error!(err = %error.text(), lock = %self.lock_name(), "Error retrieving or updating lease");
                false
            }
            Err(_) => {
                tracing::error!(lock = %self.lock_name(), "Error retrieving or updating lease: no answer in time");
                false
            }
        }
    }

    async fn try_once(&self) -> Result<bool, kube::Error> {
        let inner = &self.0;
        let identity = &inner.config.identity;
        if self.is_leader() {
            if self.renew_unseen().await {
                return Ok(true);
            }
            if let Some(metrics) = &inner.metrics {
                metrics.slow.with_label_values(&[&inner.config.name]).inc();
            }
        }
        let lease = match inner.api.get(&inner.config.name).await {
            Ok(lease) => lease,
            Err(error) if error.is_not_found() => return self.create().await,
            Err(error) => return Err(error),
        };
        let current = lease.spec.clone().unwrap_or_default();
        self.observe(&current, lease.resource_version());
        let holder = current.holder_identity.clone().unwrap_or_default();
        let ours = holder == *identity;
        if !ours && !holder.is_empty() && self.still_valid(&current) {
            tracing::debug!(lock = %self.lock_name(), holder, "the lease is held by another and has not yet expired");
            return Ok(false);
        }
        let transitions = current.lease_transitions.unwrap_or(0);
        let record = LeaseSpec {
            acquire_time: if ours { current.acquire_time.clone() } else { Some(self.now()) },
            lease_transitions: Some(if ours { transitions } else { transitions.saturating_add(1) }),
            ..self.record()
        };
        self.replace(lease, record).await?;
        Ok(true)
    }

    /// Renews the lease as this process wrote it, without looking first; `false` if that was not to be.
    async fn renew_unseen(&self) -> bool {
        let Some(lease) = self.0.observed.lock().written.take() else { return false };
        let Some(current) = lease.spec.clone().filter(|record| self.still_valid(record)) else { return false };
        let record = LeaseSpec {
            acquire_time: current.acquire_time,
            lease_transitions: current.lease_transitions,
            ..self.record()
        };
        self.replace(lease, record).await.is_ok()
    }

    async fn create(&self) -> Result<bool, kube::Error> {
        let inner = &self.0;
        let record = LeaseSpec { acquire_time: Some(self.now()), lease_transitions: Some(0), ..self.record() };
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(inner.config.name.clone()),
                namespace: Some(inner.config.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(record.clone()),
        };
        let created = inner.api.create(&PostParams::default(), &lease).await?;
        self.observe(&record, created.resource_version());
        self.0.observed.lock().written = Some(created);
        Ok(true)
    }

    async fn replace(&self, mut lease: Lease, record: LeaseSpec) -> Result<(), kube::Error> {
        lease.spec = Some(record.clone());
        lease.metadata.managed_fields = None;
        let stored = self.0.api.replace(&self.0.config.name, &PostParams::default(), &lease).await?;
        self.observe(&record, stored.resource_version());
        self.0.observed.lock().written = Some(stored);
        Ok(())
    }

    /// Hands the lease back, so that a successor need not wait.
    async fn release(&self) {
        let released = async {
            let lease = self.0.api.get(&self.0.config.name).await?;
            let current = lease.spec.clone().unwrap_or_default();
            if current.holder_identity.as_deref() != Some(&self.0.config.identity) {
                return Ok(());
            }
            let record = LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                acquire_time: Some(self.now()),
                renew_time: Some(self.now()),
                lease_transitions: current.lease_transitions,
                ..LeaseSpec::default()
            };
            self.replace(lease, record).await
        };
        match tokio::time::timeout(self.0.config.renew, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(err = %error.text(), lock = %self.lock_name(), "Failed to release lease"),
            Err(_) => tracing::error!(lock = %self.lock_name(), "Failed to release lease in time"),
        }
    }

    fn record(&self) -> LeaseSpec {
        let seconds = self.0.config.lease.as_secs();
        LeaseSpec {
            holder_identity: Some(self.0.config.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
            renew_time: Some(self.now()),
            ..LeaseSpec::default()
        }
    }

    fn now(&self) -> MicroTime {
        MicroTime(Timestamp::try_from(self.0.clock.now()).unwrap_or(Timestamp::UNIX_EPOCH))
    }

    /// Notes the record; the time of validity starts anew only when it has changed.
    fn observe(&self, record: &LeaseSpec, resource_version: Option<String>) {
        let mut observed = self.0.observed.lock();
        if observed.record.as_ref() != Some(record) || observed.resource_version != resource_version {
            let before = observed.record.as_ref().and_then(|r| r.holder_identity.clone());
            if before != record.holder_identity {
                tracing::info!(identity = record.holder_identity.as_deref().unwrap_or_default(), "New leader elected");
            }
            let (record, changed) = (Some(record.clone()), self.0.clock.elapsed());
            *observed = Observed { record, written: None, resource_version, changed };
        }
    }

    /// Whether the holder may still be leading, by our clock and the holder's duration.
    fn still_valid(&self, record: &LeaseSpec) -> bool {
        let seconds = record.lease_duration_seconds.unwrap_or(0);
        let lease = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        self.0.observed.lock().changed + lease > self.0.clock.elapsed()
    }
}

/// Metrics of the candidates of a process. Cheap to clone.
#[derive(Clone)]
pub struct ElectionMetrics {
    status: IntGaugeVec,
    slow: IntCounterVec,
}

impl ElectionMetrics {
    /// Registers them.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let status = metrics::gauge_vec(
            registry,
            Stability::Alpha,
            "leader_election_master_status",
            "Gauge of if the reporting system is master of the relevant lease, 0 indicates backup, 1 indicates master. \
             'name' is the string used to identify the lease. Please make sure to group by name.",
            &["name"],
        )?;
        let slow = metrics::counter_vec(
            registry,
            Stability::Alpha,
            "leader_election_slowpath_total",
            "Total number of slow path exercised in renewing leader leases. 'name' is the string used to identify the \
             lease. Please make sure to group by name.",
            &["name"],
        )?;
        Ok(Self { status, slow })
    }
}

#[cfg(test)]
mod tests;
