//! Image names.

/// A parsed image name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Registry host with port, if the name has one.
    pub domain: Option<String>,
    /// Path of the repository.
    pub path: String,
    /// The name with `:latest` added where neither tag nor digest is given.
    pub normalized: String,
}

/// Parses a name; the error is the message users see.
pub fn parse(image: &str) -> Result<Reference, String> {
    let invalid = || {
        let upper = image.split(['@', ':']).next().is_some_and(|name| name.chars().any(|c| c.is_ascii_uppercase()));
        let why = if upper && !image.contains('.') {
            "repository name must be lowercase"
        } else {
            "invalid reference format"
        };
        format!("couldn't parse image name {image:?}: {why}")
    };
    let (rest, digest) = match image.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (image, None),
    };
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    let good = tag.is_none_or(is_tag) && digest.is_none_or(is_digest) && name.len() <= 255 && !name.is_empty();
    if !good {
        return Err(invalid());
    }
    let (domain, path) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
        _ => (None, name),
    };
    if domain.is_some_and(|domain| !is_domain(domain)) || !path.split('/').all(is_component) {
        return Err(invalid());
    }
    let normalized = if tag.is_none() && digest.is_none() { format!("{image}:latest") } else { image.to_owned() };
    Ok(Reference { domain: domain.map(str::to_owned), path: path.to_owned(), normalized })
}

fn is_tag(tag: &str) -> bool {
    let mut bytes = tag.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    first && tag.len() <= 128 && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn is_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    let start = algorithm.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    start && hex.len() >= 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(']') || domain.contains("]:") => (host, Some(port)),
        _ => (domain, None),
    };
    let good_port = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    let literal = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let good_host = match literal {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        }),
    };
    good_port && good_host
}

/// Lower-case runs joined by `.`, `_`, `__` or dashes.
fn is_component(component: &str) -> bool {
    let bytes = component.as_bytes();
    let alnum = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !bytes.first().is_some_and(alnum) || !bytes.last().is_some_and(alnum) {
        return false;
    }
    let mut separators = String::new();
    for byte in bytes {
        if alnum(byte) {
            let fine =
                matches!(separators.as_str(), "" | "." | "_" | "__") || separators.bytes().all(|byte| byte == b'-');
            if !fine {
                return false;
            }
            separators.clear();
        } else {
            separators.push(char::from(*byte));
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(parse("busybox").unwrap().normalized, "busybox:latest");
        assert_eq!(parse("reg.io:5000/a/b:1").unwrap().domain.as_deref(), Some("reg.io:5000"));
        assert_eq!(parse("localhost/a").unwrap().path, "a");
        assert_eq!(parse("a__b/c-d").unwrap().normalized, "a__b/c-d:latest");
        let digest = format!("a@sha256:{}", "0".repeat(64));
        assert_eq!(parse(&digest).unwrap().normalized, digest);
        for bad in ["", "a..b", "UPPER", "a/", "a:", "a@b", "a:b:c", "-a", "a b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("a b").unwrap_err(), "couldn't parse image name \"a b\": invalid reference format");
    }
}
