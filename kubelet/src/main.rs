//! Entry point.

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime::run(kubelet::options::INFO, kubelet::kubelet::run)
}
