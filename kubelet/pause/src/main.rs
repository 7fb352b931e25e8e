//! Holds a Pod's namespaces open: waits for a signal to end and reaps processes whose parents are gone.
//!
//! Built into an image of its own: `cargo rustc --release -p pause -- -C target-feature=+crt-static`.

use std::process::ExitCode;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "-v" || argument == "--version") {
        println!("pause {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGCHLD] {
        signals.add(signal);
    }
    if let Err(error) = signals.thread_block() {
        eprintln!("pause: block signals: {error}");
        return ExitCode::FAILURE;
    }
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => reap(),
            Ok(signal) => {
                println!("Shutting down, got signal: {signal}");
                return ExitCode::SUCCESS;
            }
            Err(Errno::EINTR) => {}
            Err(error) => {
                eprintln!("pause: wait for signals: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
}

/// Takes every ended child; one signal may stand for several.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}
