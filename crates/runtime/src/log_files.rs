//! Pages of a directory of logs, as `/logs/` shows them.

use std::{
    io,
    path::{Component, Path},
};

use axum::body::Body;
use http::{HeaderValue, Response, header};

use crate::beneath;

/// Larger files are not sent, bytes.
pub const MAX_FILE: u64 = 64 << 20;

/// Why nothing is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFileError {
    /// The path is none below the directory.
    #[error("invalid URL path")]
    Path,
    /// A link leads out of the directory, or the file may not be read.
    #[error("403 Forbidden")]
    Forbidden,
    /// It is no file (a pipe would never end, and a device is no log), or too large.
    #[error("not a file that is shown")]
    Unfit,
    /// There is nothing.
    #[error("404 page not found")]
    Missing,
}

/// A listing of a directory below `root`, or a file.
pub async fn show(root: &Path, relative: &Path) -> Result<Response<Body>, LogFileError> {
    if !relative.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(LogFileError::Path);
    }
    let (root, relative) = (root.to_owned(), relative.to_owned());
    let looked = tokio::task::spawn_blocking(move || look(&root, &relative)).await;
    let (body, kind) = match looked.map_err(|_| LogFileError::Missing)?.map_err(|error| of(&error))? {
        Found::File(bytes) => (Body::from(bytes), "text/plain; charset=utf-8"),
        Found::Directory(names) => {
            let lines: String = names.iter().map(|name| format!("<a href=\"{0}\">{0}</a>\n", escaped(name))).collect();
            (Body::from(format!("<pre>\n{lines}</pre>\n")), "text/html; charset=utf-8")
        }
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

fn of(error: &io::Error) -> LogFileError {
    match error.kind() {
        io::ErrorKind::PermissionDenied => LogFileError::Forbidden,
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => LogFileError::Unfit,
        _ => LogFileError::Missing,
    }
}

enum Found {
    File(Vec<u8>),
    Directory(Vec<String>),
}

/// Never through a link that leaves the directory.
fn look(root: &Path, relative: &Path) -> io::Result<Found> {
    let real = root.join(relative).canonicalize()?;
    if !real.starts_with(root.canonicalize()?) {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    if !real.is_dir() {
        return beneath::read(root, relative, MAX_FILE).map(Found::File);
    }
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&real)?.flatten() {
        let slash = if entry.file_type().is_ok_and(|kind| kind.is_dir()) { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    Ok(Found::Directory(names))
}

fn escaped(name: &str) -> String {
    name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;")
}
