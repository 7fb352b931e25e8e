//! The kube-controller-manager binary.

use std::process::ExitCode;

use runtime::ComponentInfo;

const INFO: ComponentInfo = ComponentInfo {
    name: "kube-controller-manager",
    about: "The Kubernetes controller manager runs the control loops that make the cluster what its objects say.",
    deprecated: kube_controller_manager::options::DEPRECATED,
};

fn main() -> ExitCode {
    runtime::run(INFO, kube_controller_manager::run)
}
