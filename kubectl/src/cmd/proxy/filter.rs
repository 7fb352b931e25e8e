//! Which requests the proxy serves: those that a page of another site cannot have made.

use http::{Request, header};
use regex::Regex;

use crate::{error::CommandError, flags::Flags};

/// Hosts that are served.
pub(super) const HOSTS: &str = "^localhost$,^127\\.0\\.0\\.1$,^\\[::1\\]$";
/// Paths that are served.
pub(super) const PATHS: &str = "^.*";
/// Paths that are refused.
pub(super) const REJECTED: &str = "^/api/.*/pods/.*/exec,^/api/.*/pods/.*/attach";
/// Methods that are refused.
pub(super) const NONE: &str = "^$";

/// The expressions of the flags.
#[derive(Debug)]
pub(super) struct Filter {
    hosts: Vec<Regex>,
    paths: Vec<Regex>,
    rejected_paths: Vec<Regex>,
    rejected_methods: Vec<Regex>,
}

impl Filter {
    /// Compiles the flags.
    pub(super) fn of(flags: &Flags) -> Result<Self, CommandError> {
        Ok(Self {
            hosts: compile(flags.text("accept-hosts"))?,
            paths: compile(flags.text("accept-paths"))?,
            rejected_paths: compile(flags.text("reject-paths"))?,
            rejected_methods: compile(flags.text("reject-methods"))?,
        })
    }

    /// Whether a request is served.
    pub(super) fn accepts<B>(&self, request: &Request<B>) -> bool {
        let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
        self.allows(request.method().as_str(), request.uri().path(), host)
    }

    fn allows(&self, method: &str, path: &str, host: &str) -> bool {
        let any = |list: &[Regex], text: &str| list.iter().any(|expression| expression.is_match(text));
        !any(&self.rejected_paths, path)
            && !any(&self.rejected_methods, method)
            && any(&self.paths, path)
            && any(&self.hosts, without_port(host))
    }
}

/// `[::1]:80` is `[::1]`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.is_empty() => {
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

fn compile(list: &str) -> Result<Vec<Regex>, CommandError> {
    let compiled = list.split(',').filter(|text| !text.is_empty()).map(Regex::new);
    compiled.collect::<Result<_, _>>().map_err(|e| CommandError::plain(format!("error parsing regexp: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_hosts_and_harmless_paths_are_served() {
        let filter = Filter {
            hosts: compile(HOSTS).expect("expressions"),
            paths: compile(PATHS).expect("expressions"),
            rejected_paths: compile(REJECTED).expect("expressions"),
            rejected_methods: compile("DELETE").expect("expressions"),
        };
        for (method, path, host, expected) in [
            ("GET", "/api", "localhost:8001", true),
            ("GET", "/api", "127.0.0.1", true),
            ("GET", "/api", "[::1]:8001", true),
            ("GET", "/api", "evil.example", false),
            ("GET", "/api", "localhost.evil.example:8001", false),
            ("GET", "/api", "", false),
            ("GET", "/api/v1/namespaces/n/pods/p/exec", "localhost", false),
            ("GET", "/api/v1/namespaces/n/pods/p/attach", "localhost", false),
            ("GET", "/api/v1/namespaces/n/pods/p/log", "localhost", true),
            ("DELETE", "/api", "localhost", false),
        ] {
            assert_eq!(filter.allows(method, path, host), expected, "{method} {path} {host}");
        }
        assert!(compile("(").is_err());
    }
}
