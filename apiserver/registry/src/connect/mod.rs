//! Subresources that reach through the apiserver: log, exec, attach, portforward and proxy.
//!
//! - [`dial`]: connections to kubelets, Pods and Services.
//! - [`egress`]: the proxies that are on the way to them.
//! - [`kubelet`]: where a node's kubelet is, and how it is spoken to.
//! - [`logs`], [`streams`]: what kubelets serve.
//! - [`webhook`]: calls of the server itself.
//! - [`proxy`]: plain and upgraded requests to nodes, Pods and Services.

pub mod credentials;
pub mod dial;
pub mod egress;
pub mod kubelet;
pub mod logs;
mod place;
pub mod proxy;
pub mod streams;
mod throttled;
pub mod webhook;

use machinery::{ApiError, Reason, StatusDetails};
use streaming::upgrade::Refusal;

/// A back end's failure as the client sees it: upstream's reading of foreign answers.
fn backend_failure(refusal: &Refusal, resource: &str, name: &str) -> ApiError {
    let code = refusal.status.as_u16();
    let text = String::from_utf8_lossy(&refusal.body).into_owned();
    let about = |reason: Reason, message: &str| {
        let details = StatusDetails { name: name.into(), kind: resource.into(), ..StatusDetails::default() };
        ApiError::new(code, reason, format!("{message} ( {resource} {name})")).with_details(details)
    };
    match code {
        500 => ApiError::internal(text),
        400 => ApiError::bad_request(text),
        401 => about(Reason::Unauthorized, "the server has asked for the client to provide credentials"),
        403 => about(Reason::Forbidden, &text),
        404 => about(Reason::NotFound, "the server could not find the requested resource"),
        405 => about(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource"),
        409 => about(Reason::Conflict, "the server reported a conflict"),
        422 => about(Reason::Invalid, "the server rejected our request due to an error in our request"),
        429 => about(
            Reason::TooManyRequests,
            "the server has received too many requests and has asked us to try again later",
        ),
        503 => about(Reason::ServiceUnavailable, "the server is currently unable to handle the request"),
        504 => about(
            Reason::Timeout,
            "the server was unable to return a response in the time allotted, but may still be processing the request",
        ),
        code if code >= 500 => about(
            Reason::InternalError,
            &format!("an error on the server ({text:?}) has prevented the request from succeeding"),
        ),
        _ => about(Reason::Unknown, "the server responded with the status code but did not return more information"),
    }
}
