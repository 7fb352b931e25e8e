//! The cluster DNS binary.

use std::process::ExitCode;

use runtime::ComponentInfo;

const INFO: ComponentInfo = ComponentInfo {
    name: "cluster-dns",
    about: "Cluster DNS answers for names of Services and Pods from the API and forwards all other questions.",
    deprecated: &[],
};

fn main() -> ExitCode {
    runtime::run(INFO, cluster_dns::run)
}
