//! What the log says of requests: each of them from verbosity 3 on.

use std::time::{Duration, Instant};

use axum::body::Body;
use http::{HeaderValue, Request, StatusCode, header};
use runtime::{flags::format_duration, logging};

use crate::{authn::Peer, flowcontrol::Found, metrics::Asked};

/// Verbosity from which on requests are logged.
const VERBOSITY: i32 = 3;
/// Characters of an audit ID that are shown.
const SHOWN: usize = 64;

/// A request that is on its way.
pub(crate) struct Journal {
    start: Instant,
    uri: String,
    agent: String,
    client: String,
}

impl Journal {
    /// Notes what the log may tell of a request.
    pub(crate) fn begin(request: &Request<Body>, peer: &Peer) -> Self {
        let agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        Self {
            start: Instant::now(),
            uri: request.uri().path_and_query().map(ToString::to_string).unwrap_or_default(),
            agent: agent.unwrap_or_default().to_owned(),
            client: peer.address.map(|address| address.to_string()).unwrap_or_default(),
        }
    }

    /// How long it took so far.
    pub(crate) fn took(&self) -> Duration {
        self.start.elapsed()
    }

    /// Tells of the request.
    pub(crate) fn end(self, asked: &Asked, audit_id: &HeaderValue, status: StatusCode, found: &Found) {
        let took = self.took();
        let audit_id: String = audit_id.to_str().unwrap_or_default().chars().take(SHOWN).collect();
        if logging::verbosity() < VERBOSITY {
            return;
        }
        let (schema, level) = found.names().unwrap_or_default();
        let seats = found.seats();
        tracing::info!(
            v = VERBOSITY,
            verb = asked.verb(),
            URI = self.uri,
            latency = format_duration(took),
            userAgent = self.agent,
            "audit-ID" = audit_id,
            srcIP = self.client,
            apf_pl = (!level.is_empty()).then_some(level),
            apf_fs = (!schema.is_empty()).then_some(schema),
            apf_iseats = seats.map(|(initial, ..)| initial),
            apf_fseats = seats.map(|(_, last, _)| last),
            apf_additionalLatency = seats.map(|(.., after)| format_duration(after)),
            apf_execution_time = found.ran().map(format_duration),
            hijacked = (status == StatusCode::SWITCHING_PROTOCOLS).then_some(true),
            resp = (status != StatusCode::SWITCHING_PROTOCOLS).then_some(status.as_u16()),
            "HTTP"
        );
    }
}
