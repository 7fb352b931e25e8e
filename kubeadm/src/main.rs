//! The kubeadm binary.

use std::{process::ExitCode, sync::Arc};

use kubeadm::{commands, host::LocalHost};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    runtime::run_tool(async |stop| match commands::run(Arc::new(LocalHost), words, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}\nTo see the stack trace of this error execute with --v=5 or higher");
            ExitCode::FAILURE
        }
    })
}
