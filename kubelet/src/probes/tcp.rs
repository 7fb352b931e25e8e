//! Connecting as a probe.

use std::time::Duration;

use tokio::net::TcpStream;

use super::runner::Report;

/// Success is an accepted connection.
pub(super) async fn probe(host: &str, port: u16, timeout: Duration) -> Report {
    let shown = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match tokio::time::timeout(timeout, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Report::Success,
        Ok(Err(error)) => Report::Failure(format!("dial tcp {shown}: connect: {}", plain(&error))),
        Err(_) => Report::Failure(format!("dial tcp {shown}: i/o timeout")),
    }
}

/// The system's text without the number Rust adds.
pub(super) fn plain(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_lowercase(),
        None => error.to_string(),
    }
}
