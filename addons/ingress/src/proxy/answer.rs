//! Answers of the controller's own.

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, Uri, header};

use super::target::Target;

/// A short page for a status.
pub(super) fn page(status: StatusCode) -> Response<Body> {
    let title = format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or("Unknown"));
    let text = format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n</body>\r\n</html>\r\n"
    );
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
    if status == StatusCode::REQUEST_TIMEOUT || status == StatusCode::BAD_REQUEST {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A redirect.
pub(super) fn redirect(status: StatusCode, location: HeaderValue) -> Response<Body> {
    let mut response = page(status);
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// A redirect to the same page by HTTPS.
pub(super) fn to_https(target: &Target, uri: &Uri, port: u16) -> Response<Body> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    match HeaderValue::from_str(&format!("https://{}{port}{path}", target.host)) {
        Ok(location) => redirect(StatusCode::PERMANENT_REDIRECT, location),
        Err(_) => page(StatusCode::BAD_REQUEST),
    }
}
