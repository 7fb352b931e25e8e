//! What browsers are told about the page, and which requests come from it.

use axum::body::Body;
use http::{HeaderMap, HeaderName, HeaderValue, Response, header};

/// Nothing but the site's own scripts, styles and requests; no text becomes markup.
const CONTENT_SECURITY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
     trusted-types 'none'";

const HEADERS: [(HeaderName, &str); 8] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-embedder-policy"), "require-corp"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
];

/// Adds the headers to an answer.
pub(crate) async fn protect(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// Whether a request may come from the page. Browsers say where requests come from; other programs say nothing.
pub(crate) fn is_own(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if site.is_some_and(|site| site != b"same-origin") {
        return false;
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    match (host, origin) {
        (Some(host), Some((_, origin))) => origin.eq_ignore_ascii_case(host),
        // HTTP/2 has the host elsewhere; what it is was compared by the browser.
        (None, Some(_)) => site.is_some(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_other_sites() {
        let table: [(&[(&str, &str)], bool); 7] = [
            (&[("host", "d")], true),
            (&[("host", "d"), ("sec-fetch-site", "same-origin")], true),
            (&[("host", "d"), ("sec-fetch-site", "cross-site")], false),
            (&[("host", "d"), ("sec-fetch-site", "none")], false),
            (&[("host", "d:8443"), ("origin", "https://D:8443")], true),
            (&[("host", "d"), ("origin", "https://evil")], false),
            (&[("host", "d"), ("origin", "null")], false),
        ];
        for (pairs, wanted) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            assert_eq!(is_own(&headers), wanted, "{pairs:?}");
        }
    }
}
