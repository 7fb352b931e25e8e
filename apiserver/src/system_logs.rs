//! `/logs/`: files of the log directory of this machine (`--enable-logs-handler`).

use std::path::{Component, Path, PathBuf};

use axum::{
    Router,
    body::Body,
    extract::{self, State},
    routing::get,
};
use generic::respond;
use http::{HeaderValue, Response, StatusCode, header};

/// The directory.
const ROOT: &str = "/var/log";
/// Larger files are not sent.
const MAX_FILE: u64 = 64 << 20;

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
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return respond::plain(StatusCode::BAD_REQUEST, "invalid URL path\n");
    }
    let (body, kind) = match tokio::task::spawn_blocking(move || look(&root, &relative)).await {
        Ok(Ok(Found::File(bytes))) => (Body::from(bytes), "text/plain; charset=utf-8"),
        Ok(Ok(Found::Directory(names))) => {
            let lines: String = names.iter().map(|name| format!("<a href=\"{0}\">{0}</a>\n", escaped(name))).collect();
            (Body::from(format!("<pre>\n{lines}</pre>\n")), "text/html; charset=utf-8")
        }
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return respond::plain(StatusCode::FORBIDDEN, "403 Forbidden\n");
        }
        _ => return respond::plain(StatusCode::NOT_FOUND, "404 page not found\n"),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

enum Found {
    File(Vec<u8>),
    Directory(Vec<String>),
}

/// Never through a link that leaves the directory.
fn look(root: &Path, relative: &Path) -> std::io::Result<Found> {
    use std::io::{Error, ErrorKind, Read};
    let root = root.canonicalize()?;
    let real = root.join(relative).canonicalize()?;
    if !real.starts_with(&root) {
        return Err(Error::from(ErrorKind::PermissionDenied));
    }
    let about = std::fs::symlink_metadata(&real)?;
    if about.is_dir() {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&real)?.flatten() {
            let slash = if entry.file_type().is_ok_and(|kind| kind.is_dir()) { "/" } else { "" };
            names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
        }
        names.sort();
        return Ok(Found::Directory(names));
    }
    // A pipe would never end, and a device is no log.
    if !about.is_file() || about.len() > MAX_FILE {
        return Err(Error::from(ErrorKind::PermissionDenied));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(&real)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(Found::File(bytes))
}

fn escaped(name: &str) -> String {
    name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;")
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
