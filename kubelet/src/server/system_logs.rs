//! `/logs/`: files of the node's log directory.

use std::path::{Path, PathBuf};

use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderValue, LOCATION};
use http::{Response, StatusCode};

use super::log_query::LogQuery;
use super::text;
use crate::platform;

/// Larger files are not sent.
pub(super) const MAX_FILE: u64 = 64 << 20;

/// What is asked for below `root`; with a query, where those are allowed, logs of services.
pub(super) async fn answer(path: &str, query: Option<&str>, root: &Path) -> Response<Body> {
    let Some(rest) = path.strip_prefix("/logs/") else {
        let mut response = text(StatusCode::MOVED_PERMANENTLY, "");
        response.headers_mut().insert(LOCATION, HeaderValue::from_static("/logs/"));
        return response;
    };
    match query.map(LogQuery::read) {
        Some(Err(problems)) => return text(StatusCode::BAD_REQUEST, format!("{problems}\n")),
        Some(Ok(Some(query))) => return query.answer(rest, root).await,
        Some(Ok(None)) | None => {}
    }
    let relative: PathBuf = super::query_pairs(&format!("p={}", rest.replace('+', "%2B")))
        .into_iter()
        .map(|(_, value)| PathBuf::from(value))
        .next()
        .unwrap_or_default();
    show(&relative, root).await
}

/// A listing of a directory, or a file.
pub(super) async fn show(relative: &Path, root: &Path) -> Response<Body> {
    let plain = relative.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if !plain {
        return text(StatusCode::BAD_REQUEST, "invalid URL path\n");
    }
    let (root, relative) = (root.to_owned(), relative.to_owned());
    let read = tokio::task::spawn_blocking(move || look(&root, &relative)).await;
    match read {
        Ok(Ok(Found::File(bytes))) => {
            let mut response = Response::new(Body::from(bytes));
            let kind = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Ok(Ok(Found::Directory(names))) => {
            let lines: Vec<String> =
                names.iter().map(|name| format!("<a href=\"{0}\">{0}</a>\n", escaped(name))).collect();
            let mut response = Response::new(Body::from(format!("<pre>\n{}</pre>\n", lines.concat())));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            response
        }
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            text(StatusCode::FORBIDDEN, "403 Forbidden\n")
        }
        _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

enum Found {
    File(Vec<u8>),
    Directory(Vec<String>),
}

/// Never through a link that leaves the directory.
fn look(root: &Path, relative: &Path) -> std::io::Result<Found> {
    let whole = root.join(relative);
    let real = whole.canonicalize()?;
    if !real.starts_with(root.canonicalize()?) {
        return Err(std::io::Error::from(std::io::ErrorKind::PermissionDenied));
    }
    if !real.is_dir() {
        return platform::read_beneath(root, relative, MAX_FILE).map(Found::File);
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&real)?.flatten() {
        let mut name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            name.push('/');
        }
        names.push(name);
    }
    names.sort();
    Ok(Found::Directory(names))
}

fn escaped(name: &str) -> String {
    name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_directory_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("log");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        std::fs::write(root.join("sub/file"), "text").unwrap();
        std::fs::write(dir.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), root.join("link")).unwrap();
        for (path, status) in [
            ("/logs/", 200),
            ("/logs/sub/file", 200),
            ("/logs/sub%2Ffile", 200),
            ("/logs", 301),
            ("/logs/absent", 404),
            ("/logs/../secret", 400),
            ("/logs/%2e%2e/secret", 400),
            ("/logs/link", 403),
        ] {
            assert_eq!(answer(path, None, &root).await.status().as_u16(), status, "{path}");
        }
    }
}
