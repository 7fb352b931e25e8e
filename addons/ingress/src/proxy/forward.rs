//! Sends a request to an endpoint of its back end; to another one if that cannot be reached.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::body::Body;
use http::{Request, Response, StatusCode, Uri, Version, header, request::Parts};
use http_body::Body as _;

use super::{
    Incoming, Patience, Proxy, Scheme,
    body::{Progress, UpstreamBody},
    headers,
    pool::{Cause, Failure, Key, Sent},
    repeatable,
};
use crate::{affinity, backends::Endpoints, policy::Protocol, table::Route};

/// A request for a back end.
pub(super) struct Outgoing {
    pub(super) parts: Parts,
    pub(super) body: Body,
    /// With the query.
    pub(super) path: String,
    pub(super) progress: Arc<Progress>,
    /// Whether it wants to become something else.
    pub(super) upgrade: bool,
}

/// Endpoints that may be asked.
struct Candidates {
    addresses: Vec<SocketAddr>,
    name: Option<String>,
}

/// The answer as it begins, or the status for the client.
pub(super) async fn send(
    proxy: &Proxy,
    incoming: &Incoming,
    route: &Arc<Route>,
    outgoing: Outgoing,
) -> Result<Response<UpstreamBody>, StatusCode> {
    let policy = &route.policy;
    if policy.rewrite_target.is_some() && !incoming.target.is_text {
        return Err(StatusCode::BAD_REQUEST);
    }
    let patience = Patience::of(policy);
    let candidates = candidates(&route.backend.endpoints.load(), patience).await?;
    let sticky =
        policy.affinity.as_ref().and_then(|a| affinity::chosen(a, &outgoing.parts.headers, &candidates.addresses));
    let most = if policy.tries == 0 { candidates.addresses.len() } else { policy.tries };

    let Outgoing { parts, body, path, progress, upgrade } = outgoing;
    let again = (repeatable(&parts.method) && body.is_end_stream() && !upgrade).then(|| parts.clone());
    let mut request = Request::from_parts(parts, body);
    let mut tried: Vec<SocketAddr> = Vec::new();
    let mut preferred = sticky;
    loop {
        let next = preferred.take().or_else(|| route.backend.next(&candidates.addresses, &tried));
        let Some(address) = next else { return Err(StatusCode::BAD_GATEWAY) };
        let key = Key { address, protocol: policy.protocol, name: candidates.name.clone(), send: patience.send };
        address_to(&mut request, &key, &path)?;
        let failure = match proxy.pool.send(&key, request, patience, &progress, upgrade).await {
            Ok(sent) => return Ok(answer(proxy, incoming, route, sent, (address, sticky), patience)),
            Err(failure) => failure,
        };
        tracing::debug!(error = %failure.cause, endpoint = %address, ingress = %route.ingress, "A request failed");
        let status = status_of(&failure);
        // A connection that had served may just have been at its end.
        if failure.reused && failure.request.is_none() && again.is_some() && matches!(failure.cause, Cause::Broken(_)) {
            preferred = Some(address);
        } else {
            tried.push(address);
        }
        let repeated = again.clone().filter(|_| matches!(failure.cause, Cause::Broken(_)));
        request = match (failure.request, repeated) {
            (Some(back), _) => back,
            (None, Some(parts)) => Request::from_parts(parts, Body::empty()),
            (None, None) => return Err(status),
        };
        if tried.len() >= most || tried.len() >= candidates.addresses.len() {
            return Err(status);
        }
        proxy.metrics.retries.inc();
    }
}

async fn candidates(endpoints: &Endpoints, patience: Patience) -> Result<Candidates, StatusCode> {
    match endpoints {
        Endpoints::None => Err(StatusCode::SERVICE_UNAVAILABLE),
        Endpoints::Addresses(addresses) => Ok(Candidates { addresses: addresses.clone(), name: None }),
        Endpoints::External { host, port } => {
            let looked_up = tokio::time::timeout(patience.connect, tokio::net::lookup_host((host.as_str(), *port)));
            let Ok(Ok(found)) = looked_up.await else { return Err(StatusCode::BAD_GATEWAY) };
            // Names must not lead to what only this host may ask.
            let mut addresses: Vec<SocketAddr> = found.filter(|address| is_foreign(address.ip())).collect();
            addresses.sort_unstable();
            addresses.dedup();
            if addresses.is_empty() {
                Err(StatusCode::BAD_GATEWAY)
            } else {
                Ok(Candidates { addresses, name: Some(host.clone()) })
            }
        }
    }
}

/// Whether an address is not of this host or link.
fn is_foreign(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// Writes where a request goes.
fn address_to(request: &mut Request<Body>, key: &Key, path: &str) -> Result<(), StatusCode> {
    let bad = |_| StatusCode::BAD_REQUEST;
    if !key.protocol.is_http2() {
        *request.uri_mut() = path.parse().map_err(bad)?;
        *request.version_mut() = Version::HTTP_11;
        return Ok(());
    }
    let host = request.headers_mut().remove(header::HOST);
    let known = request.uri().authority().map(ToString::to_string);
    let authority =
        host.and_then(|host| host.to_str().ok().map(str::to_owned)).or(known).filter(|host| !host.is_empty());
    let authority = authority.unwrap_or_else(|| key.address.to_string());
    let scheme = if key.protocol == Protocol::Grpcs { "https" } else { "http" };
    *request.uri_mut() = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(path)
        .build()
        .map_err(|_| StatusCode::BAD_REQUEST)?;
    *request.version_mut() = Version::HTTP_2;
    Ok(())
}

fn answer(
    proxy: &Proxy,
    incoming: &Incoming,
    route: &Route,
    sent: Sent,
    (address, sticky): (SocketAddr, Option<SocketAddr>),
    patience: Patience,
) -> Response<UpstreamBody> {
    if let Some(took) = sent.connecting {
        proxy.metrics.connected(route, took);
    }
    proxy.metrics.answered(route, incoming.since.elapsed());
    let mut response = sent.response;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        headers::strip(response.headers_mut());
    }
    if let Some(affinity) = &route.policy.affinity {
        let renewed = sticky.is_none() || affinity.change_on_failure && sticky != Some(address);
        let path = if route.policy.has_regex() { "/" } else { &route.path };
        let cookie = affinity::cookie(affinity, path, &address, incoming.scheme == Scheme::Https).filter(|_| renewed);
        if let Some(cookie) = cookie {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    *response.version_mut() = Version::HTTP_11;
    response.map(|body| UpstreamBody::new(body, sent.lease, patience.read))
}

fn status_of(failure: &Failure) -> StatusCode {
    match failure.cause {
        Cause::Connect(_) | Cause::Broken(_) => StatusCode::BAD_GATEWAY,
        Cause::ConnectTimeout | Cause::Timeout => StatusCode::GATEWAY_TIMEOUT,
    }
}
