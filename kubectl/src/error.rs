//! Failures as kubectl words them.

use machinery::Status;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The server answered with a Status.
    #[error("{}", status_text(.0, None))]
    Server(Box<Status>),
    /// The same, while something was done with a manifest.
    #[error("{}", status_text(.status, Some(.doing)))]
    Manifest {
        /// What was being done, such as `error when creating "STDIN"`.
        doing: String,
        /// The answer.
        status: Box<Status>,
    },
    /// Anything else.
    #[error("error: {0}")]
    Plain(String),
    /// Text that stands as it is.
    #[error("{0}")]
    Verbatim(String),
}

impl CommandError {
    /// A plain error.
    pub fn plain(text: impl Into<String>) -> Self {
        Self::Plain(text.into())
    }

    /// Says what was being done when the server refused.
    #[must_use]
    pub fn during(self, doing: impl Into<String>) -> Self {
        match self {
            Self::Server(status) => Self::Manifest { doing: doing.into(), status },
            other => other,
        }
    }

    /// Whether the server found nothing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Server(status) if status.reason == "NotFound")
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
        assert_eq!(
            CommandError::Server(Box::new(missing)).to_string(),
            "Error from server (NotFound): pods \"x\" not found"
        );
        let cause = |field: &str| StatusCause {
            field: field.into(),
            message: "Required value".into(),
            ..StatusCause::default()
        };
        let kind = GroupKind { group: String::new(), kind: "Pod".into() };
        let one = ApiError::invalid(&kind, "p", vec![cause("spec.a")]).into_status();
        assert_eq!(CommandError::Server(Box::new(one)).to_string(), "The Pod \"p\" is invalid: spec.a: Required value");
        let two = ApiError::invalid(&kind, "p", vec![cause("a"), cause("b")]).into_status();
        assert_eq!(
            CommandError::Server(Box::new(two)).to_string(),
            "The Pod \"p\" is invalid: \n* a: Required value\n* b: Required value"
        );
    }
}
