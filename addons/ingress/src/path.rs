//! Paths: their normal form, how rules match them, and how they are rewritten.

use regex::{Captures, Regex, RegexBuilder};

/// Largest compiled expression.
const MAX_REGEX: usize = 1 << 20;

/// A path as rules see it: unescaped, without `.` and `..`, every run of slashes as one. `None` if it leaves the root
/// or is not sound.
pub(crate) fn normalize(path: &str) -> Option<Vec<u8>> {
    let bytes = unescape(path)?;
    if bytes.first() != Some(&b'/') {
        return None;
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in bytes.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    let directory = [b"/".as_slice(), b"/.", b"/.."].iter().any(|end| bytes.ends_with(end));
    let mut normal = vec![b'/'];
    normal.extend(parts.join(&b'/'));
    if directory && !parts.is_empty() {
        normal.push(b'/');
    }
    Some(normal)
}

fn unescape(path: &str) -> Option<Vec<u8>> {
    let bytes = path.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let byte = match byte {
            b'%' => {
                let digits = path.get(at + 1..at + 3)?;
                at += 2;
                u8::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(|d| d.is_ascii_hexdigit()))?
            }
            byte => *byte,
        };
        if byte == 0 {
            return None;
        }
        out.push(byte);
        at += 1;
    }
    Some(out)
}

/// Writes a path for a request line.
fn escape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// What a rule's path matches.
#[derive(Clone, Debug)]
pub(crate) enum Matcher {
    /// This path.
    Exact(String),
    /// This path and what is below it; without a slash at the end.
    Prefix(String),
    /// Every path that begins so.
    Start(String),
    /// Every path that begins with a match.
    Regex(Regex),
}

impl Matcher {
    /// An expression that is to match from the start of the path, in any case.
    pub(crate) fn regex(pattern: &str) -> Result<Self, regex::Error> {
        let anchored = format!("^(?:{})", pattern.strip_prefix('^').unwrap_or(pattern));
        let built = RegexBuilder::new(&anchored).case_insensitive(true).size_limit(MAX_REGEX).build();
        // A group around the whole would shift the numbers of the others.
        built.map(Self::Regex)
    }

    pub(crate) fn prefix(path: &str) -> Self {
        Self::Prefix(path.trim_end_matches('/').to_owned())
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => {
                path.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Start(start) => path.starts_with(start.as_str()),
            Self::Regex(regex) => regex.is_match(path),
        }
    }

    /// The path and query of a rewritten request: `$1` in `target` is the first group.
    pub(crate) fn rewrite(&self, path: &str, target: &str, query: Option<&str>) -> String {
        let captures = match self {
            Self::Regex(regex) => regex.captures(path),
            _ => None,
        };
        let (target, more) = target.split_once('?').map_or((target, None), |(path, more)| (path, Some(more)));
        let path = escape(&expand(target, captures.as_ref()));
        let more = more.map(|more| expand(more, captures.as_ref()));
        let queries = [more.map(|q| escape_query(&q)), query.map(str::to_owned)];
        let queries: Vec<String> = queries.into_iter().flatten().filter(|q| !q.is_empty()).collect();
        if queries.is_empty() { path } else { format!("{path}?{}", queries.join("&")) }
    }
}

fn escape_query(query: &str) -> String {
    let keep = |b: u8| b.is_ascii_graphic() && !b"\"#<>".contains(&b);
    query.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// `$0` to `$9` are groups, absent ones are empty.
fn expand(template: &str, captures: Option<&Captures<'_>>) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        match after.bytes().next() {
            Some(digit @ b'0'..=b'9') => {
                let group = captures.and_then(|c| c.get(usize::from(digit - b'0')));
                out.push_str(group.map_or("", |g| g.as_str()));
                rest = &after[1..];
            }
            _ => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_forms() {
        let table = [
            ("/", Some("/")),
            ("/a/b", Some("/a/b")),
            ("//a///b/", Some("/a/b/")),
            ("/a/./b/../c", Some("/a/c")),
            ("/a/..", Some("/")),
            ("/a/b/..", Some("/a/")),
            ("/%61%2f..%2Fb", Some("/b")),
            ("/foo/%2e%2e/admin", Some("/admin")),
            ("/..", None),
            ("/a/../../b", None),
            ("a", None),
            ("/%", None),
            ("/%zz", None),
            ("/%+1", None),
            ("/%00", None),
            ("/ä%20b", Some("/ä b")),
        ];
        for (path, normal) in table {
            let found = normalize(path).map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
            assert_eq!(found.as_deref(), normal, "{path}");
        }
    }

    #[test]
    fn matches() {
        let table = [
            (Matcher::Exact("/foo".into()), "/foo", true),
            (Matcher::Exact("/foo".into()), "/foo/", false),
            (Matcher::prefix("/"), "/any", true),
            (Matcher::prefix("/foo"), "/foo/bar", true),
            (Matcher::prefix("/foo/"), "/foo", true),
            (Matcher::prefix("/foo"), "/foobar", false),
            (Matcher::Start("/foo".into()), "/foobar", true),
            (Matcher::regex("/foo/(.*)").expect("valid"), "/FOO/bar", true),
            (Matcher::regex("/foo/(.*)").expect("valid"), "/a/foo/bar", false),
            (Matcher::regex("/a|/b").expect("valid"), "/b", true),
        ];
        for (matcher, path, wanted) in table {
            assert_eq!(matcher.matches(path), wanted, "{matcher:?} {path}");
        }
        assert!(Matcher::regex("/(").is_err());
    }

    #[test]
    fn rewrites() {
        let one = Matcher::regex("/foo/(.*)").expect("valid");
        let two = Matcher::regex("/something(/|$)(.*)").expect("valid");
        let table = [
            (&one, "/foo/bar", "/admin/$1", None, "/admin/bar"),
            (&one, "/foo/a b", "/admin/$1", Some("x=1"), "/admin/a%20b?x=1"),
            (&one, "/foo/", "/admin/$1", None, "/admin/"),
            (&one, "/foo/a", "/x?p=$1", Some("q=2"), "/x?p=a&q=2"),
            (&one, "/foo/a", "/$3/$$/$", None, "//$$/$"),
            (&two, "/something", "/$2", None, "/"),
            (&two, "/something/new", "/$2", None, "/new"),
            // What was escaped does not become syntax.
            (&one, "/foo/a?b#c", "/$1", None, "/a%3Fb%23c"),
        ];
        for (matcher, path, target, query, wanted) in table {
            assert_eq!(matcher.rewrite(path, target, query), wanted, "{path} {target}");
        }
        assert_eq!(Matcher::prefix("/foo").rewrite("/foo/bar", "/", None), "/");
    }
}
