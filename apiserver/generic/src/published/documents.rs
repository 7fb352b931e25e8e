//! The documents, made from a snapshot of offers.

use std::collections::HashSet;

use api::discovery::Discovery;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use super::{OpenApi, Snapshot};

/// A document with its ETag.
pub(super) struct Document {
    pub(super) bytes: Bytes,
    pub(super) hash: String,
    content_type: &'static str,
}

impl Document {
    pub(super) fn new(value: &Value) -> Self {
        Self::of(value.to_string().into(), "application/json")
    }

    pub(super) fn of(bytes: Bytes, content_type: &'static str) -> Self {
        let hash = Sha512::digest(&bytes).iter().map(|b| format!("{b:02X}")).collect();
        Self { bytes, hash, content_type }
    }

    /// Answers with the document, or that the client's copy is good.
    pub(super) fn answer(&self, headers: &HeaderMap, cache_control: &'static str) -> Response {
        let etag = format!("\"{}\"", self.hash);
        let unchanged = headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == etag.as_bytes());
        let common = [
            (header::ETAG, etag),
            (header::VARY, "Accept".to_owned()),
            (header::CACHE_CONTROL, cache_control.to_owned()),
        ];
        if unchanged {
            return (StatusCode::NOT_MODIFIED, common).into_response();
        }
        (common, [(header::CONTENT_TYPE, self.content_type)], self.bytes.clone()).into_response()
    }
}

/// Discovery in all its forms.
pub(super) struct Discovered {
    pub(super) groups: Discovery,
    pub(super) aggregated_core: Document,
    pub(super) aggregated_groups: Document,
}

/// A v2 part as text: paths and definitions by name.
pub(super) struct Swagger {
    paths: Vec<(String, String)>,
    definitions: Vec<(String, String)>,
}

fn texts(map: &Map<String, Value>) -> Vec<(String, String)> {
    map.iter().map(|(name, value)| (name.clone(), value.to_string())).collect()
}

fn write_members<'a>(out: &mut String, members: impl Iterator<Item = &'a (String, String)>) {
    let mut seen = HashSet::new();
    out.push('{');
    for (name, text) in members {
        if !seen.insert(name.as_str()) {
            continue;
        }
        if seen.len() > 1 {
            out.push(',');
        }
        out.push_str(&Value::from(name.as_str()).to_string());
        out.push(':');
        out.push_str(text);
    }
    out.push('}');
}

impl Snapshot {
    pub(super) fn discovered(&self) -> &Discovered {
        self.discovery.get_or_init(|| {
            let groups = self.groups();
            let aggregated = |core| {
                let mut bytes = groups.aggregated(core).to_string().into_bytes();
                bytes.push(b'\n');
                Document::of(bytes.into(), api::discovery::AGGREGATED)
            };
            Discovered { aggregated_core: aggregated(true), aggregated_groups: aggregated(false), groups }
        })
    }

    /// The v3 document of `apis/apps/v1`.
    pub(super) fn v3(&self, path: &str) -> Option<&Document> {
        let slot = self.v3.get(path)?;
        Some(slot.get_or_init(|| {
            let ready = self.at(path).find_map(|offer| match &offer.openapi {
                OpenApi::Ready { v3: Some(bytes), .. } => Some(bytes.clone()),
                _ => None,
            });
            let described = self.at(path).filter_map(|offer| match &offer.openapi {
                OpenApi::Described(describe) => Some(describe.v3()),
                _ => None,
            });
            match ready {
                Some(bytes) => Document::of(bytes, "application/json"),
                None => Document::new(&schema::v3::document(described)),
            }
        }))
    }

    /// The list of v3 documents with their hashes, by which clients cache them.
    pub(super) fn index(&self) -> &Document {
        self.index.get_or_init(|| {
            let mut paths = Map::new();
            for path in self.v3.keys() {
                let hash = self.v3(path).map_or("", |d| d.hash.as_str());
                paths.insert(path.clone(), json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}));
            }
            Document::new(&json!({"paths": paths}))
        })
    }

    pub(super) fn v2(&self) -> &Document {
        self.v2.get_or_init(|| {
            let parts: Vec<&Swagger> = self.held().map(|held| held.swagger()).collect();
            let mut out = Value::Object(schema::v2::head()).to_string();
            out.pop();
            out.push_str(",\"paths\":");
            write_members(&mut out, parts.iter().flat_map(|p| &p.paths));
            out.push_str(",\"definitions\":");
            write_members(&mut out, parts.iter().flat_map(|p| &p.definitions));
            out.push('}');
            Document::of(out.into(), "application/json")
        })
    }

    /// The v2 document in gnostic's protobuf.
    pub(super) fn v2_binary(&self) -> &Document {
        self.v2_binary.get_or_init(|| {
            let document: Value = serde_json::from_slice(&self.v2().bytes).unwrap_or_default();
            Document::of(schema::v2_protobuf::encode(&document).into(), schema::v2_protobuf::CONTENT_TYPE)
        })
    }
}

impl super::Held {
    fn swagger(&self) -> &Swagger {
        self.swagger.get_or_init(|| {
            let text =
                |part: &schema::v2::Part| Swagger { paths: texts(&part.paths), definitions: texts(&part.definitions) };
            match &self.offer.openapi {
                OpenApi::Described(describe) => text(&describe.v2()),
                OpenApi::Ready { v2: Some(part), .. } => text(part),
                OpenApi::Ready { v2: None, .. } | OpenApi::Absent => {
                    Swagger { paths: Vec::new(), definitions: Vec::new() }
                }
            }
        })
    }
}
