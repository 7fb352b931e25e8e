//! Logs of Pods that are gone.

use std::fs;
use std::path::Path;

use crate::paths::Paths;

/// Removes directories of Pods that are gone, and links that lead nowhere.
pub(super) fn remove(paths: &Paths, is_gone: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(paths.pod_logs()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        // `<namespace>_<name>_<uid>`
        let uid = name.to_str().and_then(|name| name.splitn(3, '_').nth(2));
        if uid.is_some_and(&is_gone)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::error!(path = %entry.path().display(), %error, "log directory of a pod that is gone");
        }
    }
    for entry in fs::read_dir(paths.container_logs()).into_iter().flatten().flatten() {
        let link = entry.path();
        let dangles = fs::read_link(&link).is_ok_and(|target| is_missing(&target, paths));
        if dangles && let Err(error) = fs::remove_file(&link) {
            tracing::error!(path = %link.display(), %error, "link to a log that is gone");
        }
    }
}

/// Only links to logs of this kubelet are its business.
fn is_missing(target: &Path, paths: &Paths) -> bool {
    target.starts_with(paths.pod_logs()) && !target.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), dir.path().join("pods"), dir.path().join("containers"));
        for name in ["ns_p_gone", "ns_p_here", "odd"] {
            fs::create_dir_all(paths.pod_logs().join(name)).unwrap();
        }
        fs::create_dir_all(paths.container_logs()).unwrap();
        for (link, to) in [("a.log", "ns_p_gone/0.log"), ("b.log", "ns_p_here")] {
            std::os::unix::fs::symlink(paths.pod_logs().join(to), paths.container_logs().join(link)).unwrap();
        }
        remove(&paths, |uid| uid == "gone");
        assert!(!paths.pod_logs().join("ns_p_gone").exists());
        assert!(paths.pod_logs().join("ns_p_here").exists() && paths.pod_logs().join("odd").exists());
        assert!(!paths.container_logs().join("a.log").is_symlink());
        assert!(paths.container_logs().join("b.log").is_symlink());
    }
}
