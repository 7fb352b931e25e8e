//! Requests in every encoding.

use http::Request;
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::Value;

/// An encoding of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

/// All of them.
pub(super) const ENCODINGS: [Encoding; 3] = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf];

impl Encoding {
    pub(super) const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    pub(super) fn encode(self, object: &Value) -> Vec<u8> {
        match self {
            Self::Json => object.to_string().into_bytes(),
            Self::Yaml => serde_yaml::to_string(object).expect("YAML").into_bytes(),
            Self::Protobuf => api::encode::encode(object).unwrap_or_else(|error| panic!("{error}: {object}")),
        }
    }

    pub(super) fn decode(self, bytes: &[u8]) -> Value {
        let text = || String::from_utf8_lossy(bytes).into_owned();
        match self {
            Self::Json => serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", text())),
            Self::Yaml => serde_yaml::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", text())),
            Self::Protobuf => {
                let (gvk, mut object) =
                    api::decode::decode(bytes).unwrap_or_else(|error| panic!("{error}: {}", text()));
                object["apiVersion"] = gvk.api_version().into();
                object["kind"] = gvk.kind.into();
                object
            }
        }
    }
}

/// Sends bytes and reads the answer in `accept`.
pub(super) async fn send(
    client: &Client,
    method: &str,
    path: &str,
    (content_type, body): (&str, Vec<u8>),
    accept: Encoding,
) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path).header("accept", accept.media_type());
    let request = request.header("content-type", content_type).body(Body::from(body)).expect("a request");
    let answer = client.send(request).await.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    let (parts, body) = answer.into_parts();
    let bytes = body.collect().await.unwrap_or_else(|error| panic!("{method} {path}: {error}")).to_bytes();
    let told = parts.headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if told.starts_with("text/plain") {
        return (parts.status.as_u16(), String::from_utf8_lossy(&bytes).into());
    }
    assert!(told.starts_with(accept.media_type()), "{method} {path}: {told}");
    (parts.status.as_u16(), accept.decode(&bytes))
}

/// Sends an object and reads the answer in the same encoding.
pub(super) async fn ask(client: &Client, method: &str, path: &str, encoding: Encoding, body: &Value) -> (u16, Value) {
    send(client, method, path, (encoding.media_type(), encoding.encode(body)), encoding).await
}

/// A GET in an encoding.
pub(super) async fn read(client: &Client, path: &str, encoding: Encoding) -> (u16, Value) {
    send(client, "GET", path, (encoding.media_type(), Vec::new()), encoding).await
}
