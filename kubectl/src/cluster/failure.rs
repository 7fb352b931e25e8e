//! Refusals and broken connections in kubectl's words.

use http::{HeaderValue, Method, StatusCode};
use machinery::{Status, StatusDetails};

use super::Call;
use crate::error::CommandError;

/// The server refused: its Status, or one made of the code.
pub(super) fn of_answer(code: StatusCode, retry_after: Option<&HeaderValue>, body: &[u8], call: &Call) -> CommandError {
    if let Ok(status) = serde_json::from_slice::<Status>(body)
        && status.kind == "Status"
        && !(status.message.is_empty() && status.reason.is_empty())
    {
        return CommandError::server(status);
    }
    let text = String::from_utf8_lossy(body).trim().to_owned();
    let known = text.is_empty() || text.starts_with('<') || text.contains('\u{fffd}');
    let shown = if known { "unknown".to_owned() } else { text.clone() };
    let (reason, message) = match code.as_u16() {
        400 => ("BadRequest", "the server rejected our request for an unknown reason".to_owned()),
        401 => ("Unauthorized", "the server has asked for the client to provide credentials".to_owned()),
        403 => ("Forbidden", if known { "unknown".into() } else { text.clone() }),
        404 => ("NotFound", "the server could not find the requested resource".to_owned()),
        405 => ("MethodNotAllowed", "the server does not allow this method on the requested resource".to_owned()),
        406 => (
            "NotAcceptable",
            format!("the server was unable to respond with a content type that the client supports: {shown}"),
        ),
        409 => match call.method() {
            &Method::POST => ("AlreadyExists", "the server reported a conflict".to_owned()),
            _ => ("Conflict", "the server reported a conflict".to_owned()),
        },
        410 => ("Gone", "the requested resource has been removed".to_owned()),
        415 => ("UnsupportedMediaType", "the server was unable to process the body: unknown".to_owned()),
        422 => ("Invalid", "the server rejected our request due to an error in our request".to_owned()),
        429 => (
            "TooManyRequests",
            "the server has received too many requests and has asked us to try again later".to_owned(),
        ),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request".to_owned()),
        504 => (
            "Timeout",
            "the server was unable to return a response in the time allotted, but may still be processing the request"
                .to_owned(),
        ),
        500.. => {
            ("InternalError", format!("an error on the server ({shown:?}) has prevented the request from succeeding"))
        }
        other => ("", format!("the server responded with the status code {other} but did not return more information")),
    };
    let retry = retry_after.and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok()).unwrap_or(0);
    CommandError::server(Status {
        code: code.as_u16(),
        reason: reason.into(),
        message,
        details: Some(StatusDetails { retry_after_seconds: retry, ..StatusDetails::default() }),
        ..Status::default()
    })
}

/// The connection failed.
pub(super) fn of_transport(error: &(dyn std::error::Error + 'static), host: &str) -> CommandError {
    let mut chain = vec![error.to_string()];
    let mut source = error.source();
    while let Some(cause) = source {
        chain.push(cause.to_string());
        source = cause.source();
    }
    let whole = chain.join(": ");
    if whole.contains("Connection refused") {
        return CommandError::Verbatim(format!(
            "The connection to the server {host} was refused - did you specify the right host or port?"
        ));
    }
    let last = chain.last().cloned().unwrap_or_default();
    let text = if whole.contains("UnknownIssuer") {
        "tls: failed to verify certificate: x509: certificate signed by unknown authority".to_owned()
    } else if whole.contains("invalid peer certificate: Expired") {
        "tls: failed to verify certificate: x509: certificate has expired or is not yet valid".to_owned()
    } else if whole.contains("NotValidForName") || whole.contains("not valid for name") {
        format!("tls: failed to verify certificate: x509: certificate is not valid for {host}")
    } else if whole.contains("auth exec") || whole.contains("authentication error") {
        format!("getting credentials: {last}")
    } else if whole.contains("failed to lookup address") {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        format!("dial tcp: lookup {name}: no such host")
    } else {
        last
    };
    CommandError::Verbatim(format!("Unable to connect to the server: {text}"))
}

/// The answer did not begin in time.
pub(super) fn timed_out() -> CommandError {
    CommandError::Verbatim(
        "Unable to connect to the server: net/http: request canceled (Client.Timeout exceeded while awaiting headers)"
            .to_owned(),
    )
}
