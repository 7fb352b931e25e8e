//! Requests as another API server gets them, and its answers as clients get them.

use std::time::Duration;

use axum::body::Body;
use generic::{authn::Peer, user::User};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use streaming::{
    is_hop_by_hop,
    upgrade::{self, UpgradeRequest},
};

use crate::{backend::Backend, place::Place};

/// Time until an answer begins.
const ANSWER: Duration = Duration::from_secs(60);
const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA: &str = "x-remote-extra-";
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A plain text answer.
pub(crate) fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{text}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The answer while a server cannot be used.
pub(crate) fn unavailable() -> Response<Body> {
    plain(StatusCode::SERVICE_UNAVAILABLE, "service unavailable")
}

/// Passes a request on.
pub(crate) async fn pass_on(
    backend: &Backend,
    place: &Place,
    host: &str,
    mut request: Request<Body>,
    user: &User,
    peer: &Peer,
) -> Response<Body> {
    let failed = |error: &dyn std::fmt::Display| {
        tracing::warn!(%host, %error, "Error while proxying request");
        plain(StatusCode::SERVICE_UNAVAILABLE, &format!("error trying to reach service: {error}"))
    };
    identify(request.headers_mut(), user, peer);
    if upgrade::is_upgrade(request.headers()) {
        let target = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let (method, headers) = (request.method().clone(), request.headers().clone());
        let outgoing = UpgradeRequest { method, target, host: host.to_owned(), headers };
        let connection = match backend.connect(place).await {
            Ok(connection) => connection,
            Err(error) => return failed(&error),
        };
        return match upgrade::pass_through(request, connection, outgoing).await {
            Ok(answer) => answer,
            Err(error) => failed(&error),
        };
    }
    strip(request.headers_mut());
    match HeaderValue::from_str(host) {
        Ok(host) => request.headers_mut().insert(header::HOST, host),
        Err(error) => return failed(&error),
    };
    match backend.send(place, request, ANSWER).await {
        Ok(mut answer) => {
            strip(answer.headers_mut());
            answer
        }
        Err(error) => failed(&error),
    }
}

/// The answer, unless it sends clients elsewhere (CVE-2022-3172).
pub(crate) fn without_redirect(answer: Response<Body>) -> Response<Body> {
    let status = answer.status();
    if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
        let text = "the backend attempted to redirect this request, which is not permitted";
        return plain(StatusCode::BAD_GATEWAY, text);
    }
    answer
}

fn strip(headers: &mut HeaderMap) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| is_hop_by_hop(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

/// Replaces all credentials by who the user is.
fn identify(headers: &mut HeaderMap, user: &User, peer: &Peer) {
    let secret = |name: &HeaderName| {
        let name = name.as_str();
        name == "authorization" || name.starts_with("x-remote-") || name.starts_with("impersonate-")
    };
    let names: Vec<HeaderName> = headers.keys().filter(|name| secret(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    let mut add = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.append(name, value);
        }
    };
    add(USER, &user.name);
    if !user.uid.is_empty() {
        add(UID, &user.uid);
    }
    for group in &user.groups {
        add(GROUP, group);
    }
    for (key, values) in &user.extra {
        let name = HeaderName::try_from(format!("{EXTRA}{}", util::percent_encode(key).to_lowercase()));
        if let Ok(name) = name {
            values.iter().for_each(|value| add(name.clone(), value));
        }
    }
    if let Some(address) = peer.address {
        let before = headers.get(&FORWARDED_FOR).and_then(|value| value.to_str().ok());
        let chain = before.map_or_else(|| address.ip().to_string(), |before| format!("{before}, {}", address.ip()));
        if let Ok(value) = HeaderValue::try_from(chain) {
            headers.insert(FORWARDED_FOR, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("x-remote-user", "root"),
            ("x-remote-group", "system:masters"),
            ("x-remote-extra-a", "b"),
            ("impersonate-user", "root"),
            ("accept", "application/json"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let user = User {
            name: "jane".into(),
            uid: "7".into(),
            groups: vec!["dev".into(), "system:authenticated".into()],
            extra: [("example.com/scope".to_owned(), vec!["x".to_owned()])].into(),
        };
        let peer = Peer { address: Some(([10, 0, 0, 9], 1).into()), ..Peer::default() };
        identify(&mut headers, &user, &peer);
        let mut all: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        all.sort();
        assert_eq!(
            all,
            [
                "accept: application/json",
                "x-forwarded-for: 10.0.0.9",
                "x-remote-extra-example.com%2fscope: x",
                "x-remote-group: dev",
                "x-remote-group: system:authenticated",
                "x-remote-uid: 7",
                "x-remote-user: jane",
            ]
        );
    }

    #[test]
    fn redirects_are_refused_as_in_cve_2022_3172() {
        for (code, shown) in [(301, 502), (307, 502), (304, 304), (200, 200), (404, 404)] {
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::from_u16(code).unwrap();
            answer.headers_mut().insert(header::LOCATION, HeaderValue::from_static("https://elsewhere/"));
            let answer = without_redirect(answer);
            assert_eq!(answer.status().as_u16(), shown);
            assert!(shown != 502 || !answer.headers().contains_key(header::LOCATION));
        }
    }
}
