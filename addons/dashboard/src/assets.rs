//! The files of the page, part of the program.

use axum::{Router, body::Body, routing::get};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

struct Asset {
    path: &'static str,
    kind: &'static str,
    text: &'static str,
}

macro_rules! assets {
    ($($path:literal $kind:literal $file:literal),* $(,)?) => {
        [$(Asset { path: $path, kind: $kind, text: include_str!(concat!("../web/", $file)) }),*]
    };
}

static ASSETS: [Asset; 15] = assets![
    "/" "text/html; charset=utf-8" "index.html",
    "/app.css" "text/css; charset=utf-8" "app.css",
    "/icon.svg" "image/svg+xml" "icon.svg",
    "/js/main.js" "text/javascript; charset=utf-8" "js/main.js",
    "/js/api.js" "text/javascript; charset=utf-8" "js/api.js",
    "/js/dom.js" "text/javascript; charset=utf-8" "js/dom.js",
    "/js/kinds.js" "text/javascript; charset=utf-8" "js/kinds.js",
    "/js/yaml.js" "text/javascript; charset=utf-8" "js/yaml.js",
    "/js/list.js" "text/javascript; charset=utf-8" "js/list.js",
    "/js/detail.js" "text/javascript; charset=utf-8" "js/detail.js",
    "/js/overview.js" "text/javascript; charset=utf-8" "js/overview.js",
    "/js/login.js" "text/javascript; charset=utf-8" "js/login.js",
    "/js/logs.js" "text/javascript; charset=utf-8" "js/logs.js",
    "/js/exec.js" "text/javascript; charset=utf-8" "js/exec.js",
    "/js/screen.js" "text/javascript; charset=utf-8" "js/screen.js",
];

/// Serves the files.
pub(crate) fn router() -> Router {
    let mut router = Router::new();
    for asset in &ASSETS {
        router = router.route(asset.path, get(move |headers: HeaderMap| async move { answer(asset, &headers) }));
    }
    router
}

/// Files change with the version only.
fn answer(asset: &Asset, asked: &HeaderMap) -> Response<Body> {
    let tag = format!("\"{}-{}\"", runtime::version::git_version(), asset.text.len());
    let known = asked.get(header::IF_NONE_MATCH).is_some_and(|known| known == tag.as_str());
    let body = if known { Body::empty() } else { Body::from(asset.text) };
    let mut response = Response::new(body);
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_make_no_markup_and_load_nothing_foreign() {
        for asset in &ASSETS {
            for word in
                ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http://", "https://"]
            {
                let allowed =
                    word == "http://" && asset.path == "/icon.svg" && asset.text.contains("http://www.w3.org/2000/svg");
                assert!(allowed || !asset.text.contains(word), "{} has {word}", asset.path);
            }
            let inline = asset.path == "/" && (asset.text.contains("style=") || asset.text.contains("onclick="));
            assert!(!inline, "{} has inline code", asset.path);
        }
    }

    #[test]
    fn every_import_is_served() {
        for asset in ASSETS.iter().filter(|asset| asset.path.ends_with(".js")) {
            for line in asset.text.lines().filter(|line| line.starts_with("import ")) {
                let file = line.rsplit('"').nth(1).unwrap_or_default().trim_start_matches("./");
                assert!(ASSETS.iter().any(|a| a.path == format!("/js/{file}")), "{}: {line}", asset.path);
            }
        }
    }
}
