//! `/logs/`: files of the log directory of this machine (`--enable-logs-handler`).

use std::path::PathBuf;

use axum::{
    Router,
    body::Body,
    extract::{self, State},
    routing::get,
};
use generic::respond;
use http::{Response, StatusCode, header};
use runtime::log_files::{self, LogFileError};

/// The directory.
const ROOT: &str = "/var/log";

/// The routes of the directory.
pub(crate) fn router() -> Router {
    router_of(ROOT.into())
}

fn router_of(root: PathBuf) -> Router {
    Router::new()
        .route("/logs", get(|| async { (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, "/logs/")]) }))
        .route("/logs/", get(|State(root): State<PathBuf>| answer(root, PathBuf::new())))
        .route(
            "/logs/{*path}",
            get(|State(root): State<PathBuf>, extract::Path(path): extract::Path<String>| answer(root, path.into())),
        )
        .with_state(root)
}

async fn answer(root: PathBuf, relative: PathBuf) -> Response<Body> {
    match log_files::show(&root, &relative).await {
        Ok(page) => page,
        Err(LogFileError::Path) => respond::plain(StatusCode::BAD_REQUEST, "invalid URL path\n"),
        Err(LogFileError::Forbidden | LogFileError::Unfit) => respond::plain(StatusCode::FORBIDDEN, "403 Forbidden\n"),
        Err(LogFileError::Missing) => respond::plain(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;

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
            ("/logs", 301),
            ("/logs/", 200),
            ("/logs/sub/", 200),
            ("/logs/sub/file", 200),
            ("/logs/absent", 404),
            ("/logs/..%2Fsecret", 400),
            ("/logs/link", 403),
        ] {
            let request = http::Request::get(path).body(Body::empty()).unwrap();
            let answer = router_of(root.clone()).oneshot(request).await.unwrap();
            assert_eq!(answer.status().as_u16(), status, "{path}");
        }
    }
}
