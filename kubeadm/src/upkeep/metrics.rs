//! What upkeep knows, for monitoring: long before anything ends.

use std::{net::SocketAddr, time::Duration};

use axum::routing::get;
use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Registry};
use runtime::{
    CancellationToken,
    metrics::{self, Stability, counter_vec, gauge, gauge_vec},
};
use time::OffsetDateTime;
use tokio::net::TcpListener;

use crate::{
    error::{Context, Result},
    etcd::Size,
};

/// Grace for running requests at the end.
const GRACE: Duration = Duration::from_secs(1);

/// The metrics.
pub(super) struct Metrics {
    registry: Registry,
    ends: IntGaugeVec,
    file: IntGauge,
    in_use: IntGauge,
    saved: IntGauge,
    errors: IntCounterVec,
}

impl Metrics {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let registry = metrics::registry()?;
        let own = |name: &str, help: &str| gauge(&registry, Stability::Alpha, name, help);
        Ok(Self {
            ends: gauge_vec(
                &registry,
                Stability::Alpha,
                "kubeadm_certificate_expiration_timestamp_seconds",
                "When a certificate of this control plane ends, seconds since 1970",
                &["name"],
            )?,
            file: own("kubeadm_etcd_file_bytes", "Size of the file of this host's etcd member")?,
            in_use: own("kubeadm_etcd_in_use_bytes", "Bytes of that file that hold data")?,
            saved: own(
                "kubeadm_etcd_snapshot_timestamp_seconds",
                "When the newest snapshot was made, seconds since 1970",
            )?,
            errors: counter_vec(
                &registry,
                Stability::Alpha,
                "kubeadm_upkeep_errors_total",
                "Rounds that failed, by what was done",
                &["task"],
            )?,
            registry,
        })
    }

    /// Serves them, and a health page.
    pub(super) async fn serve(&self, address: SocketAddr, stop: CancellationToken) -> Result<()> {
        let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        let router = metrics::router(self.registry.clone()).route("/healthz", get(async || "ok"));
        tokio::spawn(runtime::serving::serve_router(listener, None, router, stop, GRACE));
        Ok(())
    }

    pub(super) fn ends(&self, name: &str, at: OffsetDateTime) {
        self.ends.with_label_values(&[name]).set(at.unix_timestamp());
    }

    pub(super) fn size(&self, size: Size) {
        self.file.set(i64::try_from(size.file).unwrap_or(i64::MAX));
        self.in_use.set(i64::try_from(size.in_use).unwrap_or(i64::MAX));
    }

    pub(super) fn saved(&self, at: OffsetDateTime) {
        self.saved.set(at.unix_timestamp());
    }

    pub(super) fn errors(&self, tasks: &[(&str, &Result<()>)]) {
        for (task, ended) in tasks {
            self.errors.with_label_values(&[task]).inc_by(u64::from(ended.is_err()));
        }
    }
}
