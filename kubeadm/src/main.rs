//! The kubeadm binary.

use std::{process::ExitCode, sync::Arc};

use kubeadm::{commands, host::LocalHost};
use runtime::flags::LoggingArgs;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    let verbosity = commands::verbosity(&words);
    if verbosity > 0 {
        runtime::logging::install(&LoggingArgs { verbosity, ..LoggingArgs::default() });
    }
    runtime::run_tool(async |stop| match commands::run(Arc::new(LocalHost::default()), words, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            if verbosity < 5 {
                eprintln!("To see the stack trace of this error execute with --v=5 or higher");
            }
            ExitCode::FAILURE
        }
    })
}
