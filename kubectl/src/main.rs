//! The kubectl binary.

use std::process::ExitCode;

use kubectl::streams::Streams;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    runtime::run_tool(async |stop| kubectl::run(&program, arguments, Streams::of_process(), stop).await.into())
}
