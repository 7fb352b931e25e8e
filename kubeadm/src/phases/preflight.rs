//! Checks of `init`, and its images.

use super::init::Init;
use crate::{
    error::Result,
    images::{
        self,
        supply::{Policy, Supply},
    },
    preflight::{self, checks},
};

/// Words before images are brought.
pub(super) const PULLING: [&str; 3] = [
    "[preflight] Pulling images required for setting up a Kubernetes cluster",
    "[preflight] This might take a minute or two, depending on the speed of your internet connection",
    "[preflight] You can also perform this action beforehand using 'kubeadm config images pull'",
];

pub(super) async fn init(init: &mut Init) -> Result<()> {
    let host = &*init.host;
    host.line("[preflight] Running pre-flight checks");
    preflight::report(host, &[checks::privileged(host)], &init.ignored)?;
    let cri = init.cri()?;
    let subject = checks::Subject { host, node: init.node(), cri: &cri, programs: &init.programs };
    let port = init.config.init.local_api_endpoint.bind_port;
    let found = checks::init(&subject, init.cluster(), port).await;
    preflight::report(host, &found, &init.ignored)?;
    if init.dry_run {
        host.line("[preflight] Would pull the required images (like 'kubeadm config images pull')");
        return Ok(());
    }
    PULLING.iter().for_each(|line| host.line(line));
    let policy = Policy::of(&init.config.init.node_registration);
    let supply = Supply { host, cri: &cri, cluster: init.cluster(), programs: &init.programs, policy };
    checks::sandbox_image(host, &cri, &images::pause(init.cluster())).await;
    let found = checks::images(&supply, &images::required(host, init.cluster())).await;
    preflight::report(host, &[found], &init.ignored)
}
