//! What an error of the API means to the caller.

use kube::core::Status;

/// An error of one call, with what was attempted.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}: {}", self.reason())]
pub struct CallError {
    attempt: String,
    source: Box<kube::Error>,
}

impl CallError {
    /// `attempt` reads like `update Deployment default/web`.
    pub fn new(attempt: impl Into<String>, source: kube::Error) -> Self {
        Self { attempt: attempt.into(), source: Box::new(source) }
    }

    /// The error itself.
    pub fn api(&self) -> &kube::Error {
        &self.source
    }

    fn reason(&self) -> String {
        self.source.text()
    }
}

/// Questions about errors of API calls.
pub trait ApiErrorExt {
    /// The Status, if the server answered with one.
    fn status(&self) -> Option<&Status>;
    /// The message of the Status, or the error's own text.
    fn text(&self) -> String;

    /// Whether the Status has this reason.
    fn has_reason(&self, reason: &str) -> bool {
        self.status().is_some_and(|s| s.reason == reason)
    }

    /// 404.
    fn is_not_found(&self) -> bool {
        self.status().is_some_and(|s| s.code == 404)
    }

    /// The write lost against another one.
    fn is_conflict(&self) -> bool {
        self.has_reason("Conflict")
    }

    /// The name is taken.
    fn is_already_exists(&self) -> bool {
        self.has_reason("AlreadyExists")
    }

    /// The object was refused for its content.
    fn is_invalid(&self) -> bool {
        self.has_reason("Invalid")
    }

    /// Not permitted.
    fn is_forbidden(&self) -> bool {
        self.has_reason("Forbidden")
    }

    /// The revision is too old.
    fn is_expired(&self) -> bool {
        self.has_reason("Expired") || self.has_reason("Gone") || self.status().is_some_and(|s| s.code == 410)
    }

    /// The namespace is being deleted, so nothing can be created in it.
    fn is_namespace_terminating(&self) -> bool {
        let causes = self.status().and_then(|s| s.details.as_ref()).map(|d| d.causes.as_slice()).unwrap_or_default();
        causes.iter().any(|c| c.reason == "NamespaceTerminating")
    }

    /// Whether the same call may succeed later without anybody changing anything.
    fn is_transient(&self) -> bool {
        match self.status() {
            None => true,
            Some(status) => matches!(status.code, 429 | 500 | 502 | 503 | 504),
        }
    }
}

impl ApiErrorExt for kube::Error {
    fn status(&self) -> Option<&Status> {
        match self {
            Self::Api(status) => Some(status),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self.status() {
            Some(status) if !status.message.is_empty() => status.message.clone(),
            Some(status) => format!("{} ({})", status.reason, status.code),
            None => runtime_text(self),
        }
    }
}

impl ApiErrorExt for CallError {
    fn status(&self) -> Option<&Status> {
        self.source.status()
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

fn runtime_text(error: &kube::Error) -> String {
    util::chain(error)
}
