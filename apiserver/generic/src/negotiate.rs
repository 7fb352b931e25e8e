//! Content negotiation: what the client accepts and what it sent.

use http::{HeaderMap, HeaderValue, header};
use machinery::{ApiError, ApiResult};

use crate::request::Query;

/// Encoding of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Media {
    Json,
    Yaml,
    /// `application/vnd.kubernetes.protobuf`, of built-in kinds.
    Protobuf,
}

impl Media {
    /// The Content-Type of answers.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }
}

/// Form the object takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Form {
    Object,
    Table,
    PartialMetadata,
    PartialMetadataList,
}

/// The negotiated answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// Encoding.
    pub media: Media,
    /// Form.
    pub form: Form,
    /// Version of `meta.k8s.io` for the non-object forms.
    pub meta_version: &'static str,
    /// Indented JSON.
    pub pretty: bool,
}

impl Output {
    /// Plain JSON objects.
    pub const JSON: Self = Self { media: Media::Json, form: Form::Object, meta_version: "v1", pretty: false };
}

/// What the addressed endpoint can answer with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One object.
    Item,
    /// A list.
    List,
    /// A stream of events.
    Watch,
    /// Only whole objects (reviews, scale and so on).
    Plain,
}

const REFUSED: &str = "only the following media types are accepted: ";

/// Chooses the output from `Accept`. `protobuf`: whether the kind has that form. Errors with 406 when nothing fits.
pub fn output(headers: &HeaderMap, query: &Query, target: Target, protobuf: impl Fn() -> bool) -> ApiResult<Output> {
    let pretty_agent = || {
        let agent = headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("");
        ["curl", "Wget", "Mozilla/5.0"].iter().any(|p| agent.starts_with(p))
    };
    let pretty = match query.get("pretty") {
        Some(value) => !matches!(value, "false" | "0"),
        None => pretty_agent(),
    };
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(Output { pretty, ..Output::JSON });
    }
    for clause in &clauses {
        if let Some(mut output) = clause.accept(target).filter(|output| output.media != Media::Protobuf || protobuf()) {
            output.pretty = pretty || clause.pretty;
            return Ok(output);
        }
    }
    let known = [Media::Json, Media::Yaml, Media::Protobuf].into_iter();
    let known = known.filter(|media| match media {
        Media::Json => true,
        Media::Yaml => target != Target::Watch,
        Media::Protobuf => protobuf(),
    });
    let end = if target == Target::Watch { ";stream=watch" } else { "" };
    let known: Vec<String> = known.map(|media| format!("{}{end}", media.content_type())).collect();
    Err(ApiError::not_acceptable(format!("{REFUSED}{}", known.join(", "))))
}

/// The encoding of errors, by the values of `Accept`: what the client likes best of all that can be had.
pub fn error_media<'a>(accept: impl IntoIterator<Item = &'a HeaderValue>) -> Media {
    clauses_of(accept).iter().find_map(|clause| clause.accept(Target::Item)).map_or(Media::Json, |output| output.media)
}

/// The clauses of `Accept`, best first.
fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    clauses_of(headers.get_all(header::ACCEPT))
}

fn clauses_of<'a>(accept: impl IntoIterator<Item = &'a HeaderValue>) -> Vec<Clause<'a>> {
    let values = accept.into_iter().filter_map(|v| v.to_str().ok());
    let parts = values.flat_map(|value| value.split(',')).filter(|clause| !clause.trim().is_empty());
    let mut clauses: Vec<Clause<'_>> = parts.map(Clause::parse).collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    clauses
}

struct Clause<'a> {
    media: &'a str,
    form: Option<&'a str>,
    group: Option<&'a str>,
    version: Option<&'a str>,
    pretty: bool,
    quality: f32,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let mut clause = Self {
            media: parts.next().unwrap_or(""),
            form: None,
            group: None,
            version: None,
            pretty: false,
            quality: 1.0,
        };
        for parameter in parts {
            match parameter.split_once('=') {
                Some(("as", v)) => clause.form = Some(v),
                Some(("g", v)) => clause.group = Some(v),
                Some(("v", v)) => clause.version = Some(v),
                Some(("pretty", v)) => clause.pretty = v == "1" || v == "true",
                Some(("q", v)) => clause.quality = v.parse().unwrap_or(0.0),
                _ => {}
            }
        }
        clause
    }

    fn accept(&self, target: Target) -> Option<Output> {
        let media = match self.media {
            "application/json" | "*/*" | "application/*" => Media::Json,
            "application/yaml" if target != Target::Watch => Media::Yaml,
            "application/vnd.kubernetes.protobuf" => Media::Protobuf,
            _ => return None,
        };
        if self.quality <= 0.0 {
            return None;
        }
        let Some(form) = self.form else {
            return Some(Output { media, ..Output::JSON });
        };
        let form = match (form, target) {
            (_, Target::Plain) => return None,
            // Tables have no protobuf form.
            ("Table", _) if media != Media::Protobuf => Form::Table,
            ("PartialObjectMetadata", Target::Item | Target::Watch) => Form::PartialMetadata,
            ("PartialObjectMetadataList", Target::List) => Form::PartialMetadataList,
            _ => return None,
        };
        let meta_version = match self.version {
            Some("v1") | None => "v1",
            Some("v1beta1") => "v1beta1",
            Some(_) => return None,
        };
        (self.group == Some("meta.k8s.io")).then_some(Output { media, form, meta_version, pretty: false })
    }
}

/// Encoding of a request body. A missing Content-Type is JSON. Errors with 415.
pub fn input(headers: &HeaderMap) -> ApiResult<Media> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    match content_type.split(';').next().unwrap_or("").trim() {
        "" | "application/json" => Ok(Media::Json),
        "application/yaml" => Ok(Media::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Media::Protobuf),
        _ => Err(ApiError::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            "application/json, application/yaml, application/vnd.kubernetes.protobuf"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_accept(accept: &str, target: Target) -> ApiResult<Output> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().expect("header"));
        output(&headers, &Query::default(), target, || true)
    }

    #[test]
    fn kubectl_get_negotiates_a_table() {
        let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(with_accept(accept, Target::List).expect("table").form, Form::Table);
        assert_eq!(with_accept(accept, Target::Plain).expect("object").form, Form::Object);
    }

    #[test]
    fn protobuf_is_for_kinds_that_have_it() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, "application/vnd.kubernetes.protobuf,application/json".parse().expect("header"));
        let choose = |target, protobuf| output(&headers, &Query::default(), target, || protobuf);
        assert_eq!(choose(Target::Item, true).expect("protobuf").media, Media::Protobuf);
        assert_eq!(choose(Target::Item, false).expect("json"), Output::JSON);
        let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
        let refused = with_accept(table, Target::List).expect_err("tables have no such form");
        assert_eq!(
            refused.status().message,
            "only the following media types are accepted: application/json, application/yaml, \
             application/vnd.kubernetes.protobuf"
        );
        let refused = with_accept("application/yaml", Target::Watch).expect_err("no YAML in streams");
        assert!(
            refused
                .status()
                .message
                .ends_with(": application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch")
        );
    }

    #[test]
    fn lists_and_items_have_their_own_metadata_form() {
        let list = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert!(with_accept(list, Target::Item).is_err());
        assert_eq!(with_accept(list, Target::List).expect("list").form, Form::PartialMetadataList);
    }
}
