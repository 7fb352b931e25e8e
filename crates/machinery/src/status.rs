//! The `Status` object and the one error type that becomes it.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::gvk::{GroupKind, GroupResource};

/// Result of an API operation.
pub type ApiResult<T> = Result<T, ApiError>;

/// Machine-readable cause of a failure, as in `Status.reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Reason {
    Unknown,
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StoreReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

impl Reason {
    /// The text on the wire; empty for `Unknown`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::Conflict => "Conflict",
            Self::Gone => "Gone",
            Self::Invalid => "Invalid",
            Self::ServerTimeout => "ServerTimeout",
            Self::StoreReadError => "StorageReadError",
            Self::Timeout => "Timeout",
            Self::TooManyRequests => "TooManyRequests",
            Self::BadRequest => "BadRequest",
            Self::MethodNotAllowed => "MethodNotAllowed",
            Self::NotAcceptable => "NotAcceptable",
            Self::RequestEntityTooLarge => "RequestEntityTooLarge",
            Self::UnsupportedMediaType => "UnsupportedMediaType",
            Self::InternalError => "InternalError",
            Self::Expired => "Expired",
            Self::ServiceUnavailable => "ServiceUnavailable",
        }
    }
}

/// One entry of `Status.details.causes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusCause {
    /// Machine-readable cause, such as `FieldValueInvalid`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Text for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Path of the field at fault.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// `Status.details`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StatusDetails {
    /// Name of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Group of the resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Resource name in storage errors, kind in validation errors.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Uid of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Each problem found.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<StatusCause>,
    /// Seconds to wait before a retry; 0 for no advice.
    #[serde(skip_serializing_if = "is_zero")]
    pub retry_after_seconds: i32,
}

fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// The `v1 Status` object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// Always `Status`.
    pub kind: String,
    /// Always `v1`.
    pub api_version: String,
    /// List metadata; carries `continue` when a continue token expired.
    pub metadata: Map<String, Value>,
    /// `Success` or `Failure`.
    pub status: String,
    /// Text for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// See [`Reason`].
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// More about the failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<StatusDetails>,
    /// HTTP status code.
    pub code: u16,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            kind: "Status".into(),
            api_version: "v1".into(),
            metadata: Map::new(),
            status: "Failure".into(),
            message: String::new(),
            reason: String::new(),
            details: None,
            code: 500,
        }
    }
}

impl Status {
    /// A `Success` status with the given HTTP code.
    pub fn success(code: u16) -> Self {
        Self { status: "Success".into(), code, ..Self::default() }
    }
}

/// A failure that is answered as a [`Status`]. Texts follow the API machinery of Kubernetes v1.36.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError(Box<Status>);

impl ApiError {
    /// An error with the given HTTP code, reason and text.
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self(Box::new(Status { code, reason: reason.as_str().into(), message: message.into(), ..Status::default() }))
    }

    fn on_resource(code: u16, reason: Reason, message: String, resource: &GroupResource, name: &str) -> Self {
        Self::new(code, reason, message).with_details(StatusDetails {
            name: name.into(),
            group: resource.group.clone(),
            kind: resource.resource.clone(),
            ..StatusDetails::default()
        })
    }

    /// 404: no such object.
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::on_resource(404, Reason::NotFound, format!("{resource} \"{name}\" not found"), resource, name)
    }

    /// 404: no such resource in a built-in group version.
    pub fn no_resource() -> Self {
        Self::new(404, Reason::NotFound, "the server could not find the requested resource")
            .with_details(StatusDetails::default())
    }

    /// 409: the object exists.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::on_resource(409, Reason::AlreadyExists, format!("{resource} \"{name}\" already exists"), resource, name)
    }

    /// 409: the operation clashes with the current state.
    pub fn conflict(resource: &GroupResource, name: &str, cause: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {cause}");
        Self::on_resource(409, Reason::Conflict, message, resource, name)
    }

    /// 409: the resourceVersion of the request is stale.
    pub fn stale(resource: &GroupResource, name: &str) -> Self {
        let cause = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, cause)
    }

    /// 403: refused by admission or a subresource rule.
    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = match (resource.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{resource} is forbidden: {why}"),
            (false, false) => format!("{resource} \"{name}\" is forbidden: {why}"),
        };
        Self::on_resource(403, Reason::Forbidden, message, resource, name)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, Reason::Unauthorized, "Unauthorized")
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, message)
    }

    /// 405: the resource does not have the verb.
    pub fn method_not_supported(resource: &GroupResource, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind \"{resource}\"");
        Self::on_resource(405, Reason::MethodNotAllowed, message, resource, "")
    }

    /// 405: the path exists, the HTTP method does not.
    pub fn method_not_allowed() -> Self {
        Self::new(405, Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
            .with_details(StatusDetails::default())
    }

    /// 422 with one cause per problem. `causes` carry the message body without the path.
    pub fn invalid(kind: &GroupKind, name: &str, causes: Vec<StatusCause>) -> Self {
        let mut texts: Vec<String> = Vec::with_capacity(causes.len());
        for cause in &causes {
            let text = format!("{}: {}", cause.field, cause.message);
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
        let errors = match texts.len() {
            1 => texts.remove(0),
            _ => format!("[{}]", texts.join(", ")),
        };
        Self::new(422, Reason::Invalid, format!("{kind} \"{name}\" is invalid: {errors}")).with_details(StatusDetails {
            name: name.into(),
            group: kind.group.clone(),
            kind: kind.kind.clone(),
            causes,
            ..StatusDetails::default()
        })
    }

    /// 410 `Expired`: a resourceVersion or continue token is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, message)
    }

    /// 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, Reason::RequestEntityTooLarge, message)
    }

    /// 413 for a body over `limit` bytes.
    pub fn body_too_large(limit: usize) -> Self {
        Self::too_large(format!("Request entity too large: limit is {limit}"))
    }

    /// 415.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, Reason::UnsupportedMediaType, message)
    }

    /// 406.
    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(406, Reason::NotAcceptable, message)
    }

    /// 429 with the advice to retry after `seconds`.
    pub fn too_many_requests(message: impl Into<String>, seconds: i32) -> Self {
        Self::new(429, Reason::TooManyRequests, message).retry_after(seconds)
    }

    /// 500. The text is shown to the client: give no internals that could hold secrets.
    pub fn internal(cause: impl fmt::Display) -> Self {
        Self::new(500, Reason::InternalError, format!("Internal error occurred: {cause}")).with_details(StatusDetails {
            causes: vec![StatusCause { message: cause.to_string(), ..StatusCause::default() }],
            ..StatusDetails::default()
        })
    }

    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, Reason::ServiceUnavailable, message)
    }

    /// 504 with the `Timeout: ` prefix.
    pub fn timeout(message: &str, retry_after: i32) -> Self {
        Self::new(504, Reason::Timeout, format!("Timeout: {message}")).retry_after(retry_after)
    }

    /// 504: the request asks for a resourceVersion from the future.
    pub fn too_large_resource_version(want: i64, current: i64) -> Self {
        let mut error = Self::timeout(&format!("Too large resource version: {want}, current: {current}"), 1);
        error.0.details.get_or_insert_default().causes.push(StatusCause {
            reason: "ResourceVersionTooLarge".into(),
            message: "Too large resource version".into(),
            ..StatusCause::default()
        });
        error
    }

    /// Replaces the details.
    pub fn with_details(mut self, details: StatusDetails) -> Self {
        self.0.details = Some(details);
        self
    }

    /// Advises to retry after `seconds` (also sent as the `Retry-After` header).
    pub fn retry_after(mut self, seconds: i32) -> Self {
        self.0.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// Puts a text before the message.
    pub fn prefixed(mut self, prefix: &str) -> Self {
        self.0.message.insert_str(0, prefix);
        self
    }

    /// Changes the status in place.
    pub fn edit(mut self, change: impl FnOnce(&mut Status)) -> Self {
        change(&mut self.0);
        self
    }

    /// HTTP status code.
    pub fn code(&self) -> u16 {
        self.0.code
    }

    /// `Status.reason`.
    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    /// Whether this is a 404 `NotFound`.
    pub fn is_not_found(&self) -> bool {
        self.0.reason == Reason::NotFound.as_str()
    }

    /// Whether this is a 409 `Conflict`.
    pub fn is_conflict(&self) -> bool {
        self.0.reason == Reason::Conflict.as_str()
    }

    /// The object on the wire.
    pub fn status(&self) -> &Status {
        &self.0
    }

    /// Takes the object on the wire.
    pub fn into_status(self) -> Status {
        *self.0
    }
}

impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        Self(Box::new(status))
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for ApiError {}
