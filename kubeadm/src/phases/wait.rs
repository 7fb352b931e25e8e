//! Waits for the kubelet and the control plane.

use std::time::{Duration, Instant};

use super::init::Init;
use crate::{
    client::{Cluster, INTERVAL, error_text},
    config::{Timeouts, component::ComponentConfig, join_host_port},
    constants::MANIFESTS_DIR,
    error::{Error, Result, fail},
    host::Host,
    kubelet,
    manifests::present::Present,
};

/// A duration as it is shown: to the microsecond, like `501.2ms`.
pub fn shown(duration: Duration) -> String {
    let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX / 1000);
    machinery::duration::format(machinery::duration::GoDuration(micros * 1000))
}

fn period(duration: Duration) -> String {
    crate::config::Period(duration).to_string()
}

/// Waits until the kubelet's health page says `ok`.
pub(super) async fn kubelet_health(host: &dyn Host, config: &ComponentConfig, patience: Duration) -> Result<()> {
    let Some(url) = kubelet::health_url(config) else {
        host.line("[kubelet-check] Skipping the kubelet health check because the healthz port is set to 0");
        return Ok(());
    };
    host.line(&format!(
        "[kubelet-check] Waiting for a healthy kubelet at {url}. This can take up to {}",
        period(patience)
    ));
    let base = url.trim_end_matches("/healthz").to_owned();
    let cluster = Cluster::anonymous(&base, None, INTERVAL)?;
    let start = Instant::now();
    loop {
        let cause = match cluster.text_once("/healthz").await {
            Ok(_) => {
                host.line(&format!("[kubelet-check] The kubelet is healthy after {}", shown(start.elapsed())));
                return Ok(());
            }
            Err(error) => error_text(&error),
        };
        if start.elapsed() >= patience {
            host.line(&format!("[kubelet-check] The kubelet is not healthy after {}", shown(start.elapsed())));
            host.line("");
            return fail!("The HTTP call equal to 'curl -sSL {url}' returned error: {cause}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

const KUBELET_HELP: &str = "
Unfortunately, an error has occurred, likely caused by:
	- The kubelet is not running
	- The kubelet is unhealthy due to a misconfiguration of the node in some way (required cgroups disabled)

If you are on a systemd-powered system, you can try to troubleshoot the error with the following commands:
	- 'systemctl status kubelet'
	- 'journalctl -xeu kubelet'
";

/// The kubelet must become healthy; otherwise its user is told where to look.
pub(super) async fn kubelet_or_help(host: &dyn Host, config: &ComponentConfig, patience: Duration) -> Result<()> {
    kubelet_health(host, config, patience).await.map_err(|cause| {
        host.warn(&format!("{KUBELET_HELP}\n"));
        Error::new(format!("failed while waiting for the kubelet to start: {cause}"))
    })
}

/// One component and its health page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Name of the component.
    pub name: &'static str,
    /// Address.
    pub base: String,
    /// Page.
    pub page: &'static str,
}

/// Reads the health pages of a control plane from its manifests.
pub fn checks(host: &dyn Host, local: &str) -> Result<Vec<Check>> {
    let table = [
        ("kube-apiserver", "--advertise-address", local, 6443, "/livez"),
        ("kube-controller-manager", "--bind-address", "127.0.0.1", 10257, "/healthz"),
        ("kube-scheduler", "--bind-address", "127.0.0.1", 10259, "/livez"),
    ];
    let mut all = Vec::new();
    for (name, address_flag, default_address, default_port, page) in table {
        let pod = Present::read(host, name)?;
        let address = pod.flag(address_flag).unwrap_or(default_address);
        let port: i32 = pod.flag("--secure-port").and_then(|p| p.parse().ok()).unwrap_or(default_port);
        all.push(Check { name, base: format!("https://{}", join_host_port(address, port)), page });
    }
    Ok(all)
}

/// Waits for all components at once.
pub(super) async fn control_plane(host: &dyn Host, admin: &Cluster, local: &str, patience: Duration) -> Result<()> {
    host.line(&format!(
        "[control-plane-check] Waiting for healthy control plane components. This can take up to {}",
        period(patience)
    ));
    let checks = checks(host, local)?;
    for check in &checks {
        host.line(&format!("[control-plane-check] Checking {} at {}{}", check.name, check.base, check.page));
    }
    let waits = checks.iter().map(|check| component(host, admin, check, patience));
    let failures: Vec<String> =
        futures::future::join_all(waits).await.into_iter().filter_map(|r| r.err().map(|e| e.to_string())).collect();
    match failures.as_slice() {
        [] => Ok(()),
        [one] => fail!("{one}"),
        several => fail!("[{}]", several.join(", ")),
    }
}

async fn component(host: &dyn Host, admin: &Cluster, check: &Check, patience: Duration) -> Result<()> {
    let anonymous = Cluster::anonymous(&check.base, None, INTERVAL)?;
    let client = if check.name == "kube-apiserver" { admin } else { &anonymous };
    let start = Instant::now();
    loop {
        let cause = match client.text_once(check.page).await {
            Ok(_) => {
                let after = shown(start.elapsed());
                host.line(&format!("[control-plane-check] {} is healthy after {after}", check.name));
                return Ok(());
            }
            Err(kube::Error::Api(status)) if status.code != 0 => format!("with status: {}", status.code),
            Err(error) => format!(": {}", error_text(&error)),
        };
        if start.elapsed() >= patience {
            let after = shown(start.elapsed());
            host.line(&format!("[control-plane-check] {} is not healthy after {after}", check.name));
            let gap = if cause.starts_with(':') { "" } else { " " };
            return fail!("{} check failed at {}{}{gap}{cause}", check.name, check.base, check.page);
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

fn control_plane_help(socket: &str) -> String {
    format!(
        "
A control plane component may have crashed or exited when started by the container runtime.
To troubleshoot, list all containers using your preferred container runtimes CLI.
Here is one example how you may list all running Kubernetes containers by using crictl:
	- 'crictl --runtime-endpoint {socket} ps -a | grep kube | grep -v pause'
	Once you have found the failing container, you can inspect its logs with:
	- 'crictl --runtime-endpoint {socket} logs CONTAINERID'

"
    )
}

/// Waits until the control plane of a new or joining host is healthy.
pub(super) async fn control_plane_or_help(
    host: &dyn Host,
    admin: &Cluster,
    local: &str,
    socket: &str,
    patience: Duration,
) -> Result<()> {
    control_plane(host, admin, local, patience).await.map_err(|cause| {
        host.warn(&control_plane_help(socket));
        Error::new(format!("failed while waiting for the control plane to start: {cause}"))
    })
}

pub(super) async fn init(init: &mut Init) -> Result<()> {
    if init.dry_run {
        init.host.line("[dryrun] Would wait for the control plane to boot up as static Pods");
        return Ok(());
    }
    let host = &*init.host;
    host.line(&format!(
        "[wait-control-plane] Waiting for the kubelet to boot up the control plane as static Pods from directory \
         {MANIFESTS_DIR:?}"
    ));
    kubelet_or_help(host, &init.config.kubelet, Timeouts::kubelet(init.timeouts())).await?;
    let local = &init.config.init.local_api_endpoint.advertise_address;
    let socket = &init.config.init.node_registration.cri_socket;
    let admin = init.reach().await?;
    control_plane_or_help(host, &admin, local, socket, Timeouts::component(init.timeouts())).await
}
