//! The process environment. No other crate reads it.

use std::path::PathBuf;

/// A variable, `None` when absent or not UTF-8.
pub fn var(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// A variable that is present and not empty.
pub fn non_empty(name: &str) -> Option<String> {
    var(name).filter(|v| !v.is_empty())
}

/// The user's home directory.
pub fn home() -> Option<PathBuf> {
    non_empty("HOME").map(PathBuf::from)
}

/// Name of this machine as the kernel has it, lower case and trimmed.
pub fn hostname() -> std::io::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_lowercase();
    if name.is_empty() {
        return Err(std::io::Error::other("empty hostname is invalid"));
    }
    Ok(name)
}

/// Name of the Node that this runs on: the given one, else the variable `NODE_NAME`, else the host's.
pub fn node_name(given: &str) -> std::io::Result<String> {
    if !given.is_empty() {
        return Ok(given.to_owned());
    }
    non_empty("NODE_NAME").map_or_else(hostname, Ok)
}

/// Identity of this process in leader election: `<hostname>_<uuid>`.
pub fn identity() -> std::io::Result<String> {
    Ok(format!("{}_{}", hostname()?, uuid::Uuid::new_v4()))
}

/// Tells the service supervisor that the process serves (`READY=1` on `NOTIFY_SOCKET`).
pub fn notify_ready() {
    notify("READY=1");
}

/// Sends one state to the service supervisor, if there is one.
pub fn notify(state: &str) {
    let Some(path) = non_empty("NOTIFY_SOCKET") else { return };
    let sent = std::os::unix::net::UnixDatagram::unbound().and_then(|socket| match path.strip_prefix('@') {
        None => socket.send_to(state.as_bytes(), &path),
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
            socket.send_to_addr(state.as_bytes(), &address)
        }
    });
    if let Err(error) = sent {
        tracing::warn!(%error, "Unable to notify the service supervisor");
    }
}

/// How often the service supervisor wants a sign of life of this process, if it does.
pub fn watchdog() -> Option<std::time::Duration> {
    watchdog_of(non_empty("WATCHDOG_USEC").as_deref(), non_empty("WATCHDOG_PID").as_deref(), std::process::id())
}

fn watchdog_of(micros: Option<&str>, of: Option<&str>, own: u32) -> Option<std::time::Duration> {
    let meant = of.is_none_or(|of| of.parse() == Ok(own));
    let micros: u64 = micros?.parse().ok().filter(|micros| *micros > 0)?;
    meant.then(|| std::time::Duration::from_micros(micros))
}

/// Variables whose names end in `suffix`, in any case, sorted by name.
pub fn with_suffix(suffix: &str) -> Vec<(String, String)> {
    let ends = |name: &str| name.to_lowercase().ends_with(suffix);
    let mut found: Vec<_> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, value)| ends(name) && !value.is_empty())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_watchdog_is_for_the_process_that_it_names() {
        for (micros, of, expected) in [
            (None, None, None),
            (Some("30000000"), None, Some(Duration::from_secs(30))),
            (Some("30000000"), Some("7"), Some(Duration::from_secs(30))),
            (Some("30000000"), Some("8"), None),
            (Some("0"), None, None),
            (Some("soon"), None, None),
        ] {
            assert_eq!(watchdog_of(micros, of, 7), expected, "{micros:?} {of:?}");
        }
    }
}
