//! Entry point.

use std::process::ExitCode;

use kubelet::kubelet::{Kubelet, KubeletError};
use kubelet::options;
use runtime::process::{self, LoggingArgs};

fn main() -> ExitCode {
    let matches = options::command().get_matches();
    let flags = match options::read(&matches) {
        Ok(flags) => flags,
        Err(error) => {
            eprintln!("Error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let logging = LoggingArgs {
        logging_format: flags.logging_format.clone(),
        verbosity: flags.verbosity,
        ..LoggingArgs::default()
    };
    process::run(&logging, |stop| async move {
        let kubelet = Kubelet::build(flags, stop.clone()).await?;
        kubelet.run(stop).await?;
        Ok::<(), KubeletError>(())
    })
}
