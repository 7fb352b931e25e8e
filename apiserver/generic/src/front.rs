//! What happens to every request before anybody asks who sent it: refused while the server stops, counted so that the
//! server knows what still runs, and given the headers that the operator wants on every answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};
use machinery::ApiError;
use regex::RegexSet;
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::{negotiate::Media, request::RequestInfo, respond};

/// Watches that are ended in a second at least while the server stops.
const WATCHES_PER_SECOND: u64 = 200;
/// What browsers may send to and read from the server.
const METHODS: &str = "POST, GET, OPTIONS, PUT, DELETE, PATCH";
const HEADERS: &str =
    "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, If-Modified-Since";
const EXPOSED: &str = "Date";
/// Paths, by their beginnings, that are answered until the very end.
const EXEMPT_PATHS: [&str; 4] = ["/readyz", "/livez", "/healthz", "/metrics"];
/// User agents, by their beginnings, for which the same holds.
const EXEMPT_AGENT: &str = "kube-apiserver/";

/// Settings of the operator.
#[derive(Debug, Default)]
pub struct FrontSettings {
    /// Origins that browsers may ask from; empty for none.
    pub allowed_origins: Vec<String>,
    /// Directives of `Strict-Transport-Security`; without any the header is not sent.
    pub transport_security: Vec<String>,
    /// Chance that an answer over HTTP/2 asks the client to connect anew.
    pub goaway_chance: f64,
    /// Whether a stopping server asks clients to come back, rather than being gone at once.
    pub sends_retry_after: bool,
    /// Time over which watches are ended when the server stops; zero: all at once.
    pub watch_grace: Duration,
}

/// The front of the server.
pub struct Front {
    origins: Option<RegexSet>,
    transport_security: Option<HeaderValue>,
    goaway_chance: f64,
    sends_retry_after: bool,
    watch_grace: Duration,
    stopping: CancellationToken,
    requests: TaskTracker,
    watches: TaskTracker,
    ended_watches: Arc<AtomicU64>,
}

/// A request that is counted as long as this lives.
#[derive(Debug)]
pub struct Counted {
    _token: Option<TaskTrackerToken>,
}

impl Front {
    /// A front as the settings say. Fails on an origin that is no regular expression or a directive that is no header.
    pub fn new(settings: &FrontSettings) -> Result<Self, String> {
        let origins = match settings.allowed_origins.as_slice() {
            [] => None,
            some => Some(RegexSet::new(some).map_err(|error| error.to_string())?),
        };
        let transport_security = match settings.transport_security.as_slice() {
            [] => None,
            some => Some(HeaderValue::try_from(some.join("; ")).map_err(|error| error.to_string())?),
        };
        let (requests, watches) = (TaskTracker::new(), TaskTracker::new());
        requests.close();
        watches.close();
        Ok(Self {
            origins,
            transport_security,
            goaway_chance: settings.goaway_chance,
            sends_retry_after: settings.sends_retry_after,
            watch_grace: settings.watch_grace,
            stopping: CancellationToken::new(),
            requests,
            watches,
            ended_watches: Arc::default(),
        })
    }

    /// Counts a request, or refuses it because the server stops.
    pub(crate) fn enter(&self, info: &RequestInfo, headers: &HeaderMap) -> Result<Counted, Box<Response<Body>>> {
        // Counted first: who looks for what runs after `close` must find whoever got through.
        let token = (!info.is_long_running()).then(|| self.requests.token());
        if self.stopping.is_cancelled() && !is_exempt(info, headers) {
            return Err(Box::new(if self.sends_retry_after { come_back() } else { gone() }));
        }
        Ok(Counted { _token: token })
    }

    /// Headers of every answer.
    pub(crate) fn mark(&self, info: &RequestInfo, version: Version, headers: &mut HeaderMap) {
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
        if let Some(value) = &self.transport_security {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, value.clone());
        }
        let may_close = self.goaway_chance > 0.0 && version == Version::HTTP_2 && !info.is_long_running();
        if may_close && rand::random::<f64>() < self.goaway_chance {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// What a browser on another site is told. `Err` is the whole answer.
    pub(crate) fn cross_origin(&self, method: &Method, headers: &HeaderMap) -> Result<HeaderMap, Box<Response<Body>>> {
        let mut told = HeaderMap::new();
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(told) };
        let allowed = |set: &RegexSet| origin.to_str().is_ok_and(|text| set.is_match(text));
        if !self.origins.as_ref().is_some_and(allowed) {
            return Ok(told);
        }
        told.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
            (header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
            (header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
        ] {
            told.insert(name, HeaderValue::from_static(value));
        }
        if *method != Method::OPTIONS {
            return Ok(told);
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        *response.headers_mut() = told;
        Err(Box::new(response))
    }

    /// Takes no more requests from now on; watches end.
    pub fn close(&self) {
        self.stopping.cancel();
    }

    /// Whether a stopping server goes on listening until what runs has ended.
    pub fn sends_retry_after(&self) -> bool {
        self.sends_retry_after
    }

    /// Resolves when the requests that run have ended, `longest` has passed for those that are no watches, and the
    /// grace of watches for those that are.
    pub async fn drained(&self, longest: Duration) {
        let requests = tokio::time::timeout(longest, self.requests.wait());
        let watches = tokio::time::timeout(self.watch_grace, self.watches.wait());
        if let (Err(_), _) | (_, Err(_)) = tokio::join!(requests, watches) {
            tracing::info!(requests = self.requests.len(), watches = self.watches.len(), "Requests still run");
        }
    }

    /// Resolves when a watch shall end, which runs for as long as somebody holds this.
    pub(crate) fn watch_ends(&self) -> impl Future<Output = ()> + Send + 'static {
        let (stopping, grace) = (self.stopping.clone(), self.watch_grace);
        let (watches, ended) = (self.watches.clone(), Arc::clone(&self.ended_watches));
        let counted = watches.token();
        async move {
            let _counted = counted;
            stopping.cancelled().await;
            if !grace.is_zero() {
                let running = u64::try_from(watches.len()).unwrap_or(u64::MAX);
                tokio::time::sleep(turn(ended.fetch_add(1, Ordering::Relaxed), running, grace)).await;
            }
        }
    }
}

/// How long the `nth` of all watches goes on, so that not all clients come back at once.
fn turn(nth: u64, running: u64, grace: Duration) -> Duration {
    let rate = (running / grace.as_secs().max(1)).max(WATCHES_PER_SECOND);
    Duration::from_millis(nth.saturating_mul(1000) / rate).min(grace)
}

fn is_exempt(info: &RequestInfo, headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    EXEMPT_PATHS.iter().any(|path| info.path.starts_with(path)) || agent.starts_with(EXEMPT_AGENT)
}

fn come_back() -> Response<Body> {
    let text = "The apiserver is shutting down, please try again later.\n";
    let mut response = respond::plain(StatusCode::TOO_MANY_REQUESTS, text);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(5));
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn gone() -> Response<Body> {
    let error = ApiError::unavailable("apiserver is shutting down").retry_after(1);
    let mut response = respond::error(&error, Media::Json);
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Query;

    fn info(path: &str) -> RequestInfo {
        RequestInfo::parse(&Method::GET, path, &Query::default())
    }

    fn front(settings: &FrontSettings) -> Front {
        Front::new(settings).expect("a front")
    }

    #[tokio::test]
    async fn a_stopping_server_takes_nothing_new() {
        let headers = HeaderMap::new();
        for (sends_retry_after, status, seconds) in [(false, 503, "1"), (true, 429, "5")] {
            let front = front(&FrontSettings { sends_retry_after, ..FrontSettings::default() });
            let running = front.enter(&info("/api/v1/pods"), &headers).expect("served");
            front.close();
            let refused = front.enter(&info("/api/v1/pods"), &headers).expect_err("refused");
            assert_eq!(refused.status(), status);
            assert_eq!(refused.headers()[header::RETRY_AFTER], seconds);
            for path in ["/readyz", "/livez/ping", "/healthz", "/metrics"] {
                assert!(front.enter(&info(path), &headers).is_ok(), "{path}");
            }
            let mut own = HeaderMap::new();
            own.insert(header::USER_AGENT, HeaderValue::from_static("kube-apiserver/v1.36.0"));
            assert!(front.enter(&info("/api/v1/pods"), &own).is_ok());
            assert_eq!(front.requests.len(), 1);
            drop(running);
            front.drained(Duration::from_secs(60)).await;
            assert!(front.requests.is_empty());
        }
    }

    #[test]
    fn answers_carry_what_the_operator_wants() {
        let settings = FrontSettings {
            transport_security: vec!["max-age=60".into(), "preload".into()],
            goaway_chance: 1.0,
            ..FrontSettings::default()
        };
        let front = front(&settings);
        let mut headers = HeaderMap::new();
        front.mark(&info("/version"), Version::HTTP_2, &mut headers);
        assert_eq!(headers[header::STRICT_TRANSPORT_SECURITY], "max-age=60; preload");
        assert_eq!(headers[header::CACHE_CONTROL], "no-cache, private");
        assert_eq!(headers[header::CONNECTION], "close");
        for (path, version) in [("/version", Version::HTTP_11), ("/api/v1/watch/pods", Version::HTTP_2)] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
            front.mark(&info(path), version, &mut headers);
            assert!(!headers.contains_key(header::CONNECTION), "{path}");
            assert_eq!(headers[header::CACHE_CONTROL], "public");
        }
    }

    #[test]
    fn browsers_of_allowed_sites_are_told_so() {
        let front = front(&FrontSettings {
            allowed_origins: vec!["^https://a\\.example$".into(), "//b\\.example:".into()],
            ..FrontSettings::default()
        });
        let asks = |origin: &'static str, method: Method| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            front.cross_origin(&method, &headers)
        };
        let told = asks("https://a.example", Method::GET).expect("goes on");
        assert_eq!(told[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://a.example");
        assert_eq!(told[header::ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        let preflight = asks("http://b.example:8080", Method::OPTIONS).expect_err("answered");
        assert_eq!(preflight.status(), 204);
        assert_eq!(preflight.headers()[header::ACCESS_CONTROL_ALLOW_METHODS], METHODS);
        assert!(asks("https://a.example.evil", Method::OPTIONS).expect("goes on").is_empty());
    }

    #[test]
    fn watches_end_in_turns() {
        let grace = Duration::from_secs(10);
        assert_eq!(turn(0, 100, grace), Duration::ZERO);
        assert_eq!(turn(100, 100, grace), Duration::from_millis(500));
        assert_eq!(turn(10_000, 20_000, grace), Duration::from_secs(5));
        assert_eq!(turn(1_000_000, 100, grace), grace);
    }
}
