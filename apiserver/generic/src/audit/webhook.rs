//! Events posted to a server, as lists.

use std::time::Duration;

use serde_json::{Value, json};

use crate::remote::{Remote, RemoteError, again};

/// Time for one answer.
const DEADLINE: Duration = Duration::from_secs(30);

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
        accepted(again(self.backoff, RemoteError::may_pass, || self.remote.post(&list, DEADLINE)).await)
    }
}

/// What the server says besides that it has the events is of no interest.
fn accepted(answer: Result<Value, RemoteError>) -> Result<(), RemoteError> {
    match answer {
        Ok(_) | Err(RemoteError::Decode { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
