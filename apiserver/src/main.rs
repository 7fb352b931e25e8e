//! The kube-apiserver binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime::run(kube_apiserver::options::INFO, kube_apiserver::run)
}
