//! Events posted to a server, as lists.

use std::time::Duration;

use serde_json::{Value, json};

use crate::remote::{Remote, RemoteError};

/// Time for one answer.
const DEADLINE: Duration = Duration::from_secs(30);
/// Tries of a list.
const TRIES: u32 = 5;
/// Growth of the pause between tries.
const GROWTH: f64 = 1.5;

/// A server that takes events.
pub struct AuditWebhook {
    /// The server.
    pub remote: Remote,
    /// Pause before the second try of a list.
    pub backoff: Duration,
}

impl AuditWebhook {
    /// Posts events; again if that fails for a reason that may pass.
    pub(super) async fn post(&self, events: &[String]) -> Result<(), RemoteError> {
        let items: Vec<Value> = events.iter().filter_map(|event| serde_json::from_str(event).ok()).collect();
        let list = json!({"kind": "EventList", "apiVersion": "audit.k8s.io/v1", "metadata": {}, "items": items});
        let mut pause = self.backoff;
        for _ in 1..TRIES {
            match self.remote.post(&list, DEADLINE).await {
                Err(RemoteError::Transport { .. } | RemoteError::Status { status: 429 | 500..=599, .. }) => {}
                answer => return accepted(answer),
            }
            tokio::time::sleep(pause).await;
            pause = pause.mul_f64(GROWTH);
        }
        accepted(self.remote.post(&list, DEADLINE).await)
    }
}

/// What the server says besides that it has the events is of no interest.
fn accepted(answer: Result<Value, RemoteError>) -> Result<(), RemoteError> {
    match answer {
        Ok(_) | Err(RemoteError::Decode { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
