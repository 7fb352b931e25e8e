//! Manifests from a URL.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use super::{Deliveries, Origin, Snapshot, SourceName, decode, prepare};
use crate::pods;

const MAX_BODY: usize = 10 << 20;
const DEADLINE: Duration = Duration::from_secs(10);

/// Asks a URL for manifests.
pub struct UrlSource {
    /// The URL.
    pub url: String,
    /// Headers to send.
    pub headers: BTreeMap<String, Vec<String>>,
    /// Node name.
    pub node: String,
    /// How often to ask.
    pub period: Duration,
}

impl UrlSource {
    /// Delivers what the URL answers whenever that changes.
    pub async fn run(self, deliveries: Deliveries, stop: CancellationToken) {
        let mut last: Option<Bytes> = None;
        loop {
            match tokio::time::timeout(DEADLINE, self.fetch()).await {
                Ok(Ok(body)) if last.as_ref() != Some(&body) => match self.pods(&body) {
                    Ok(pods) => {
                        last = Some(body);
                        if deliveries.send(Snapshot { source: SourceName::Http, pods }).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => tracing::error!(url = self.url, error, "manifests of the URL"),
                },
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(url = self.url, error, "failed to read pods from URL"),
                Err(_) => tracing::warn!(url = self.url, "failed to read pods from URL in time"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(self.period) => {}
            }
        }
    }

    async fn fetch(&self) -> Result<Bytes, String> {
        let connector = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|error| error.to_string())?
            .https_or_http()
            .enable_http1()
            .build();
        let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
        let mut request = Request::get(&self.url).body(Empty::new()).map_err(|error| error.to_string())?;
        for (name, values) in &self.headers {
            for value in values {
                let name = HeaderName::try_from(name).map_err(|error| error.to_string())?;
                let value = HeaderValue::try_from(value).map_err(|error| error.to_string())?;
                request.headers_mut().append(name, value);
            }
        }
        let answer = client.request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        if !status.is_success() {
            return Err(format!("{}: {status}", self.url));
        }
        let body = Limited::new(answer.into_body(), MAX_BODY).collect().await;
        Ok(body.map_err(|error| error.to_string())?.to_bytes())
    }

    fn pods(&self, body: &[u8]) -> Result<BTreeMap<String, Arc<Pod>>, String> {
        let origin = Origin { source: SourceName::Http, place: &self.url, node: &self.node };
        let mut found = BTreeMap::new();
        for value in decode(body, true).map_err(|error| error.to_string())? {
            let pod = prepare(&value, &origin).map_err(|error| error.to_string())?;
            found.insert(pods::uid(&pod).to_owned(), Arc::new(pod));
        }
        Ok(found)
    }
}
