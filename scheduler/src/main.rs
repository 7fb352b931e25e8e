//! The kube-scheduler binary.

use std::process::ExitCode;

use kube_scheduler::options::{DEPRECATED, Options};
use runtime::ComponentInfo;

const INFO: ComponentInfo = ComponentInfo {
    name: "kube-scheduler",
    about: "The Kubernetes scheduler is a control plane process which assigns Pods to Nodes.",
    deprecated: DEPRECATED,
};

fn main() -> ExitCode {
    runtime::run::<Options, _, _, _>(
        INFO,
        |options, runtime| async move { kube_scheduler::run(options, runtime).await },
    )
}
