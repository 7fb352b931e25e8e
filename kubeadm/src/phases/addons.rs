//! Phases of the addons.

use std::path::Path;

use super::init::{Addons, Init};
use crate::{
    addons::{
        dns as dns_addon, metrics as metrics_addon, network as network_addon, proxy as proxy_addon,
        storage as storage_addon, upkeep as upkeep_addon,
    },
    config::{ClusterConfiguration, DEFAULT_POD_SUBNET, ImageSource},
    error::Result,
    yaml,
};

/// Prints objects as one file.
fn print(init: &Init, objects: &[serde_json::Value]) -> Result<()> {
    for object in objects {
        init.host.say(&format!("---\n{}", yaml::to_yaml(object)?));
    }
    Ok(())
}

pub(super) async fn dns(init: &mut Init) -> Result<()> {
    if init.config.cluster.dns.disabled {
        return Ok(());
    }
    init.patches()?;
    let objects = dns_addon::objects(&*init.host, &init.config.cluster, init.patches.as_ref())?;
    if init.addons == Addons::Printed {
        return print(init, &objects);
    }
    let api = init.api().await?;
    dns_addon::apply(&*init.host, &api, objects).await?;
    init.host.line("[addons] Applied essential addon: CoreDNS");
    Ok(())
}

pub(super) async fn proxy(init: &mut Init) -> Result<()> {
    if init.config.cluster.proxy.disabled {
        return Ok(());
    }
    let server = init.config.cluster.endpoint(&init.config.init.local_api_endpoint);
    let objects = proxy_addon::objects(&*init.host, &init.config.cluster, &init.config.proxy, &server)?;
    if init.addons == Addons::Printed {
        return print(init, &objects);
    }
    let api = init.api().await?;
    for object in objects {
        api.create_or_update(&*init.host, &object).await?;
    }
    init.host.line("[addons] Applied essential addon: kube-proxy");
    Ok(())
}

pub(super) async fn network(init: &mut Init) -> Result<()> {
    if init.config.cluster.image_source() != ImageSource::Programs {
        return Ok(());
    }
    let objects = network_addon::objects(&init.config.cluster)?;
    if init.addons == Addons::Printed {
        return print(init, &objects);
    }
    if network_addon::is_configured(&*init.host, Path::new("/etc/cni/net.d")) {
        init.host.line("[addons] A pod network is configured on this host already, skipping addon: pod-network");
        return Ok(());
    }
    let api = init.api().await?;
    for object in objects {
        api.create_or_update(&*init.host, &object).await?;
    }
    let subnet = &init.config.cluster.networking.pod_subnet;
    let chosen = if subnet == DEFAULT_POD_SUBNET { " (the default, --pod-network-cidr chooses another)" } else { "" };
    init.host.line(&format!("[addons] Applied addon: pod-network with Pod addresses from {subnet}{chosen}"));
    Ok(())
}

pub(super) async fn storage(init: &mut Init) -> Result<()> {
    of_programs(init, "local-path", storage_addon::objects).await
}

pub(super) async fn metrics(init: &mut Init) -> Result<()> {
    of_programs(init, "metrics", metrics_addon::objects).await
}

pub(super) async fn upkeep(init: &mut Init) -> Result<()> {
    of_programs(init, "upkeep", upkeep_addon::objects).await
}

/// An addon that comes with the installed programs.
async fn of_programs(
    init: &mut Init,
    name: &str,
    objects: fn(&ClusterConfiguration) -> Result<Vec<serde_json::Value>>,
) -> Result<()> {
    if init.config.cluster.image_source() != ImageSource::Programs {
        return Ok(());
    }
    let objects = objects(&init.config.cluster)?;
    if init.addons == Addons::Printed {
        return print(init, &objects);
    }
    let api = init.api().await?;
    for object in objects {
        api.create_or_update(&*init.host, &object).await?;
    }
    init.host.line(&format!("[addons] Applied addon: {name}"));
    Ok(())
}
