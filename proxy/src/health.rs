//! How the proxy is doing, for its health endpoints.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use machinery::time::format;
use parking_lot::Mutex;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::family::Family;

#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// When the oldest change that is not applied was asked for.
    queued: Option<SystemTime>,
    updated: Option<SystemTime>,
}

#[derive(Debug)]
struct State {
    families: BTreeMap<Family, Progress>,
    eligible: bool,
}

/// Health of all families. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Health {
    state: Arc<Mutex<State>>,
    /// A change that waits longer is a failure.
    patience: Duration,
    started: SystemTime,
}

/// Which of the two pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    Healthz,
    Livez,
}

impl Health {
    pub(crate) fn new(families: &[Family], period: Duration, now: SystemTime) -> Self {
        let families = families.iter().map(|family| (*family, Progress::default())).collect();
        let state = Arc::new(Mutex::new(State { families, eligible: true }));
        Self { state, patience: period * 2, started: now }
    }

    /// A change is to be applied.
    pub(crate) fn queued(&self, family: Family, now: SystemTime) {
        self.state.lock().families.entry(family).or_default().queued.get_or_insert(now);
    }

    /// All changes that were asked for by `taken` are applied.
    pub(crate) fn updated(&self, family: Family, taken: SystemTime, now: SystemTime) {
        let mut state = self.state.lock();
        let progress = state.families.entry(family).or_default();
        progress.queued = progress.queued.filter(|queued| *queued > taken);
        progress.updated = Some(now);
    }

    /// Whether the Node may take traffic from load balancers.
    pub(crate) fn eligible(&self, eligible: bool) {
        self.state.lock().eligible = eligible;
    }

    fn fine(&self, progress: &Progress, now: SystemTime) -> bool {
        progress.queued.is_none_or(|queued| now.duration_since(queued).unwrap_or_default() < self.patience)
    }

    /// Whether rules are written in time, in all families.
    pub(crate) fn is_healthy(&self, now: SystemTime) -> bool {
        self.state.lock().families.values().all(|progress| self.fine(progress, now))
    }

    /// Whether a page says 200, and its body.
    pub(crate) fn page(&self, page: Page, now: SystemTime) -> (bool, Value) {
        let state = self.state.lock();
        let text = |at: SystemTime| format(OffsetDateTime::from(at));
        let mut status = serde_json::Map::new();
        let (mut healthy, mut last) = (true, None);
        for (family, progress) in &state.families {
            let fine = self.fine(progress, now);
            healthy &= fine;
            last = last.max(progress.updated);
            let updated = text(progress.updated.unwrap_or(self.started));
            status.insert(family.label().to_owned(), json!({"lastUpdated": updated, "healthy": fine}));
        }
        let shown = if healthy { now } else { last.unwrap_or(self.started) };
        let mut body =
            json!({"lastUpdated": text(shown), "currentTime": text(now), "healthy": healthy, "status": status});
        if page == Page::Healthz {
            body["nodeEligible"] = json!(state.eligible);
        }
        (healthy && (page == Page::Livez || state.eligible), body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_waits_too_long_is_unhealthy() {
        let start = SystemTime::UNIX_EPOCH;
        let at = |seconds| start + Duration::from_secs(seconds);
        let health = Health::new(&Family::ALL, Duration::from_secs(30), start);
        assert!(health.is_healthy(at(1000)), "nothing was asked for");
        health.queued(Family::V4, at(1000));
        health.queued(Family::V4, at(1050));
        assert!(health.is_healthy(at(1059)) && !health.is_healthy(at(1060)));
        let (fine, body) = health.page(Page::Livez, at(1060));
        assert!(!fine && body["status"]["IPv6"]["healthy"] == true && body["healthy"] == false);
        health.updated(Family::V4, at(1049), at(1061));
        assert!(health.is_healthy(at(2000)));
    }

    #[test]
    fn a_node_that_goes_is_live_but_not_healthy() {
        let now = SystemTime::UNIX_EPOCH;
        let health = Health::new(&[Family::V4], Duration::from_secs(30), now);
        health.eligible(false);
        let (fine, body) = health.page(Page::Healthz, now);
        assert!(!fine && body["healthy"] == true && body["nodeEligible"] == false);
        let (fine, body) = health.page(Page::Livez, now);
        assert!(fine && body.get("nodeEligible").is_none());
    }
}
