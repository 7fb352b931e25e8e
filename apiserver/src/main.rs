//! The kube-apiserver binary.

use std::process::ExitCode;

use kube_apiserver::options::Options;
use clap::Parser;

fn main() -> ExitCode {
    let options = Options::parse();
    let logging = options.logging.clone();
    runtime::process::run(&logging, |stop| kube_apiserver::run(options, stop))
}
