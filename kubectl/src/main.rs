//! The kubectl binary.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use kubectl::cli::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    runtime::run_tool(async |_stop| match kubectl::run(cli).await {
        Ok((out, err)) => {
            let written = std::io::stdout().write_all(out.as_bytes());
            eprint!("{err}");
            if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    })
}
