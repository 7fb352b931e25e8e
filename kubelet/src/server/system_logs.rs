//! `/logs/`: files of the node's log directory.

use std::path::{Path, PathBuf};

use axum::body::Body;
use http::header::{HeaderValue, LOCATION};
use http::{Response, StatusCode};
use runtime::log_files::{self, LogFileError};

use super::log_query::LogQuery;
use super::text;

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
    match log_files::show(root, relative).await {
        Ok(page) => page,
        Err(LogFileError::Path) => text(StatusCode::BAD_REQUEST, "invalid URL path\n"),
        Err(LogFileError::Forbidden) => text(StatusCode::FORBIDDEN, "403 Forbidden\n"),
        Err(LogFileError::Unfit | LogFileError::Missing) => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
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
