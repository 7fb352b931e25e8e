//! What a request asks for, read from its method, path and query.

use http::Method;

/// A request as authorization and dispatch see it. Texts are percent-decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether the path names an API resource (`/api/v1/...`, `/apis/g/v/...`).
    pub is_resource: bool,
    /// API verb (`get`, `list`, `deletecollection`...), or the lower-case HTTP method for other paths.
    pub verb: String,
    /// Group; empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Namespace; empty at cluster scope.
    pub namespace: String,
    /// Plural resource name.
    pub resource: String,
    /// Subresource, such as `status`.
    pub subresource: String,
    /// Object name.
    pub name: String,
    /// Path segments after the subresource (`proxy/<tail>`).
    pub tail: Vec<String>,
    /// The decoded path.
    pub path: String,
    /// Whether the path has the legacy `/watch/` element.
    pub legacy_watch: bool,
}

/// Subresources that namespaces have; every other third segment is a resource inside the namespace.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    /// Reads a request line. `query` is the raw query text.
    pub fn parse(method: &Method, raw_path: &str, query: &Query) -> Self {
        let path = decode(raw_path);
        let mut info = Self { verb: method.as_str().to_ascii_lowercase(), path: path.clone(), ..Self::default() };
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let rest = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_owned();
                info.version = (*version).to_owned();
                rest
            }
            _ => return info,
        };
        info.is_resource = true;
        info.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        }
        .to_owned();
        let mut rest = rest;
        if let ["watch", tail @ ..] = rest
            && !tail.is_empty()
        {
            info.legacy_watch = true;
            info.verb = "watch".to_owned();
            rest = tail;
        }
        info.place(rest);
        info.refine_verb(query);
        info
    }

    fn place(&mut self, rest: &[&str]) {
        let rest = match rest {
            ["namespaces", namespace] => {
                (self.resource, self.name) = ("namespaces".into(), (*namespace).into());
                self.namespace = (*namespace).into();
                return;
            }
            ["namespaces", namespace, sub] if NAMESPACE_SUBRESOURCES.contains(sub) => {
                (self.resource, self.name) = ("namespaces".into(), (*namespace).into());
                self.namespace = (*namespace).into();
                self.subresource = (*sub).into();
                return;
            }
            ["namespaces", namespace, inner @ ..] => {
                self.namespace = (*namespace).into();
                inner
            }
            other => other,
        };
        let mut parts = rest.iter();
        self.resource = parts.next().copied().unwrap_or_default().to_owned();
        self.name = parts.next().copied().unwrap_or_default().to_owned();
        self.subresource = parts.next().copied().unwrap_or_default().to_owned();
        self.tail = parts.map(|s| (*s).to_owned()).collect();
    }

    fn refine_verb(&mut self, query: &Query) {
        let watch = query.flag("watch");
        if self.name.is_empty() {
            match self.verb.as_str() {
                "get" if watch => self.verb = "watch".into(),
                "get" => self.verb = "list".into(),
                "delete" => self.verb = "deletecollection".into(),
                _ => {}
            }
            let selects_one = matches!(self.verb.as_str(), "list" | "watch" | "deletecollection");
            if let (true, Some(name)) = (selects_one, query.get("fieldSelector").and_then(single_name)) {
                self.name = name;
            }
        } else if self.verb == "get" && watch && self.subresource.is_empty() {
            self.verb = "watch".into();
        }
    }

    /// Whether the 60 s request deadline does not apply.
    pub fn is_long_running(&self) -> bool {
        const STREAMS: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];
        self.is_resource && (self.verb == "watch" || STREAMS.contains(&self.subresource.as_str()))
    }
}

/// The name in `metadata.name=x`, when that requirement is the selector's.
fn single_name(selector: &str) -> Option<String> {
    selector.split(',').find_map(|term| {
        let (key, value) = term.split_once("==").or_else(|| term.split_once('='))?;
        (key == "metadata.name" && !value.is_empty()).then(|| value.to_owned())
    })
}

/// Decoded query parameters in order of appearance.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses a raw query text.
    pub fn parse(raw: &str) -> Self {
        Self(
            raw.split('&')
                .filter(|pair| !pair.is_empty())
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(&key.replace('+', " ")), decode(&value.replace('+', " ")))
                })
                .collect(),
        )
    }

    /// The first value of a parameter.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// A boolean parameter: present and neither `false` nor `0`.
    pub fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|v| !matches!(v, "false" | "0" | "False" | "FALSE" | "f" | "F"))
    }
}

/// Percent-decodes a text; invalid escapes stay as they are, invalid UTF-8 becomes U+FFFD.
pub fn decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: Method, path: &str, query: &str) -> RequestInfo {
        RequestInfo::parse(&method, path, &Query::parse(query))
    }

    #[test]
    fn resource_paths() {
        let info = parse(Method::GET, "/api/v1/namespaces/a/pods/p/log", "");
        assert_eq!(
            (info.verb.as_str(), info.namespace.as_str(), info.resource.as_str(), info.name.as_str()),
            ("get", "a", "pods", "p")
        );
        assert_eq!(info.subresource, "log");
        assert!(info.is_long_running());
        let info = parse(Method::DELETE, "/apis/apps/v1/namespaces/a/deployments", "");
        assert_eq!((info.verb.as_str(), info.group.as_str()), ("deletecollection", "apps"));
        let info = parse(Method::GET, "/api/v1/namespaces/a", "");
        assert_eq!((info.resource.as_str(), info.name.as_str(), info.namespace.as_str()), ("namespaces", "a", "a"));
        let info = parse(Method::PUT, "/api/v1/namespaces/a/finalize", "");
        assert_eq!((info.resource.as_str(), info.subresource.as_str()), ("namespaces", "finalize"));
    }

    #[test]
    fn watches() {
        assert_eq!(parse(Method::GET, "/api/v1/pods", "watch=true").verb, "watch");
        assert_eq!(parse(Method::GET, "/api/v1/pods", "watch=false").verb, "list");
        let info = parse(Method::GET, "/api/v1/watch/namespaces/a/pods", "");
        assert_eq!((info.verb.as_str(), info.namespace.as_str()), ("watch", "a"));
        let info = parse(Method::GET, "/api/v1/nodes", "fieldSelector=metadata.name%3Dn1&watch=1");
        assert_eq!((info.verb.as_str(), info.name.as_str()), ("watch", "n1"));
    }

    #[test]
    fn other_paths() {
        let info = parse(Method::GET, "/healthz", "");
        assert_eq!((info.is_resource, info.verb.as_str()), (false, "get"));
        assert!(!parse(Method::GET, "/apis/apps/v1", "").is_resource);
    }
}
