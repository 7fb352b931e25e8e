//! The kube-proxy binary.

use std::process::ExitCode;

use clap::Parser;
use kube_proxy::options::Options;

fn main() -> ExitCode {
    let options = Options::parse();
    let logging = options.logging.clone();
    runtime::process::run(&logging, |stop| kube_proxy::run(options, stop))
}
