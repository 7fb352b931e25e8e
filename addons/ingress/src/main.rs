//! The Ingress controller binary.

use std::process::ExitCode;

use runtime::ComponentInfo;

const INFO: ComponentInfo = ComponentInfo {
    name: "timonel-ingress",
    about: "The Ingress controller takes HTTP and HTTPS requests from outside the cluster to its Services, by the rules of \
            Ingress objects.",
    deprecated: &[],
};

fn main() -> ExitCode {
    runtime::run(INFO, ingress::run)
}
