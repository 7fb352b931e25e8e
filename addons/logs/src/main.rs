//! The log collector binary.

use std::process::ExitCode;

use runtime::ComponentInfo;

const INFO: ComponentInfo = ComponentInfo {
    name: "timonel-logs",
    about: "The log collector reads what containers of its node print and brings it to files or to an HTTP server.",
    deprecated: &[],
};

fn main() -> ExitCode {
    runtime::run(INFO, logs::run)
}
