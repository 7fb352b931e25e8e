//! Answers: objects, lists and errors in the negotiated form, compressed where it pays.

use std::io::Write;

use axum::body::Body;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use machinery::{ApiError, ApiResult, GroupVersionKind};
use serde_json::Value;
use storage::cache::CachedObject;
use time::OffsetDateTime;

use crate::{
    negotiate::{Form, Media, Output},
    print::{self, IncludeObject, Printer},
};

/// Bodies longer than this are compressed for clients that accept it (upstream's threshold, bytes).
pub const GZIP_THRESHOLD: usize = 128 * 1024;

/// How one answer is to be written.
#[derive(Clone, Copy)]
pub struct Writer<'a> {
    /// Negotiated output.
    pub output: Output,
    /// Printer for tables.
    pub printer: &'a dyn Printer,
    /// `includeObject` of tables.
    pub include: IncludeObject,
    /// Whether the client accepts gzip.
    pub gzip: bool,
}

/// Whether the client accepts gzip.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .any(|v| v.split(',').any(|e| e.split(';').next().unwrap_or("").trim() == "gzip"))
}

impl Writer<'_> {
    /// An object that stands ready as JSON.
    pub fn json_object(&self, code: StatusCode, json: Bytes) -> ApiResult<Response<Body>> {
        if self.output == Output::JSON {
            return Ok(self.bytes(code, Media::Json, json));
        }
        self.object(code, serde_json::from_slice(&json).map_err(ApiError::internal)?)
    }

    /// A cached object in the version it is stored in.
    pub fn cached(&self, code: StatusCode, object: &CachedObject, gvk: &GroupVersionKind) -> ApiResult<Response<Body>> {
        if (self.output.media, self.output.form) == (Media::Protobuf, Form::Object) {
            return Ok(self.bytes(code, Media::Protobuf, enveloped(object, gvk)?));
        }
        self.json_object(code, object.json.clone())
    }

    /// An object as a value tree.
    pub fn object(&self, code: StatusCode, object: Value) -> ApiResult<Response<Body>> {
        let version = self.output.meta_version;
        let object = match self.output.form {
            Form::Object => object,
            Form::PartialMetadata | Form::PartialMetadataList => print::partial(object, version),
            Form::Table => {
                let metadata = print::table_metadata(&object);
                let row = print::row(self.printer, object, self.include, version, OffsetDateTime::now_utc());
                print::table(self.printer.definitions(), vec![row], metadata, version)
            }
        };
        self.value(code, &object)
    }

    /// A value tree as it is.
    pub fn value(&self, code: StatusCode, value: &Value) -> ApiResult<Response<Body>> {
        Ok(self.bytes(code, self.output.media, encode(value, self.output)?))
    }

    /// Ready bytes, compressed if long enough.
    pub fn bytes(&self, code: StatusCode, media: Media, bytes: Bytes) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = code;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media.content_type()));
        let small = if self.gzip && bytes.len() > GZIP_THRESHOLD { compress(&bytes) } else { None };
        let body = match small {
            Some(small) => {
                mark_compressed(headers);
                small
            }
            None => bytes,
        };
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        *response.body_mut() = Body::from(body);
        response
    }
}

/// Name of the protobuf message among the encodings of a cached object.
const PROTOBUF: u64 = 1;

/// The protobuf message of an object in its stored version, without the envelope.
pub fn message(object: &CachedObject, gvk: &GroupVersionKind) -> ApiResult<Bytes> {
    object.alternate(PROTOBUF, |object| {
        let value: Value = serde_json::from_slice(&object.json).map_err(ApiError::internal)?;
        api::encode::encode_raw(&value, gvk).map(Bytes::from).map_err(ApiError::internal)
    })
}

/// The protobuf form of an object in its stored version.
pub fn enveloped(object: &CachedObject, gvk: &GroupVersionKind) -> ApiResult<Bytes> {
    let message = message(object, gvk)?;
    let mut out = api::encode::envelope(gvk, message.len());
    out.extend_from_slice(&message);
    out.extend_from_slice(api::encode::ENVELOPE_END);
    Ok(Bytes::from(out))
}

/// Sets the headers of a gzip body.
pub fn mark_compressed(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
}

fn compress(bytes: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

/// Encodes a value tree. JSON ends in a newline, as upstream's does.
pub fn encode(value: &Value, output: Output) -> ApiResult<Bytes> {
    let mut out = match (output.media, output.pretty) {
        (Media::Yaml, _) => return Ok(Bytes::from(serde_yaml::to_string(value).map_err(ApiError::internal)?)),
        (Media::Protobuf, _) => return Ok(Bytes::from(api::encode::encode(value).map_err(ApiError::internal)?)),
        (Media::Json, true) => serde_json::to_vec_pretty(value).map_err(ApiError::internal)?,
        (Media::Json, false) => serde_json::to_vec(value).map_err(ApiError::internal)?,
    };
    out.push(b'\n');
    Ok(Bytes::from(out))
}

/// The answer to a failed request.
pub fn error(error: &ApiError, media: Media) -> Response<Body> {
    let status = error.status();
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let body = match media {
        Media::Json => serde_json::to_vec(status).unwrap_or_default(),
        Media::Protobuf => {
            let value = serde_json::to_value(status).unwrap_or_default();
            api::encode::encode(&value).unwrap_or_default()
        }
        Media::Yaml => serde_yaml::to_string(status).unwrap_or_default().into_bytes(),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media.content_type()));
    if status.code == 403 {
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    let retry = status.details.as_ref().map_or(0, |d| d.retry_after_seconds);
    if retry > 0 {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(retry));
    }
    response
}

/// An answer that is a text.
pub fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
