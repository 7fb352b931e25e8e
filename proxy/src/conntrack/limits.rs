//! Limits and timeouts of connection tracking in the kernel.

use std::{fs, io, path::Path};

use crate::config::{Conntrack, GoTime};

/// No limit above this is written.
const CEILING: u64 = 1_048_576;
const HASH_SIZE: &str = "sys/module/nf_conntrack/parameters/hashsize";

/// Kernel settings (path below `/proc/sys/net/netfilter`, value) that a configuration asks for.
fn wanted(config: &Conntrack, cores: u64) -> Vec<(&'static str, u64)> {
    let mut all = Vec::new();
    if let Some(max) = limit(config, cores) {
        all.push(("nf_conntrack_max", max));
    }
    let seconds = |time: Option<GoTime>| time.map_or(0, |time| time.0.as_secs());
    let timeouts = [
        ("nf_conntrack_tcp_timeout_established", seconds(config.tcp_established_timeout)),
        ("nf_conntrack_tcp_timeout_close_wait", seconds(config.tcp_close_wait_timeout)),
        ("nf_conntrack_tcp_be_liberal", u64::from(config.tcp_be_liberal)),
        ("nf_conntrack_udp_timeout", config.udp_timeout.0.as_secs()),
        ("nf_conntrack_udp_timeout_stream", config.udp_stream_timeout.0.as_secs()),
    ];
    all.extend(timeouts.into_iter().filter(|(_, value)| *value > 0));
    all
}

fn limit(config: &Conntrack, cores: u64) -> Option<u64> {
    let positive = |value: Option<i32>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
    let per_core = positive(config.max_per_core);
    let max = (per_core * cores).max(positive(config.min)).min(CEILING);
    (per_core > 0).then_some(max)
}

fn read(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Writes a setting unless it has the value already: in containers many cannot be written, and need not be.
fn set(path: &Path, value: u64) -> io::Result<()> {
    if read(path) == Some(value) { Ok(()) } else { fs::write(path, value.to_string()) }
}

/// Applies a configuration below `root` (`/`, or a directory in tests). What cannot be written is logged.
pub(crate) fn apply(root: &Path, config: &Conntrack) {
    let cores = std::thread::available_parallelism().map_or(1, |n| u64::try_from(n.get()).unwrap_or(1));
    for (name, value) in wanted(config, cores) {
        let path = root.join("proc/sys/net/netfilter").join(name);
        if let Err(error) = set(&path, value) {
            tracing::warn!(%error, setting = name, value, "cannot set a limit of connection tracking");
        }
    }
    let size = root.join(HASH_SIZE);
    let buckets = limit(config, cores).map(|max| max / 4);
    if let (Some(buckets), Some(present)) = (buckets, read(&size))
        && present < buckets
        && let Err(error) = set(&size, buckets)
    {
        tracing::warn!(%error, buckets, "cannot enlarge the table of connections");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Conntrack {
        crate::config::Configuration::default().complete().conntrack
    }

    #[test]
    fn limits_grow_with_cores() {
        let config = defaults();
        assert_eq!(
            [limit(&config, 1), limit(&config, 8), limit(&config, 128)],
            [Some(131_072), Some(262_144), Some(CEILING)]
        );
        assert_eq!(limit(&Conntrack { max_per_core: Some(0), ..config }, 8), None);
    }

    #[test]
    fn settings_are_written_once() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("proc/sys/net/netfilter");
        fs::create_dir_all(&directory).unwrap();
        let established = directory.join("nf_conntrack_tcp_timeout_established");
        fs::write(&established, "86400\n").unwrap();
        apply(root.path(), &Conntrack { tcp_be_liberal: true, ..defaults() });
        assert_eq!(fs::read_to_string(&established).unwrap(), "86400\n", "it had the value");
        assert_eq!(fs::read_to_string(directory.join("nf_conntrack_tcp_be_liberal")).unwrap(), "1");
        assert!(!directory.join("nf_conntrack_udp_timeout").exists());
    }
}
