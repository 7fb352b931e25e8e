//! An HTTP server that takes records.

use std::{collections::BTreeMap, path::Path, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::SinkError;
use crate::{options::Format, record::Record};

/// Bytes of an answer that are of interest.
const MAX_ANSWER: usize = 4096;

/// Why there is no sink.
#[derive(Debug, thiserror::Error)]
pub enum HttpSinkError {
    /// The URL is none.
    #[error("--sink-url: {0:?} is no http or https URL")]
    Url(String),
    /// A header is not one.
    #[error("--sink-header-file: line {0} is not \"Name: value\"")]
    Header(usize),
    /// A file cannot be read, or the authorities in it not used.
    #[error(transparent)]
    Tls(#[from] runtime::tls::TlsError),
}

/// The server.
pub(crate) struct HttpSink {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    url: Uri,
    format: Format,
    headers: HeaderMap,
    timeout: Duration,
}

/// How the server is reached.
pub(crate) struct Endpoint<'a> {
    pub(crate) url: &'a str,
    pub(crate) format: Format,
    pub(crate) header_file: Option<&'a Path>,
    pub(crate) authorities: &'a Path,
    pub(crate) timeout: Duration,
}

impl HttpSink {
    pub(crate) fn new(endpoint: &Endpoint<'_>) -> Result<Self, HttpSinkError> {
        let bad = || HttpSinkError::Url(endpoint.url.to_owned());
        let url: Uri = endpoint.url.parse().map_err(|_| bad())?;
        let tls = match (url.scheme_str(), url.host()) {
            (Some("https"), Some(_)) => runtime::tls::client_config(&runtime::tls::read(endpoint.authorities)?, None)?,
            // Never used: there is no handshake.
            (Some("http"), Some(_)) => runtime::tls::unverified_client_config(None)?,
            _ => return Err(bad()),
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(endpoint.timeout));
        let https = url.scheme_str() == Some("https");
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
        let connector = match https {
            true => connector.https_only().enable_http1().wrap_connector(tcp),
            false => connector.https_or_http().enable_http1().wrap_connector(tcp),
        };
        let mut headers = headers(endpoint.header_file)?;
        let kind = match endpoint.format {
            Format::Ndjson => "application/x-ndjson",
            Format::Loki => "application/json",
        };
        headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { client, url, format: endpoint.format, headers, timeout: endpoint.timeout })
    }

    /// Posts records.
    pub(super) async fn post(&self, records: &[Record]) -> Result<(), SinkError> {
        let body = match self.format {
            Format::Ndjson => ndjson(records),
            Format::Loki => loki(records),
        };
        let body = body.map_err(|error| SinkError::Never(error.to_string()))?;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.headers.clone();
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|error| SinkError::Later(util::chain(&error)))?;
            let status = answer.status();
            let text = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let text = text.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned()).unwrap_or_default();
            judge(status, &text)
        };
        let late = || SinkError::Later(format!("no answer within {:?}", self.timeout));
        tokio::time::timeout(self.timeout, exchange).await.map_err(|_| late())?
    }
}

/// What an answer means.
fn judge(status: StatusCode, text: &str) -> Result<(), SinkError> {
    match status {
        status if status.is_success() => Ok(()),
        StatusCode::PAYLOAD_TOO_LARGE => Err(SinkError::TooLarge),
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
            Err(SinkError::Never(format!("the server answered {status}: {text}")))
        }
        // A wrong token or path is for people to repair; nothing is lost meanwhile.
        status => Err(SinkError::Later(format!("the server answered {status}"))),
    }
}

fn headers(file: Option<&Path>) -> Result<HeaderMap, HttpSinkError> {
    let mut headers = HeaderMap::new();
    let Some(file) = file else { return Ok(headers) };
    let text = String::from_utf8_lossy(&runtime::tls::read(file)?).into_owned();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let bad = HttpSinkError::Header(number + 1);
        let Some((name, value)) = line.split_once(':') else { return Err(bad) };
        let (Ok(name), Ok(mut value)) = (name.trim().parse::<HeaderName>(), value.trim().parse::<HeaderValue>()) else {
            return Err(bad);
        };
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

pub(super) fn ndjson(records: &[Record]) -> serde_json::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for record in records {
        serde_json::to_writer(&mut lines, record)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Streams by their labels, each with its lines and their times in nanoseconds.
pub(super) fn loki(records: &[Record]) -> serde_json::Result<Vec<u8>> {
    let mut streams: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
    for record in records {
        let source = &record.kubernetes;
        let labels = json!({"namespace": source.namespace, "pod": source.pod, "container": source.container,
            "node": &*source.node, "stream": record.stream.as_str()});
        let time = record.time.as_ref().and_then(|time| time.parse::<Timestamp>().ok()).unwrap_or_else(Timestamp::now);
        let line = json!([time.as_nanosecond().to_string(), record.log]);
        streams.entry(labels.to_string()).or_insert_with(|| (labels, Vec::new())).1.push(line);
    }
    let streams: Vec<Value> =
        streams.into_values().map(|(stream, values)| json!({"stream": stream, "values": values})).collect();
    serde_json::to_vec(&json!({ "streams": streams }))
}
