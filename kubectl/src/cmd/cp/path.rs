//! `[[namespace/]pod:]path`, and paths inside of containers.

use crate::error::CommandError;

/// One side of a copy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) namespace: String,
    /// Empty for files of this machine.
    pub(super) pod: String,
    pub(super) path: String,
}

impl Spec {
    pub(super) fn parse(text: &str) -> Result<Self, CommandError> {
        let local = || Self { namespace: String::new(), pod: String::new(), path: text.to_owned() };
        let Some((place, path)) = text.split_once(':') else { return Ok(local()) };
        let malformed = || CommandError::plain("filespec must match the canonical format: [[namespace/]pod:]file/path");
        if place.is_empty() {
            return Err(malformed());
        }
        let parts: Vec<&str> = place.split('/').collect();
        let (namespace, pod) = match parts.as_slice() {
            [pod] => ("", *pod),
            [namespace, pod] => (*namespace, *pod),
            _ => return Err(malformed()),
        };
        Ok(Self { namespace: namespace.to_owned(), pod: pod.to_owned(), path: path.to_owned() })
    }
}

/// A path without `.`, `..` and doubled slashes.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let rooted = path.starts_with('/');
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&"..") | None if !rooted => parts.push(".."),
                _ => {
                    parts.pop();
                }
            },
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// The last part.
pub(super) fn base(path: &str) -> &str {
    path.rsplit('/').next().filter(|last| !last.is_empty()).unwrap_or(path)
}

/// All but the last part; empty for none.
pub(super) fn directory(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) => "/",
        Some(at) => &path[..at],
        None => "",
    }
}

/// One path below another.
pub(super) fn join(path: &str, name: &str) -> String {
    clean(&format!("{path}/{name}"))
}

/// How an archive names a path: without what leads upwards or to the root.
pub(super) fn stripped(path: &str) -> String {
    let mut rest = path.trim_start_matches('/');
    while let Some(shorter) = rest.strip_prefix("../") {
        rest = shorter;
    }
    rest.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_parsed() {
        let spec = |text: &str| Spec::parse(text).map(|s| (s.namespace, s.pod, s.path)).map_err(|e| e.to_string());
        let own = |a: &str, b: &str, c: &str| Ok((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(spec("/tmp/x"), own("", "", "/tmp/x"));
        assert_eq!(spec("p:/x"), own("", "p", "/x"));
        assert_eq!(spec("n/p:x"), own("n", "p", "x"));
        assert!(spec(":x").is_err() && spec("a/b/c:x").is_err());
    }

    #[test]
    fn paths_are_cleaned_and_taken_apart() {
        for (path, expected) in [("/a/./b//../c", "/a/c"), ("a/", "a"), ("", "."), ("../a", "../a"), ("/..", "/")] {
            assert_eq!(clean(path), expected);
        }
        assert_eq!((base("/a/b"), directory("/a/b"), directory("/a"), directory("a")), ("b", "/a", "/", ""));
        assert_eq!((stripped("/a/b"), stripped("../../a")), ("a/b".to_owned(), "a".to_owned()));
    }
}
