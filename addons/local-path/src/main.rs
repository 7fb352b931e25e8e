//! The local path provisioner binary.

use std::process::ExitCode;

use runtime::ComponentInfo;

const INFO: ComponentInfo = ComponentInfo {
    name: "local-path",
    about: "The local path provisioner makes volumes from directories of its node, for claims whose Pods are placed there, \
            and removes them with their claims.",
    deprecated: &[],
};

fn main() -> ExitCode {
    runtime::run(INFO, local_path::run)
}
