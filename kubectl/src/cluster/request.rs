//! Requests.

use std::time::Duration;

use http::{Method, Request};
use kube::client::Body;
use serde_json::Value;

use crate::error::CommandError;

/// A request that can be sent.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    path: String,
    query: Vec<(String, String)>,
    accept: &'static str,
    content_type: &'static str,
    body: Vec<u8>,
    deadline: Option<Duration>,
}

impl Call {
    /// Any method on a path, which may have a query already.
    pub fn new(method: Method, path: &str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            query: Vec::new(),
            accept: "application/json",
            content_type: "application/json",
            body: Vec::new(),
            deadline: None,
        }
    }

    /// GET.
    pub fn get(path: &str) -> Self {
        Self::new(Method::GET, path)
    }

    /// POST of an object.
    pub fn post(path: &str, object: &Value) -> Self {
        Self::new(Method::POST, path).json(object)
    }

    /// PUT of an object.
    pub fn put(path: &str, object: &Value) -> Self {
        Self::new(Method::PUT, path).json(object)
    }

    /// PATCH with the media type of the patch.
    pub fn patch(path: &str, content_type: &'static str, patch: &Value) -> Self {
        let mut call = Self::new(Method::PATCH, path).json(patch);
        call.content_type = content_type;
        call
    }

    /// DELETE with options.
    pub fn delete(path: &str, options: &Value) -> Self {
        Self::new(Method::DELETE, path).json(options)
    }

    fn json(mut self, object: &Value) -> Self {
        self.body = object.to_string().into_bytes();
        self
    }

    /// With a body as it stands.
    #[must_use]
    pub fn with_body(mut self, content_type: &'static str, body: Vec<u8>) -> Self {
        self.content_type = content_type;
        self.body = body;
        self
    }

    /// With a query parameter.
    #[must_use]
    pub fn query(mut self, key: &str, value: impl Into<String>) -> Self {
        self.query.push((key.to_owned(), value.into()));
        self
    }

    /// With a query parameter if it is not empty.
    #[must_use]
    pub fn query_if(self, key: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.query(key, value) }
    }

    /// With what is accepted.
    #[must_use]
    pub fn accept(mut self, accept: &'static str) -> Self {
        self.accept = accept;
        self
    }

    /// With its own time limit until the answer begins.
    #[must_use]
    pub fn within(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// Path and query.
    pub fn uri(&self) -> String {
        let pairs: Vec<String> = self.query.iter().map(|(k, v)| format!("{k}={}", util::percent_encode(v))).collect();
        match (pairs.is_empty(), self.path.contains('?')) {
            (true, _) => self.path.clone(),
            (false, true) => format!("{}&{}", self.path, pairs.join("&")),
            (false, false) => format!("{}?{}", self.path, pairs.join("&")),
        }
    }

    pub(super) fn build(&self, timeout: Option<Duration>) -> Result<Request<Body>, CommandError> {
        let mut uri = self.uri();
        if let Some(limit) = timeout.or(self.deadline) {
            let separator = if uri.contains('?') { '&' } else { '?' };
            uri = format!("{uri}{separator}timeout={}s", limit.as_secs_f64());
        }
        let mut request =
            Request::builder().method(self.method.clone()).uri(uri).header(http::header::ACCEPT, self.accept);
        if !self.body.is_empty() {
            request = request.header(http::header::CONTENT_TYPE, self.content_type);
        }
        request.body(Body::from(self.body.clone())).map_err(|e| CommandError::plain(e.to_string()))
    }
}
