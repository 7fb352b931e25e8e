//! HTTP GET for probes and hooks: one connection per request, no proxy, certificates not verified.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::header::{ACCEPT, HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue, StatusCode};
use k8s_openapi::api::core::v1::HTTPHeader;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::exchange::exchange;
use super::runner::Report;
use super::tcp::plain;

const MAX_REDIRECTS: usize = 10;

/// Where to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whether to speak TLS.
    pub tls: bool,
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path with query.
    pub path: String,
}

impl Target {
    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn url(&self) -> String {
        let slash = if self.path.starts_with('/') { "" } else { "/" };
        format!("{}://{}{slash}{}", if self.tls { "https" } else { "http" }, self.authority(), self.path)
    }
}

/// What came back.
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Where a redirect leads.
    pub location: Option<String>,
    /// The beginning of the body.
    pub body: Vec<u8>,
}

/// Given headers with the defaults added; an empty `Accept` removes it.
pub fn headers(given: &[HTTPHeader], user_agent: &str) -> HeaderMap {
    let mut map = HeaderMap::new();
    for header in given {
        let pair = (HeaderName::try_from(header.name.as_str()), HeaderValue::from_str(&header.value));
        if let (Ok(name), Ok(value)) = pair {
            map.append(name, value);
        }
    }
    if !map.contains_key(USER_AGENT)
        && let Ok(value) = HeaderValue::from_str(user_agent)
    {
        map.insert(USER_AGENT, value);
    }
    match map.get(ACCEPT) {
        None => drop(map.insert(ACCEPT, HeaderValue::from_static("*/*"))),
        Some(value) if value.is_empty() => drop(map.remove(ACCEPT)),
        Some(_) => {}
    }
    map
}

/// Success is a status of 200 to 399, redirects on the same host being followed.
pub(super) async fn probe(target: &Target, headers: &HeaderMap, timeout: Duration) -> Result<Report, String> {
    let deadline = tokio::time::Instant::now() + timeout;
    let mut at = target.clone();
    for _ in 0..MAX_REDIRECTS {
        let url = at.url();
        let answer = match tokio::time::timeout_at(deadline, get(&at, headers)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Ok(Report::Failure(format!("Get {url:?}: {error}"))),
            Err(_) => {
                let text = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
                return Ok(Report::Failure(format!("Get {url:?}: {text}")));
            }
        };
        if !(200..400).contains(&answer.status.as_u16()) {
            return Ok(Report::Failure(format!("HTTP probe failed with statuscode: {}", answer.status.as_u16())));
        }
        let next = answer.location.as_deref().filter(|_| answer.status.is_redirection());
        match next.map(|location| redirected(&at, location)) {
            None => return Ok(Report::Success),
            Some(Some(next)) if next.host == target.host => at = next,
            Some(_) => {
                let body = String::from_utf8_lossy(&answer.body).into_owned();
                return Ok(Report::Warning(format!("Probe terminated redirects, Response body: {body}")));
            }
        }
    }
    Ok(Report::Failure(format!("Get {:?}: stopped after {MAX_REDIRECTS} redirects", at.url())))
}

fn redirected(from: &Target, location: &str) -> Option<Target> {
    if let Some(path) = location.strip_prefix('/').filter(|rest| !rest.starts_with('/')) {
        return Some(Target { path: format!("/{path}"), ..from.clone() });
    }
    let uri: http::Uri = location.parse().ok()?;
    let tls = uri.scheme_str()? == "https";
    Some(Target {
        tls,
        host: uri.host()?.trim_matches(['[', ']']).to_owned(),
        port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
        path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
    })
}

/// One request. The caller limits its time.
pub async fn get(target: &Target, headers: &HeaderMap) -> Result<Answer, String> {
    let mut stream = TcpStream::connect((target.host.as_str(), target.port))
        .await
        .map_err(|error| format!("dial tcp {}: connect: {}", target.authority(), plain(&error)))?;
    let authority = target.authority();
    if !target.tls {
        return exchange(&mut stream, &target.path, &authority, headers).await;
    }
    let name = ServerName::try_from(target.host.clone()).map_err(|error| error.to_string())?;
    let mut stream = TlsConnector::from(Arc::clone(&TLS)).connect(name, stream).await.map_err(|error| {
        // A clear-text answer to a handshake is what a hook retries for.
        if error.to_string().contains("InvalidMessage") || error.to_string().contains("InvalidContentType") {
            HTTP_TO_HTTPS.to_owned()
        } else {
            error.to_string()
        }
    })?;
    let answer = exchange(&mut stream, &target.path, &authority, headers).await;
    // Who listens is told that no more comes; who does not has answered already.
    let _told = stream.shutdown().await.is_ok();
    answer
}

/// The message for a clear-text answer to an HTTPS request.
pub const HTTP_TO_HTTPS: &str = "http: server gave HTTP response to HTTPS client";

/// Probes ask whether a server answers, not who it is.
static TLS: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| match runtime::tls::unverified_client_config(None) {
    Ok(config) => Arc::new(config),
    // Without an identity nothing can be wrong with it.
    Err(error) => unreachable!("TLS configuration: {error}"),
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_headers_give_way() {
        let own = |name: &str, value: &str| HTTPHeader { name: name.into(), value: value.into() };
        let map =
            headers(&[own("user-agent", "x"), own("accept", ""), own("X-A", "1"), own("x-a", "2")], "kube-probe/1.36");
        assert_eq!(map[USER_AGENT], "x");
        assert!(!map.contains_key(ACCEPT));
        assert_eq!(map.get_all("x-a").iter().count(), 2);
        assert_eq!(headers(&[], "kube-probe/1.36")[ACCEPT], "*/*");
    }

    #[test]
    fn redirects_know_their_host() {
        let from = Target { tls: false, host: "10.0.0.1".into(), port: 80, path: "/".into() };
        assert_eq!(redirected(&from, "/next?a=1").unwrap().path, "/next?a=1");
        assert_eq!(redirected(&from, "https://10.0.0.1/x").unwrap().port, 443);
        assert_ne!(redirected(&from, "http://example.com/x").unwrap().host, from.host);
    }
}
