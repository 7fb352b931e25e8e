//! The kube-controller-manager binary.

use std::process::ExitCode;

use clap::Parser;
use kube_controller_manager::options::Options;

fn main() -> ExitCode {
    let options = Options::parse();
    let logging = options.logging.clone();
    runtime::process::run(&logging, |stop| kube_controller_manager::run(options, stop))
}
