//! The metrics addon's binary.

use std::process::ExitCode;

use runtime::ComponentInfo;

const INFO: ComponentInfo = ComponentInfo {
    name: "timonel-metrics",
    about: "The metrics addon reads what nodes and Pods use from the kubelets and serves it as metrics.k8s.io, for \
            kubectl top and for autoscaling.",
    deprecated: &[],
};

fn main() -> ExitCode {
    runtime::run(INFO, metrics::run)
}
