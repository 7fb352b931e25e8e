//! Whether the container runtime and its network are usable.

use std::time::{Duration, Instant};

use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;

use crate::cri::{Cri, v1};

const PERIOD: Duration = Duration::from_secs(5);
const RUNTIME_GRACE: Duration = Duration::from_secs(30);
const RELIST_GRACE: Duration = Duration::from_secs(180);

#[derive(Default)]
struct State {
    runtime_seen: Option<Instant>,
    status_checked: bool,
    network: Option<String>,
    runtime: Option<String>,
    relisted: Option<Instant>,
    handlers: Vec<v1::RuntimeHandler>,
    features: Option<v1::RuntimeFeatures>,
}

/// The last known state.
#[derive(Default)]
pub struct RuntimeHealth {
    state: RwLock<State>,
}

impl RuntimeHealth {
    /// Asks the runtime until stopped.
    pub async fn run(&self, cri: &Cri, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.check(cri).await,
            }
        }
    }

    /// Asks once.
    pub async fn check(&self, cri: &Cri) {
        let answer = cri.status(false).await;
        let mut state = self.state.write();
        state.status_checked = true;
        match answer {
            Ok(answer) => {
                let conditions = answer.status.map(|status| status.conditions).unwrap_or_default();
                state.runtime =
                    trouble(&conditions, "RuntimeReady").map(|text| format!("container runtime not ready: {text}"));
                state.network = trouble(&conditions, "NetworkReady")
                    .map(|text| format!("container runtime network not ready: {text}"));
                if state.runtime.is_none() {
                    state.runtime_seen = Some(Instant::now());
                }
                state.handlers = answer.runtime_handlers;
                state.features = answer.features;
            }
            Err(error) => {
                state.runtime = Some(format!("container runtime status check failed: {error}"));
            }
        }
    }

    /// A relist of all Pods succeeded.
    pub fn relisted(&self) {
        self.state.write().relisted = Some(Instant::now());
    }

    /// What keeps Pods from being worked on.
    pub fn runtime_errors(&self) -> Vec<String> {
        let state = self.state.read();
        let mut errors = Vec::new();
        if !state.status_checked {
            errors.push("container runtime status check may not have completed yet".to_owned());
        } else if state.runtime_seen.is_none_or(|seen| seen.elapsed() > RUNTIME_GRACE) {
            errors.push("container runtime is down".to_owned());
        }
        errors.extend(state.runtime.clone());
        match state.relisted {
            None => errors.push("PLEG is not healthy: pleg has yet to be successful".to_owned()),
            Some(at) if at.elapsed() > RELIST_GRACE => {
                let ago = crate::config::Span(Duration::from_secs(at.elapsed().as_secs()));
                let limit = crate::config::Span(RELIST_GRACE);
                errors.push(format!("PLEG is not healthy: pleg was last seen active {ago} ago; threshold is {limit}"));
            }
            Some(_) => {}
        }
        errors
    }

    /// What keeps Pods with their own network from being started.
    pub fn network_error(&self) -> Option<String> {
        self.state.read().network.clone()
    }

    /// Runtime handlers and features, as last reported.
    pub fn features(&self) -> (Vec<v1::RuntimeHandler>, Option<v1::RuntimeFeatures>) {
        let state = self.state.read();
        (state.handlers.clone(), state.features)
    }
}

fn trouble(conditions: &[v1::RuntimeCondition], type_: &str) -> Option<String> {
    match conditions.iter().find(|condition| condition.r#type == type_) {
        Some(found) if found.status => None,
        Some(found) => Some(format!("{type_}=false reason:{} message:{}", found.reason, found.message)),
        None => Some(format!("{type_} condition is missing")),
    }
}
