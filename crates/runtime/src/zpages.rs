//! Debugging endpoints of every component: `/configz`, `/statusz`, `/flagz`, `/debug/flags/v`, `/version`.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, put},
};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{Runtime, flags::FlagValue, logging, version};

const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility \
                       guarantees and is for debugging purposes only.";
/// First path segments that `/statusz` does not list.
const HIDDEN: [&str; 5] = ["/api", "/apis", "/openapi", "/openid", "/.well-known"];

#[derive(Clone)]
struct Pages {
    component: &'static str,
    flags: Arc<[FlagValue]>,
    paths: Arc<[String]>,
    started: SystemTime,
    clock: Arc<dyn crate::clock::Clock>,
}

/// `/statusz`, `/flagz`, `/debug/flags/v` and `/version` of a component that serves `paths`.
pub fn router(runtime: &Runtime, paths: &[&str]) -> Router {
    let mut shown: Vec<String> =
        paths.iter().map(|p| first_segment(p)).filter(|p| !HIDDEN.contains(&p.as_str())).collect();
    shown.sort();
    shown.dedup();
    let pages = Pages {
        component: runtime.component,
        flags: Arc::clone(&runtime.flags),
        paths: shown.into(),
        started: runtime.clock.now(),
        clock: Arc::clone(&runtime.clock),
    };
    Router::new()
        .route("/statusz", get(statusz))
        .route("/flagz", get(flagz))
        .route("/debug/flags/v", put(set_verbosity).fallback(no_such_method))
        .route("/version", get(version_document))
        .route("/version/", get(version_document))
        .with_state(pages)
}

/// `/configz` with one versioned configuration object under `key`.
pub fn configz(key: &str, config: impl Fn() -> Value + Clone + Send + Sync + 'static) -> Router {
    let key = key.to_owned();
    Router::new().route(
        "/configz",
        get(move || {
            let mut document = serde_json::Map::new();
            document.insert(key.clone(), config());
            let headers = [
                (header::CONTENT_TYPE, "application/json"),
                (header::CACHE_CONTROL, "no-cache, private"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ];
            let answer = (headers, Value::Object(document).to_string()).into_response();
            async move { answer }
        }),
    )
}

fn first_segment(path: &str) -> String {
    let name = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    format!("/{name}")
}

/// The form an `Accept` header asks for.
enum Form {
    Text,
    Json(&'static str),
    Yaml(&'static str),
}

/// `None`: nothing that is asked for can be given.
fn negotiate(headers: &HeaderMap, kind: &str) -> Option<Form> {
    let accept: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    if accept.is_empty() {
        return Some(Form::Text);
    }
    accept.iter().flat_map(|v| v.split(',')).find_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next()?;
        let mut named = BTreeMap::new();
        for (key, value) in parts.filter_map(|p| p.split_once('=')) {
            named.insert(key.trim(), value.trim());
        }
        match media {
            "text/plain" | "text/*" | "*/*" => Some(Form::Text),
            "application/json" | "application/yaml" => {
                if named.get("as") != Some(&kind) || named.get("g") != Some(&"config.k8s.io") {
                    return None;
                }
                let served = match *named.get("v")? {
                    "v1beta1" => "v1beta1",
                    "v1alpha1" => "v1alpha1",
                    _ => return None,
                };
                Some(if media == "application/json" { Form::Json(served) } else { Form::Yaml(served) })
            }
            _ => None,
        }
    })
}

fn structured(form: &Form, kind: &str, mut object: Value) -> Option<Response> {
    let (served, yaml) = match form {
        Form::Text => return None,
        Form::Json(v) => (*v, false),
        Form::Yaml(v) => (*v, true),
    };
    object["kind"] = Value::from(kind);
    object["apiVersion"] = Value::from(format!("config.k8s.io/{served}"));
    let (media, body) = if yaml {
        ("application/yaml", serde_yaml::to_string(&object).unwrap_or_default())
    } else {
        ("application/json", object.to_string())
    };
    let mut answer = ([(header::CONTENT_TYPE, media)], body).into_response();
    if served == "v1alpha1"
        && let Ok(warning) = http::HeaderValue::from_str(&format!(
            "299 - \"config.k8s.io/v1alpha1 {kind} is deprecated; use config.k8s.io/v1beta1 {kind}\""
        ))
    {
        answer.headers_mut().insert(header::WARNING, warning);
    }
    Some(answer)
}

fn not_acceptable() -> Response {
    (
        StatusCode::NOT_ACCEPTABLE,
        "only the following media types are accepted: text/plain, application/json, application/yaml\n",
    )
        .into_response()
}

fn plain(body: String) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, body).into_response()
}

/// One of the delimiters that keep readers from parsing the text form.
fn delimiter() -> &'static str {
    use rand::Rng;
    [":", ": ", "=", " "][rand::rng().random_range(0..4)]
}

async fn statusz(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let Some(form) = negotiate(&headers, "Statusz") else { return not_acceptable() };
    let started = OffsetDateTime::from(pages.started);
    let up = pages.clock.now().duration_since(pages.started).unwrap_or_default().as_secs();
    let version = version::git_version().trim_start_matches('v');
    let go = version::info()["goVersion"].as_str().unwrap_or_default().to_owned();
    let object = json!({
        "metadata": {"name": pages.component},
        "startTime": started.replace_nanosecond(0).unwrap_or(started).format(&Rfc3339).unwrap_or_default(),
        "uptimeSeconds": up,
        "goVersion": go,
        "binaryVersion": version,
        "emulationVersion": version::emulated().to_string(),
        "paths": pages.paths.iter().collect::<Vec<_>>(),
    });
    if let Some(answer) = structured(&form, "Statusz", object) {
        return answer;
    }
    let d = delimiter();
    let mut lines = format!("\n{} statusz\n{WARNING}\n\n", pages.component);
    let start = started.format(&Rfc3339).unwrap_or_default();
    lines.push_str(&format!("Started{d} {start}\n"));
    lines.push_str(&format!("Up{d} {} hr {:02} min {:02} sec\n", up / 3600, up / 60 % 60, up % 60));
    lines.push_str(&format!(
        "Go version{d} {go}\nBinary version{d} {version}\nEmulation version{d} {}\n",
        version::emulated()
    ));
    lines.push_str(&format!("Paths{d} {}\n", pages.paths.join(" ")));
    plain(lines)
}

async fn flagz(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let Some(form) = negotiate(&headers, "Flagz") else { return not_acceptable() };
    let flags: BTreeMap<&str, &str> = pages.flags.iter().map(|f| (f.name.as_str(), f.value.as_str())).collect();
    let object = json!({"metadata": {"name": pages.component}, "flags": flags});
    if let Some(answer) = structured(&form, "Flagz", object) {
        return answer;
    }
    let d = delimiter();
    let mut lines = format!("\n{} flagz\n{WARNING}\n\n", pages.component);
    for (name, value) in flags {
        lines.push_str(&format!("{name}{d}{value}\n"));
    }
    plain(lines)
}

async fn set_verbosity(body: Bytes) -> Response {
    let text = String::from_utf8_lossy(&body).trim().to_owned();
    match text.parse::<i32>() {
        Ok(level) => {
            logging::set_verbosity(level);
            plain(format!("successfully set klog.logging.verbosity to {level}"))
        }
        Err(_) => {
            let reason =
                format!("failed set klog.logging.verbosity {text}: strconv.ParseInt: parsing {text:?}: invalid syntax");
            (StatusCode::BAD_REQUEST, reason).into_response()
        }
    }
}

async fn no_such_method() -> Response {
    (StatusCode::NOT_ACCEPTABLE, "unsupported http method").into_response()
}

async fn version_document() -> Response {
    let body = serde_json::to_string_pretty(&version::info()).unwrap_or_default();
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
