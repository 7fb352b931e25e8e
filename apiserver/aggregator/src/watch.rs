//! Whether one remote server can be used: looked at again and again, and when its Service changes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use generic::published::{Offer, OpenApi};
use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGaugeVec, Registry};
use runtime::metrics::{self, Stability};
use storage::cache::Watcher;
use util::Backoff;

use crate::{
    backend::Backend,
    condition::Availability,
    documents,
    place::{Place, Places},
    view::{ServiceReference, Spec},
};

/// How often a server that answers is asked again.
const PERIOD: Duration = Duration::from_secs(30);
/// How soon one that does not.
const RETRY: Backoff = Backoff::doubling(Duration::from_millis(250), PERIOD);
/// Attempts at once: one server behind the Service may be down.
const ATTEMPTS: usize = 5;

/// Metrics of availability.
pub(crate) struct Report {
    unavailable: IntGaugeVec,
    failures: IntCounterVec,
}

impl Report {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            unavailable: metrics::gauge_vec(
                registry,
                Stability::Alpha,
                "aggregator_unavailable_apiservice",
                "Gauge of APIServices which are marked as unavailable broken down by APIService name.",
                &["name"],
            )?,
            failures: metrics::counter_vec(
                registry,
                Stability::Alpha,
                "aggregator_unavailable_apiservice_total",
                "Counter of APIServices which are marked as unavailable broken down by APIService name and reason.",
                &["name", "reason"],
            )?,
        })
    }

    fn set(&self, name: &str, before: bool, now: &Availability) {
        self.unavailable.with_label_values(&[name]).set(i64::from(!now.is_available()));
        if before && !now.is_available() {
            self.failures.with_label_values(&[name, now.reason]).inc();
        }
    }

    pub(crate) fn forget(&self, name: &str) {
        // It may never have been set.
        let _absent = self.unavailable.remove_label_values(&[name]).is_err();
    }
}

/// A server of an APIService.
pub(crate) struct Remote {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) spec: Spec,
    pub(crate) service: ServiceReference,
    /// `None` until there is one that fits the certificates.
    pub(crate) backend: ArcSwapOption<Backend>,
    pub(crate) available: AtomicBool,
    /// What it served last.
    last: Mutex<(Bytes, OpenApi)>,
}

impl Remote {
    pub(crate) fn new(name: &str, uid: &str, spec: &Spec, service: &ServiceReference) -> Self {
        Self {
            name: name.to_owned(),
            uid: uid.to_owned(),
            spec: spec.clone(),
            service: service.clone(),
            backend: ArcSwapOption::empty(),
            available: AtomicBool::new(false),
            last: Mutex::new((Bytes::new(), OpenApi::Absent)),
        }
    }

    /// The `Host` of its requests.
    pub(crate) fn host(&self) -> String {
        format!("{}:{}", self.service.host(), self.service.port())
    }

    pub(crate) fn is_available(&self) -> bool {
        self.available.load(Ordering::Acquire)
    }

    /// Looks once; keeps what the server serves.
    pub(crate) async fn check(&self, places: &Places, report: &Report) -> Availability {
        let outcome = match places.find(&self.service).await {
            Ok(place) => self.ask(&place).await,
            Err(lacking) => lacking,
        };
        let before = self.available.swap(outcome.is_available(), Ordering::AcqRel);
        report.set(&self.name, before, &outcome);
        outcome
    }

    async fn ask(&self, place: &Place) -> Availability {
        let (group, version) = (&self.spec.group, &self.spec.version);
        let path = format!("/apis/{group}/{version}");
        let url = format!("https://{}{path}", place.authority());
        let failed = |text: String| {
            let text = format!("failing or missing response from {url}: {text}");
            Availability::failed("FailedDiscoveryCheck", text)
        };
        let Some(backend) = self.backend.load_full() else { return failed("no client".into()) };
        let host = self.host();
        let mut attempts: FuturesUnordered<_> =
            (0..ATTEMPTS).map(|_| documents::fetch(&backend, place, &host, &path)).collect();
        let mut last = String::new();
        while let Some(attempt) = attempts.next().await {
            match attempt {
                Ok(document) => {
                    drop(attempts);
                    self.learn(&backend, place, document).await;
                    return Availability::passed();
                }
                Err(error) => last = error.to_string(),
            }
        }
        failed(last)
    }

    async fn learn(&self, backend: &Backend, place: &Place, document: Bytes) {
        let openapi = documents::openapi(backend, place, &self.host(), &self.spec.group, &self.spec.version).await;
        *self.last.lock() = (document, openapi);
    }

    /// What it serves, or served when it was last heard of.
    pub(crate) fn offer(&self) -> Offer {
        let (document, openapi) = self.last.lock().clone();
        Offer {
            group: self.spec.group.clone(),
            version: self.spec.version.clone(),
            group_priority: self.spec.group_priority_minimum,
            version_priority: self.spec.version_priority,
            resources: documents::kinds(&document, &self.spec.group, &self.spec.version),
            is_stale: !self.is_available(),
            openapi,
        }
    }

    /// Identifies what [`Remote::offer`] gives.
    pub(crate) fn offered(&self) -> Offered {
        let (document, openapi) = self.last.lock().clone();
        let (v3, v2) = match openapi {
            OpenApi::Ready { v3, v2 } => (v3, v2),
            OpenApi::Absent | OpenApi::Described(_) => (None, None),
        };
        Offered { available: self.is_available(), document, v3, v2 }
    }
}

/// What was told of a server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Offered {
    available: bool,
    document: Bytes,
    v3: Option<Bytes>,
    v2: Option<Arc<schema::v2::Part>>,
}

/// Waits until it is time to look again: a while, or a change of the Service or its endpoints.
pub(crate) async fn pause(changes: Option<(Watcher, Watcher)>, failures: u32) {
    let wait = if failures == 0 { PERIOD } else { RETRY.jittered(failures - 1) };
    let Some((mut services, mut slices)) = changes else { return tokio::time::sleep(wait).await };
    tokio::select! {
        () = tokio::time::sleep(wait) => {}
        // A watch that ended is as good as a change: it is started anew.
        _ = services.next() => {}
        _ = slices.next() => {}
    }
}
