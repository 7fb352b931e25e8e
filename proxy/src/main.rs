//! The kube-proxy binary.

use std::process::ExitCode;

use runtime::ComponentInfo;

const INFO: ComponentInfo = ComponentInfo {
    name: "kube-proxy",
    about: "The Kubernetes network proxy runs on each node and forwards the traffic of Services to their endpoints.",
    deprecated: kube_proxy::DEPRECATED,
};

fn main() -> ExitCode {
    runtime::run(INFO, kube_proxy::run)
}
