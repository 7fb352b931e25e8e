//! Failures as kubectl words them.

use machinery::Status;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The server answered with a Status.
    #[error("{}", status_text(.status, .doing.as_deref()))]
    Server {
        /// What was being done, such as `error when creating "STDIN"`.
        doing: Option<String>,
        /// The answer.
        status: Box<Status>,
    },
    /// Anything else; printed after `error: `.
    #[error("{0}")]
    Plain(String),
    /// Text that is printed as it is.
    #[error("{0}")]
    Verbatim(String),
    /// A wrong command line.
    #[error("{text}\nSee '{command} -h' for help and examples")]
    Usage {
        /// What is wrong.
        text: String,
        /// `kubectl get`.
        command: String,
    },
    /// Several failures, each of its own.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<CommandError>),
    /// The end of the process with this code; everything was said already.
    #[error("exit code {0}")]
    Exit(u8),
    /// A failure with an exit code of its own.
    #[error("{error}")]
    Coded {
        /// The failure.
        error: Box<CommandError>,
        /// The code.
        code: u8,
    },
}

impl CommandError {
    /// A plain error.
    pub fn plain(text: impl Into<String>) -> Self {
        Self::Plain(text.into())
    }

    /// The answer of a server.
    pub fn server(status: Status) -> Self {
        Self::Server { doing: None, status: Box::new(status) }
    }

    /// Says what was being done when the server refused.
    #[must_use]
    pub fn during(self, what: impl Into<String>) -> Self {
        match self {
            Self::Server { status, doing: None } => Self::Server { doing: Some(what.into()), status },
            Self::Plain(text) => Self::Plain(format!("{}: {text}", what.into())),
            other => other,
        }
    }

    /// The same with an exit code.
    #[must_use]
    pub fn with_code(self, code: u8) -> Self {
        Self::Coded { error: Box::new(self), code }
    }

    /// One error of many; none of none.
    pub fn all(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }

    /// The Status, if the server answered with one.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Server { status, .. } => Some(status),
            Self::Coded { error, .. } => error.status(),
            _ => None,
        }
    }

    /// Whether the server gave this reason.
    pub fn has_reason(&self, reason: &str) -> bool {
        self.status().is_some_and(|status| status.reason == reason)
    }

    /// Whether the server found nothing.
    pub fn is_not_found(&self) -> bool {
        self.has_reason("NotFound")
    }

    /// What is printed; nothing if everything was said.
    pub fn report(&self) -> Option<String> {
        let text = match self {
            Self::Exit(_) => return None,
            Self::Coded { error, .. } => return error.report(),
            Self::Plain(text) | Self::Usage { text, .. } if text.starts_with("error: ") => self.to_string(),
            Self::Plain(_) | Self::Usage { .. } => format!("error: {self}"),
            // The errors among several have no prefix.
            Self::Verbatim(_) | Self::Server { .. } | Self::Several(_) => self.to_string(),
        };
        Some(if text.ends_with('\n') { text } else { text + "\n" })
    }

    /// Exit code of the process.
    pub fn code(&self) -> u8 {
        match self {
            Self::Exit(code) | Self::Coded { code, .. } => *code,
            _ => 1,
        }
    }
}

/// What a process that dies of a closed pipe ends with.
const BROKEN_PIPE: u8 = 141;

impl From<std::io::Error> for CommandError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::Exit(BROKEN_PIPE),
            _ => Self::plain(error.to_string()),
        }
    }
}

fn status_text(status: &Status, doing: Option<&str>) -> String {
    if status.reason == "Invalid" {
        return invalid_text(status);
    }
    let message = match doing {
        Some(doing) => format!("{doing}: {}", status.message),
        None => status.message.clone(),
    };
    match status.reason.as_str() {
        "Unauthorized" => format!("error: You must be logged in to the server ({})", status.message),
        "" => format!("Error from server: {message}"),
        reason => format!("Error from server ({reason}): {message}"),
    }
}

fn invalid_text(status: &Status) -> String {
    let details = status.details.clone().unwrap_or_default();
    let causes: Vec<String> = details.causes.iter().map(|c| format!("{}: {}", c.field, c.message)).collect();
    let head = format!("The {} {:?} is invalid", details.kind, details.name);
    match causes.as_slice() {
        [] if details.kind.is_empty() => format!("The request is invalid: {}", status.message),
        [] => head,
        [one] => format!("{head}: {one}"),
        many => {
            let mut lines: Vec<&String> = Vec::new();
            many.iter().for_each(|c| {
                if !lines.contains(&c) {
                    lines.push(c);
                }
            });
            let lines: Vec<String> = lines.into_iter().map(|c| format!("* {c}")).collect();
            format!("{head}: \n{}", lines.join("\n"))
        }
    }
}

#[cfg(test)]
mod tests {
    use machinery::{ApiError, GroupKind, GroupResource, StatusCause};

    use super::*;

    #[test]
    fn texts_are_kubectls() {
        let missing = ApiError::not_found(&GroupResource::new("", "pods"), "x").into_status();
        assert_eq!(CommandError::server(missing).to_string(), "Error from server (NotFound): pods \"x\" not found");
        let cause = |field: &str| StatusCause {
            field: field.into(),
            message: "Required value".into(),
            ..StatusCause::default()
        };
        let kind = GroupKind { group: String::new(), kind: "Pod".into() };
        let one = ApiError::invalid(&kind, "p", vec![cause("spec.a")]).into_status();
        assert_eq!(CommandError::server(one).to_string(), "The Pod \"p\" is invalid: spec.a: Required value");
        let two = ApiError::invalid(&kind, "p", vec![cause("a"), cause("b")]).into_status();
        assert_eq!(
            CommandError::server(two).to_string(),
            "The Pod \"p\" is invalid: \n* a: Required value\n* b: Required value"
        );
    }
}
