//! Headers on their way through.

use std::net::IpAddr;

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, Entry},
};

use streaming::HOP_BY_HOP;

use super::Incoming;
use crate::policy::Policy;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The client as a proxy in front tells it.
pub(super) fn client_of(headers: &HeaderMap) -> Option<IpAddr> {
    let list = headers.get(&FORWARDED_FOR)?.to_str().ok()?;
    list.split(',').next()?.trim().parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// Whether a proxy in front says that the client came by HTTPS.
pub(super) fn says_https(headers: &HeaderMap) -> bool {
    headers.get(&FORWARDED_PROTO).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// Removes what concerns one connection only.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        // `Connection: content-length` must not take away what frames the message.
        if *name != header::CONTENT_LENGTH && *name != header::HOST {
            headers.remove(name);
        }
    }
}

/// Makes the headers of a request those that the back end gets.
pub(super) fn prepare(headers: &mut HeaderMap, incoming: &Incoming, policy: &Policy, port: u16, upgrade: bool) {
    let protocol = headers.get(header::UPGRADE).cloned().filter(|_| upgrade);
    let trailers = headers.get_all(header::TE).iter().any(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    strip(headers);
    // A header `Proxy` becomes HTTP_PROXY in CGI programs; an answered expectation is over.
    headers.remove("proxy");
    headers.remove(header::EXPECT);
    if let Some(protocol) = protocol {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
    if trailers && policy.protocol.is_http2() {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    join_cookies(headers);
    forwarded(headers, incoming, port);
    let host = policy.upstream_vhost.clone().or_else(|| HeaderValue::from_str(&incoming.target.authority).ok());
    if let Some(host) = host {
        headers.insert(header::HOST, host);
    }
    if let Some(prefix) = &policy.forwarded_prefix {
        headers.insert(HeaderName::from_static("x-forwarded-prefix"), prefix.clone());
    }
    if let Entry::Vacant(id) = headers.entry(&REQUEST_ID) {
        let random = format!("{:032x}", rand::random::<u128>());
        if let Ok(value) = HeaderValue::from_str(&random) {
            id.insert(value);
        }
    }
}

/// Who came, how, and to where.
fn forwarded(headers: &mut HeaderMap, incoming: &Incoming, port: u16) {
    let scheme = if incoming.https_of_client { "https" } else { incoming.scheme.as_str() };
    if let Some(original) = headers.remove(&FORWARDED_FOR) {
        headers.insert(HeaderName::from_static("x-original-forwarded-for"), original);
    }
    let believed = |name: &HeaderName| headers.get(name).cloned().filter(|_| incoming.trusted);
    let host = believed(&FORWARDED_HOST).or_else(|| HeaderValue::from_str(&incoming.target.authority).ok());
    let port = believed(&FORWARDED_PORT).unwrap_or_else(|| HeaderValue::from(port));
    if let Ok(address) = HeaderValue::from_str(&incoming.client.to_string()) {
        headers.insert(HeaderName::from_static("x-real-ip"), address.clone());
        headers.insert(FORWARDED_FOR, address);
    }
    match host {
        Some(host) => headers.insert(FORWARDED_HOST, host),
        None => headers.remove(&FORWARDED_HOST),
    };
    headers.insert(FORWARDED_PORT, port);
    headers.remove(header::FORWARDED);
    for name in [FORWARDED_PROTO, HeaderName::from_static("x-forwarded-scheme"), HeaderName::from_static("x-scheme")] {
        headers.insert(name, HeaderValue::from_static(scheme));
    }
}

/// HTTP/2 may split cookies into several headers, HTTP/1.1 may not.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(b"; ".as_slice())) {
        headers.insert(header::COOKIE, joined);
    }
}
