//! `/logs/?query=`: logs of the node's services, from the journal or from files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use runtime::{beneath, log_files::MAX_FILE};

use super::{query_pairs, system_logs, text};
use crate::platform::{self, Program};

const DEADLINE: Duration = Duration::from_secs(30);
const MAX_UNITS: u64 = 1 << 20;
const MAX_NAME: usize = 100;
const MAX_TAIL: i64 = 100_000;
const JOURNAL: &str = "journalctl";

/// What is wanted of services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Options {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    tail: Option<i64>,
    boot: Option<i64>,
    pattern: String,
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogQuery {
    services: Vec<String>,
    files: Vec<String>,
    options: Options,
}

impl LogQuery {
    /// Reads the parameters of a request; `None` if it has none of these.
    pub(super) fn read(query: &str) -> Result<Option<Self>, String> {
        let (mut found, mut problems) = (Self::default(), Vec::new());
        let pairs = query_pairs(query);
        let asked: Vec<&str> = pairs.iter().filter(|(key, _)| key == "query").map(|(_, value)| value.trim()).collect();
        for name in asked.iter().filter(|name| !name.is_empty()) {
            let list = if name.contains(['/', '\\']) { &mut found.files } else { &mut found.services };
            list.push((*name).to_owned());
        }
        if !asked.is_empty() && found.files.is_empty() && found.services.is_empty() {
            problems.push(format!("query: Invalid value: {asked:?}: query cannot be empty"));
        }
        let first = |name: &str| pairs.iter().find(|(key, value)| key == name && !value.is_empty());
        let mut time = |name: &str| {
            let (_, value) = first(name)?;
            let parsed = value.parse().ok();
            if parsed.is_none() {
                problems.push(format!("{name}: Invalid value: {value:?}: invalid time format"));
            }
            parsed
        };
        (found.options.since, found.options.until) = (time("sinceTime"), time("untilTime"));
        let mut number = |name: &str| {
            let (_, value) = first(name)?;
            let parsed = value.parse().ok();
            if parsed.is_none() {
                problems.push(format!("{name}: Invalid value: {value:?}: must be a whole number"));
            }
            parsed
        };
        (found.options.tail, found.options.boot) = (number("tailLines"), number("boot"));
        found.options.pattern = first("pattern").map(|(_, value)| value.clone()).unwrap_or_default();
        joined(problems)?;
        Ok(Some(found).filter(|found| *found != Self::default()))
    }

    fn check(&self, root: &Path) -> Result<(), String> {
        let mut problems: Vec<String> = self.services.iter().filter_map(|name| check_name(name)).collect();
        match (self.files.as_slice(), self.services.is_empty()) {
            ([], true) => problems.push("query: Required value: cannot be empty with options".to_owned()),
            ([], false) => {}
            (files, false) => problems.push(format!(
                "query: Invalid value: \"{files:?}, {:?}\": cannot specify a file and service",
                self.services
            )),
            ([one], true) if self.options != Options::default() => {
                problems.push(format!("query: Invalid value: [{one:?}]: cannot specify file with options"));
            }
            ([one], true) => {
                let path = root.join(one.trim_start_matches('/'));
                // What is outside is refused later, and nothing is told of it here.
                let is_inside = path.components().all(|part| part != std::path::Component::ParentDir);
                if let Err(error) = std::fs::metadata(&path)
                    && is_inside
                {
                    problems.push(format!("query: Invalid value: {:?}: {error}", path.display().to_string()));
                }
            }
            (files, true) => {
                problems.push(format!("query: Invalid value: {files:?}: cannot specify more than one file"));
            }
        }
        let options = &self.options;
        if let (Some(since), Some(until)) = (options.since, options.until)
            && since > until
        {
            problems.push(format!("untilTime: Invalid value: {until:?}: must be after `sinceTime`"));
        }
        if let Some(boot) = options.boot.filter(|boot| *boot > 0) {
            problems.push(format!("boot: Invalid value: {boot}: must be less than 1"));
        }
        if let Some(tail) = options.tail.filter(|tail| !(0..=MAX_TAIL).contains(tail)) {
            problems.push(format!("tailLines: Invalid value: {tail}: must be between 0 and {MAX_TAIL}, inclusive"));
        }
        joined(problems)
    }

    /// Answers it, below a directory of logs.
    pub(super) async fn answer(self, rest: &str, root: &Path) -> Response<Body> {
        self.answer_from(Path::new(JOURNAL), rest, root).await
    }

    async fn answer_from(self, journal: &Path, rest: &str, root: &Path) -> Response<Body> {
        if !rest.is_empty() {
            return text(StatusCode::NOT_ACCEPTABLE, "path not allowed in query mode\n");
        }
        if let Err(problems) = self.check(root) {
            return text(StatusCode::NOT_ACCEPTABLE, format!("{problems}\n"));
        }
        if let [file] = self.files.as_slice() {
            return system_logs::show(Path::new(file.replace('\\', "/").trim_start_matches('/')), root).await;
        }
        let units = ["--no-pager", "--field", "_SYSTEMD_UNIT"].map(str::to_owned);
        let units = platform::run_program(program(journal, &units), &[]).await.unwrap_or_default();
        let units = String::from_utf8_lossy(&units).into_owned();
        let (of_journal, files): (Vec<String>, Vec<String>) =
            self.services.iter().cloned().partition(|name| units.contains(name.as_str()));
        let mut after = Vec::new();
        if !files.is_empty() && self.options != Options::default() {
            let list = files.join(" ");
            let note = format!(
                "\noptions present and query resolved to log files for [{list}]\ntry without specifying options\n"
            );
            after.extend_from_slice(note.as_bytes());
        } else {
            for name in &files {
                after.extend(from_file(root, name).await);
            }
        }
        let body = if of_journal.is_empty() {
            Body::from(after)
        } else {
            match platform::stream_program(program(journal, &self.arguments(&of_journal))) {
                Ok(output) => {
                    use futures::StreamExt;
                    Body::from_stream(output.chain(futures::stream::once(async { Ok(after.into()) })))
                }
                Err(error) => Body::from(format!("\nerror: {JOURNAL}: {error}\n")),
            }
        };
        let mut response = Response::new(body);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    }

    fn arguments(&self, services: &[String]) -> Vec<String> {
        let mut args = ["--utc", "--no-pager", "--output=short-precise"].map(str::to_owned).to_vec();
        let options = &self.options;
        for (name, at) in [("since", options.since), ("until", options.until)] {
            if let Some(at) = at {
                args.push(format!("--{name}={} UTC", at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S")));
            }
        }
        if let Some(tail) = options.tail {
            args.push(format!("--lines={tail}"));
        }
        args.extend(services.iter().map(|name| format!("--unit={name}")));
        if !options.pattern.is_empty() {
            args.push(format!("--grep={}", options.pattern));
        }
        if let Some(boot) = options.boot {
            args.push(format!("--boot={boot}"));
        }
        args
    }
}

/// Names go into arguments and paths.
fn check_name(name: &str) -> Option<String> {
    let problem = if name.len() > MAX_NAME {
        format!("input length must be less than {MAX_NAME}")
    } else if name.chars().all(|c| c.is_ascii_alphanumeric() || "-_@.:".contains(c)) && !name.starts_with(['-', '.']) {
        return None;
    } else {
        "input contains unsupported characters".to_owned()
    };
    Some(format!("query: Invalid value: {name:?}: {problem}"))
}

fn joined(problems: Vec<String>) -> Result<(), String> {
    match problems.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

fn program<'a>(journal: &'a Path, args: &'a [String]) -> Program<'a> {
    static EMPTY: BTreeMap<String, String> = BTreeMap::new();
    Program { path: journal, args, env: &EMPTY, deadline: DEADLINE, limit: MAX_UNITS }
}

/// A service that keeps its log in a file of its name.
async fn from_file(root: &Path, name: &str) -> Vec<u8> {
    let root = root.to_owned();
    let owned = name.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let places = [owned.clone(), format!("{owned}.log"), format!("{owned}/{owned}.log")];
        let mut places = places.iter().map(PathBuf::from);
        places.find_map(|path| beneath::read(&root, &path, MAX_FILE).ok())
    });
    match read.await {
        Ok(Some(bytes)) => bytes,
        _ => format!("log not found for {name}\n").into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(query: &str, root: &Path) -> (u16, String) {
        let read = LogQuery::read(query).unwrap().unwrap();
        let response = read.answer("", root).await;
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn parameters_are_read() {
        assert_eq!(LogQuery::read("").unwrap(), None);
        assert_eq!(LogQuery::read("other=1").unwrap(), None);
        let read = LogQuery::read("query=kubelet&query=%2Ffoo.log&tailLines=5").unwrap().unwrap();
        assert_eq!((read.services, read.files), (vec!["kubelet".to_owned()], vec!["/foo.log".to_owned()]));
        for (query, problem) in [
            ("query=%20", "query: Invalid value: [\"\"]: query cannot be empty"),
            ("sinceTime=now", "sinceTime: Invalid value: \"now\": invalid time format"),
            ("tailLines=x", "tailLines: Invalid value: \"x\": must be a whole number"),
        ] {
            assert_eq!(LogQuery::read(query).unwrap_err(), problem);
        }
    }

    #[test]
    fn arguments_are_those_of_the_journal() {
        let query = "query=kubelet&sinceTime=2026-01-02T03:04:05Z&tailLines=7&boot=-1&pattern=a%20b";
        let read = LogQuery::read(query).unwrap().unwrap();
        let args = read.arguments(&["kubelet".to_owned()]);
        let expected = ["--since=2026-01-02 03:04:05 UTC", "--lines=7", "--unit=kubelet", "--grep=a b", "--boot=-1"];
        assert_eq!(args[3..], expected);
    }

    #[tokio::test]
    async fn services_are_asked_for_in_the_journal_or_in_files() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("journal");
        let script =
            "#!/bin/sh\ncase \"$2\" in --field) echo kubelet.service;; *) echo \"$@\"; echo trouble >&2;; esac\n";
        std::fs::write(&journal, script).unwrap();
        std::fs::set_permissions(&journal, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(dir.path().join("here.log"), "lines\n").unwrap();
        let said = "--utc --no-pager --output=short-precise --unit=kubelet\ntrouble\n";
        for (query, expected) in [
            ("query=kubelet", said.to_owned()),
            ("query=kubelet&query=here", format!("{said}lines\n")),
            ("query=here", "lines\n".to_owned()),
            (
                "query=kubelet&pattern=%24%28reboot%29",
                said.replace("--unit=kubelet", "--unit=kubelet --grep=$(reboot)"),
            ),
        ] {
            let read = LogQuery::read(query).unwrap().unwrap();
            let response = read.answer_from(&journal, "", dir.path()).await;
            assert_eq!(response.status().as_u16(), 200);
            let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
            assert_eq!(String::from_utf8(body.to_vec()).unwrap(), expected, "{query}");
        }
    }

    #[tokio::test]
    async fn queries_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("here.log"), "lines\n").unwrap();
        for (query, status, named) in [
            ("tailLines=5", 406, "query: Required value: cannot be empty with options"),
            ("query=a&query=b/c", 406, "cannot specify a file and service"),
            ("query=/here.log&tailLines=1", 406, "cannot specify file with options"),
            ("query=/a&query=/b", 406, "cannot specify more than one file"),
            ("query=/absent", 406, "No such file"),
            ("query=a%3Bb", 406, "unsupported characters"),
            ("query=--all", 406, "unsupported characters"),
            ("query=a&tailLines=100001", 406, "must be between 0 and 100000"),
            ("query=a&boot=1", 406, "boot: Invalid value: 1: must be less than 1"),
            ("query=a&sinceTime=2026-01-02T00:00:00Z&untilTime=2026-01-01T00:00:00Z", 406, "must be after `sinceTime`"),
            ("query=/here.log", 200, "lines\n"),
            ("query=here", 200, "lines\n"),
            ("query=here&tailLines=3", 200, "options present and query resolved to log files for [here]"),
            ("query=absent-service", 200, "log not found for absent-service\n"),
        ] {
            let (got, body) = ask(query, dir.path()).await;
            assert!(got == status && body.contains(named), "{query}: {got} {body}");
        }
        let read = LogQuery::read("query=a").unwrap().unwrap();
        assert_eq!(read.answer("sub", dir.path()).await.status().as_u16(), 406);
    }
}
