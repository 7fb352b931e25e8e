//! Which log files there are: `NAMESPACE_POD_UID/CONTAINER/RESTART.log`, and those that were rotated away from there.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A log file. Of one container, the older ones come first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) uid: String,
    pub(crate) container: String,
    pub(crate) restart: u32,
    /// Whether the runtime writes to it; it has left rotated ones for another.
    pub(crate) current: bool,
    pub(crate) path: PathBuf,
}

impl Found {
    /// Whether two files are of one container.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        (&self.uid, &self.container, &self.pod, &self.namespace)
            == (&other.uid, &other.container, &other.pod, &other.namespace)
    }
}

/// All log files below a directory.
pub(crate) fn scan(root: &Path, excluded: &[String]) -> std::io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for directory in fs::read_dir(root)?.flatten() {
        let name = directory.file_name();
        let Some((namespace, pod, uid)) = name.to_str().and_then(pod_of) else { continue };
        if excluded.iter().any(|excluded| excluded == namespace) {
            continue;
        }
        // A Pod may go at any moment.
        for container in fs::read_dir(directory.path()).into_iter().flatten().flatten() {
            let Some(name) = container.file_name().to_str().filter(|name| is_name(name)).map(str::to_owned) else {
                continue;
            };
            for file in fs::read_dir(container.path()).into_iter().flatten().flatten() {
                let Some((restart, rotated)) = file.file_name().to_str().and_then(log_of) else { continue };
                found.push(Found {
                    path: file.path(),
                    namespace: namespace.to_owned(),
                    pod: pod.to_owned(),
                    uid: uid.to_owned(),
                    container: name.clone(),
                    restart,
                    current: !rotated,
                });
            }
        }
    }
    Ok(found)
}

fn pod_of(name: &str) -> Option<(&str, &str, &str)> {
    let mut parts = name.split('_');
    let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
    let sound = parts.next().is_none() && [namespace, pod, uid].iter().all(|part| is_name(part));
    sound.then_some((namespace, pod, uid))
}

/// Names become parts of paths: nothing but what names of the API consist of.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(fits)
}

/// `0.log` and `0.log.20240102-030405`, but not what was compressed or is being compressed.
fn log_of(name: &str) -> Option<(u32, bool)> {
    let (number, rest) = name.split_once(".log")?;
    let restart = number.parse().ok()?;
    if rest.is_empty() {
        return Some((restart, false));
    }
    let stamp = rest.strip_prefix('.')?;
    let sound = !stamp.is_empty() && stamp.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    sound.then_some((restart, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(pod_of("kube-system_etcd-n.x_abc-1"), Some(("kube-system", "etcd-n.x", "abc-1")));
        for name in ["a_b", "a_b_c_d", "a_.._c", "a_b/x_c", "_b_c", "a_b_"] {
            assert_eq!(pod_of(name), None, "{name}");
        }
        let table = [
            ("0.log", Some((0, false))),
            ("12.log", Some((12, false))),
            ("0.log.20240102-030405", Some((0, true))),
            ("0.log.20240102-030405.gz", None),
            ("0.log.20240102-030405.tmp", None),
            ("0.log.", None),
            ("x.log", None),
            ("0.txt", None),
        ];
        for (name, wanted) in table {
            assert_eq!(log_of(name), wanted, "{name}");
        }
    }
}
