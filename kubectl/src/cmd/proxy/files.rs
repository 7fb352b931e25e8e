//! Files of a directory: pages that use the API.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use super::{Body, full, redirect, text};

/// Time as HTTP writes it.
const HTTP_TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
/// A file that is larger is not served.
const LARGEST: u64 = 256 * 1024 * 1024;
/// Page of a directory.
const PAGE: &str = "index.html";

/// A directory and where it is served.
pub(super) struct Files {
    directory: PathBuf,
    /// With a slash at its end.
    prefix: String,
}

impl Files {
    pub(super) fn new(directory: &str, prefix: &str) -> Self {
        let slash = if prefix.ends_with('/') { "" } else { "/" };
        Self { directory: PathBuf::from(directory), prefix: format!("{prefix}{slash}") }
    }

    /// Whether a path is below the prefix.
    pub(super) fn has(&self, path: &str) -> bool {
        path.starts_with(&self.prefix)
    }

    /// Whether a path is the prefix but for its last slash.
    pub(super) fn is_prefix(&self, path: &str) -> bool {
        path == self.prefix.trim_end_matches('/') && !path.is_empty()
    }

    pub(super) async fn answer<B>(&self, request: &Request<B>) -> Response<Body> {
        let path = request.uri().path();
        let Some(file) = self.locate(path) else { return text(StatusCode::NOT_FOUND, "404 page not found\n") };
        let head = request.method() == Method::HEAD;
        let slash = path.ends_with('/');
        let read = tokio::task::spawn_blocking(move || read(&file, slash)).await;
        match read {
            Ok(Some(Found::Moved(to))) => redirect(StatusCode::MOVED_PERMANENTLY, &to),
            Ok(Some(Found::Content { bytes, media_type, changed })) => content(bytes, media_type, changed, head),
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }

    /// The file of a path; never one outside of the directory.
    fn locate(&self, path: &str) -> Option<PathBuf> {
        let below = percent_decode(path.strip_prefix(&self.prefix)?)?;
        let mut file = self.directory.clone();
        for part in below.split('/').filter(|part| !matches!(*part, "" | ".")) {
            if part == ".." || part.contains('\0') {
                return None;
            }
            file.push(part);
        }
        Some(file)
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((first, others)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(others.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &others[2..];
        } else {
            bytes.push(*first);
            rest = others;
        }
    }
    String::from_utf8(bytes).ok()
}

enum Found {
    Moved(String),
    Content { bytes: Vec<u8>, media_type: &'static str, changed: Option<SystemTime> },
}

fn read(file: &Path, slash: bool) -> Option<Found> {
    let facts = std::fs::metadata(file).ok()?;
    let name = || file.file_name().map(|name| name.to_string_lossy().into_owned());
    if facts.is_dir() {
        if !slash {
            return Some(Found::Moved(format!("{}/", name()?)));
        }
        let page = file.join(PAGE);
        return if page.is_file() { read(&page, false) } else { list(file, facts.modified().ok()) };
    }
    if slash {
        return Some(Found::Moved(format!("../{}", name()?)));
    }
    if facts.len() > LARGEST {
        return None;
    }
    let bytes = std::fs::read(file).ok()?;
    let media_type = media_type(file, &bytes);
    Some(Found::Content { bytes, media_type, changed: facts.modified().ok() })
}

fn list(directory: &Path, changed: Option<SystemTime>) -> Option<Found> {
    let entries = std::fs::read_dir(directory).ok()?.filter_map(Result::ok);
    let mut names: Vec<String> = entries
        .map(|entry| {
            let slash = if entry.path().is_dir() { "/" } else { "" };
            format!("{}{slash}", entry.file_name().to_string_lossy())
        })
        .collect();
    names.sort();
    let mut page = String::from("<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n");
    for name in names {
        let shown = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;");
        let link: Vec<String> = name.trim_end_matches('/').split('/').map(util::percent_encode).collect();
        let slash = if name.ends_with('/') { "/" } else { "" };
        page.push_str(&format!("<a href=\"{}{slash}\">{shown}</a>\n", link.join("/")));
    }
    page.push_str("</pre>\n");
    Some(Found::Content { bytes: page.into_bytes(), media_type: "text/html; charset=utf-8", changed })
}

fn media_type(file: &Path, bytes: &[u8]) -> &'static str {
    let extension = file.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    match extension.as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "txt" => "text/plain; charset=utf-8",
        "xml" => "text/xml; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        _ if std::str::from_utf8(bytes).is_ok() => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

fn content(bytes: Vec<u8>, media_type: &'static str, changed: Option<SystemTime>, head: bool) -> Response<Body> {
    let length = bytes.len();
    let mut response = Response::new(if head { full("") } else { full(bytes) });
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let changed = changed.and_then(|time| OffsetDateTime::from(time).format(HTTP_TIME).ok());
    if let Some(value) = changed.and_then(|text| HeaderValue::from_str(&text).ok()) {
        headers.insert(header::LAST_MODIFIED, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_below_the_directory_only() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("sub")).expect("a directory");
        std::fs::write(directory.path().join("a b.txt"), "x").expect("a file");
        let files = Files::new(&directory.path().display().to_string(), "/static");
        assert!(files.has("/static/x") && files.is_prefix("/static") && !files.has("/static"));
        assert!(files.locate("/static/%2e%2e/etc/passwd").is_none() && files.locate("/static/../x").is_none());
        assert!(files.locate("/static/%zz").is_none());
        let found = files.locate("/static/a%20b.txt").and_then(|file| read(&file, false));
        assert!(matches!(found, Some(Found::Content { bytes, .. }) if bytes == b"x"));
        let moved = files.locate("/static/sub").and_then(|file| read(&file, false));
        assert!(matches!(moved, Some(Found::Moved(to)) if to == "sub/"));
        let listed = files.locate("/static/").and_then(|file| read(&file, true));
        let Some(Found::Content { bytes, .. }) = listed else { panic!("a list") };
        assert!(String::from_utf8_lossy(&bytes).contains("<a href=\"a%20b.txt\">a b.txt</a>"));
    }
}
