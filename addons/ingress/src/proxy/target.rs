//! What a request asks for: a host and a path, if it is a sound request at all.

use http::{Method, Request, StatusCode, Version, header, uri::Authority};

use crate::path;

/// Host and path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Lower case, without port.
    pub(crate) host: String,
    /// With its port, as the client wrote it.
    pub(crate) authority: String,
    /// In normal form.
    pub(crate) path: String,
    /// Whether the path is text; what is not may be matched, but not rewritten.
    pub(crate) is_text: bool,
}

impl Target {
    /// Of a request; one that is ambiguous or malformed is refused.
    pub(crate) fn of<B>(request: &Request<B>) -> Result<Self, StatusCode> {
        if request.method() == Method::CONNECT {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        }
        let headers = request.headers();
        // Two statements of the length: somebody behind us may believe the other one.
        if headers.contains_key(header::TRANSFER_ENCODING) && headers.contains_key(header::CONTENT_LENGTH)
            || headers.get_all(header::CONTENT_LENGTH).iter().count() > 1
        {
            return Err(StatusCode::BAD_REQUEST);
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        let (first, second) = (hosts.next(), hosts.next());
        if second.is_some() || first.is_none() && request.version() == Version::HTTP_11 {
            return Err(StatusCode::BAD_REQUEST);
        }
        let stated = first.map(|host| host.to_str().map_err(|_| StatusCode::BAD_REQUEST)).transpose()?;
        let of_line = request.uri().authority().map(Authority::as_str);
        if let (Some(stated), Some(of_line), Version::HTTP_2) = (stated, of_line, request.version())
            && !stated.eq_ignore_ascii_case(of_line)
        {
            return Err(StatusCode::BAD_REQUEST);
        }
        let authority = of_line.or(stated).unwrap_or_default();
        let host = host_of(authority).ok_or(StatusCode::BAD_REQUEST)?;
        let raw = match request.uri().path() {
            "" => "/",
            // OPTIONS *
            "*" => "/",
            path => path,
        };
        let bytes = path::normalize(raw).ok_or(StatusCode::BAD_REQUEST)?;
        let (path, is_text) = match String::from_utf8(bytes) {
            Ok(text) => (text, true),
            Err(error) => (String::from_utf8_lossy(error.as_bytes()).into_owned(), false),
        };
        Ok(Self { host, authority: authority.to_owned(), path, is_text })
    }
}

/// Name of a host without its port, lower case.
fn host_of(authority: &str) -> Option<String> {
    let name = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            port_is_sound(port)?;
            format!("[{address}]")
        }
        None => {
            let (name, port) = authority.find(':').map_or((authority, ""), |colon| authority.split_at(colon));
            port_is_sound(port)?;
            name.strip_suffix('.').unwrap_or(name).to_owned()
        }
    };
    let sound = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b));
    sound.then(|| name.to_ascii_lowercase())
}

fn port_is_sound(port: &str) -> Option<()> {
    if port.is_empty() {
        return Some(());
    }
    let digits = port.strip_prefix(':')?;
    (digits.is_empty() || digits.parse::<u16>().is_ok() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uri: &str, headers: &[(&str, &str)]) -> Result<(String, String), StatusCode> {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let target = Target::of(&request.body(()).expect("a request"))?;
        Ok((target.host, target.path))
    }

    #[test]
    fn targets() {
        let bad = Err(StatusCode::BAD_REQUEST);
        let good = |host: &str, path: &str| Ok((host.to_owned(), path.to_owned()));
        let table: [(&str, &[(&str, &str)], _); 14] = [
            ("/x", &[("host", "A.B.C")], good("a.b.c", "/x")),
            ("/x", &[("host", "a.b.c.:8080")], good("a.b.c", "/x")),
            ("/x", &[("host", "[::1]:80")], good("[::1]", "/x")),
            ("http://x.y/p", &[("host", "a.b")], good("x.y", "/p")),
            ("/", &[], bad.clone()),
            ("/", &[("host", "a"), ("host", "b")], bad.clone()),
            ("/", &[("host", "a b")], bad.clone()),
            ("/", &[("host", "a/b")], bad.clone()),
            ("/", &[("host", "a:x")], bad.clone()),
            ("/", &[("host", "a:99999")], bad.clone()),
            ("/", &[("host", "user@a")], bad.clone()),
            ("/../etc", &[("host", "a")], bad.clone()),
            ("/", &[("host", "a"), ("content-length", "1"), ("transfer-encoding", "chunked")], bad.clone()),
            ("/", &[("host", "a"), ("content-length", "1"), ("content-length", "2")], bad.clone()),
        ];
        for (uri, headers, wanted) in table {
            assert_eq!(of(uri, headers), wanted, "{uri} {headers:?}");
        }
    }
}
