//! The pod network binary.

use std::process::ExitCode;

use runtime::ComponentInfo;

const INFO: ComponentInfo = ComponentInfo {
    name: "pod-network",
    about: "The pod network agent connects the Pods of its node to those of all others: CNI configuration, routes or a \
            vxlan device, and masquerade.",
    deprecated: &[],
};

fn main() -> ExitCode {
    runtime::run(INFO, pod_network::run)
}
