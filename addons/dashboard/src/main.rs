//! The dashboard binary.

use std::process::ExitCode;

use runtime::ComponentInfo;

const INFO: ComponentInfo = ComponentInfo {
    name: "timonel-dashboard",
    about: "The dashboard is a web page that shows and changes what is in the cluster, with the rights of who logs in.",
    deprecated: &[],
};

fn main() -> ExitCode {
    runtime::run(INFO, dashboard::run)
}
