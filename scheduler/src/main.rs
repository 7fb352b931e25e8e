//! The kube-scheduler binary.

use std::process::ExitCode;

use kube_scheduler::options::Options;
use runtime::ComponentInfo;

const INFO: ComponentInfo = ComponentInfo {
    name: "kube-scheduler",
    about: "The Kubernetes scheduler is a control plane process which assigns Pods to Nodes.",
    // What a file takes the place of is still taken without a word.
    deprecated: &[],
};

fn main() -> ExitCode {
    runtime::run::<Options, _, _, _>(
        INFO,
        |options, runtime| async move { kube_scheduler::run(options, runtime).await },
    )
}
