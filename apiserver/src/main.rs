//! The kube-apiserver binary.

use std::process::ExitCode;

use clap::Parser;
use kube_apiserver::options::Options;

fn main() -> ExitCode {
    let options = Options::parse();
    let logging = options.logging.clone();
    runtime::process::run(&logging, |stop| kube_apiserver::run(options, stop))
}
