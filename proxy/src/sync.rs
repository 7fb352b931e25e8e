//! The loop that keeps the rules equal to the watched state.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, Registry};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::{Backend, BackendError},
    model::{ServicePort, service_ports},
    rules::{Settings, render},
    watch::States,
};

/// How often rules are written.
#[derive(Clone, Copy)]
pub(crate) struct Periods {
    /// Time after which a failed sync is tried again, and rules are looked after unasked.
    pub(crate) full: Duration,
    /// Least time between the starts of two syncs.
    pub(crate) least: Duration,
}

/// When rules were last asked for and written, Unix seconds.
#[derive(Clone)]
pub(crate) struct Progress {
    queued: Arc<AtomicU64>,
    synced: Arc<AtomicU64>,
    duration: Histogram,
    last: Gauge,
    failures: IntCounter,
    period: Duration,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Progress {
    pub(crate) fn new(registry: &Registry, period: Duration) -> Result<Self, prometheus::Error> {
        let duration = Histogram::with_opts(HistogramOpts::new(
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds",
        ))?;
        let last = Gauge::new(
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
            "The last time proxy rules were successfully synced",
        )?;
        let failures = IntCounter::new(
            "kubeproxy_sync_proxy_rules_iptables_restore_failures_total",
            "Cumulative proxy iptables restore failures",
        )?;
        registry.register(Box::new(duration.clone()))?;
        registry.register(Box::new(last.clone()))?;
        registry.register(Box::new(failures.clone()))?;
        Ok(Self { queued: Arc::default(), synced: Arc::default(), duration, last, failures, period })
    }

    /// Unhealthy when a change has waited for twice the sync period.
    pub(crate) fn is_healthy(&self) -> bool {
        let (queued, synced) = (self.queued.load(Ordering::Relaxed), self.synced.load(Ordering::Relaxed));
        synced >= queued || now().saturating_sub(queued) < 2 * self.period.as_secs()
    }

    /// When rules were last written, Unix seconds.
    pub(crate) fn last_synced(&self) -> u64 {
        self.synced.load(Ordering::Relaxed)
    }

    fn asked(&self) {
        self.queued.store(now(), Ordering::Relaxed);
    }

    fn done(&self, took: Duration) {
        self.synced.store(now(), Ordering::Relaxed);
        self.duration.observe(took.as_secs_f64());
        #[allow(clippy::cast_precision_loss)]
        self.last.set(now() as f64);
    }
}

/// Writes rules whenever the state changes, until `stop`. The rules stay when it ends.
pub(crate) async fn run(
    backend: &dyn Backend,
    settings: &Settings,
    periods: Periods,
    mut states: States,
    progress: &Progress,
    stop: CancellationToken,
) {
    let mut before: Vec<ServicePort> = Vec::new();
    loop {
        let started = Instant::now();
        let state = states.borrow_and_update().clone();
        if let Some(state) = state {
            progress.asked();
            let ports = service_ports(&state.0, &state.1);
            match sync(backend, settings, &ports).await {
                Ok(()) => {
                    forget_stale_flows(backend, &before, &ports).await;
                    before = ports;
                    progress.done(started.elapsed());
                }
                Err(error) => {
                    progress.failures.inc();
                    tracing::error!(%error, "rules are not synced");
                }
            }
        }
        let rest = periods.least.saturating_sub(started.elapsed());
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(rest) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = states.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(periods.full) => {}
        }
    }
}

async fn sync(backend: &dyn Backend, settings: &Settings, ports: &[ServicePort]) -> Result<(), BackendError> {
    backend.prepare().await?;
    let stale: BTreeSet<String> = backend.chains().await?;
    backend.apply(&render(ports, settings, &stale)).await
}

/// Ends UDP flows to endpoints that no longer serve, else they would be sent there for ever.
async fn forget_stale_flows(backend: &dyn Backend, before: &[ServicePort], after: &[ServicePort]) {
    for old in before.iter().filter(|p| p.protocol == "udp") {
        let new = after.iter().find(|p| p.name == old.name && p.protocol == old.protocol);
        let stays = |ip: &str| new.is_some_and(|n| n.cluster_endpoints.iter().any(|e| e.ip == ip));
        for endpoint in old.cluster_endpoints.iter().filter(|e| !stays(&e.ip)) {
            let addresses = std::iter::once(&old.cluster_ip).chain(&old.external_ips).chain(&old.balancer_ips);
            for address in addresses {
                if let Err(error) = backend.forget_udp(address, old.port, &endpoint.ip).await {
                    tracing::warn!(%error, service = old.name, "stale UDP flows stay");
                }
            }
        }
    }
}
