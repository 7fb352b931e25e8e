//! Devices, addresses, routes, neighbours: what is there, and the commands that make it what it must be.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    host::{Command, Host, HostError},
    nodes::NodeView,
    plan::{Plan, Route, Uplink, Vxlan},
};

/// Number of the agent as the origin of routes; it marks those that it may remove.
const PROTOCOL: u8 = 84;

#[derive(Clone, Debug, Deserialize)]
struct LinkJson {
    #[serde(default)]
    ifname: String,
    #[serde(default)]
    mtu: u32,
    #[serde(default)]
    address: String,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    linkinfo: LinkInfo,
    #[serde(default)]
    addr_info: Vec<AddressJson>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct LinkInfo {
    #[serde(default)]
    info_kind: String,
    #[serde(default)]
    info_data: InfoData,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct InfoData {
    id: Option<u32>,
    port: Option<u16>,
    local: Option<String>,
    local6: Option<String>,
    link: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct AddressJson {
    local: Option<String>,
    #[serde(default)]
    prefixlen: u8,
    #[serde(default)]
    scope: String,
}

impl AddressJson {
    fn network(&self) -> Option<IpNet> {
        IpNet::new(self.local.as_ref()?.parse().ok()?, self.prefixlen).ok()
    }
}

#[derive(Clone, Debug, Deserialize)]
struct RouteJson {
    dst: String,
    gateway: Option<IpAddr>,
    #[serde(default)]
    dev: String,
}

#[derive(Clone, Debug, Deserialize)]
struct NeighborJson {
    dst: IpAddr,
    #[serde(default)]
    lladdr: String,
}

#[derive(Clone, Debug, Deserialize)]
struct ForwardingJson {
    mac: String,
    dst: Option<IpAddr>,
}

/// The state of the host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observed {
    links: Vec<LinkJson>,
    routes: BTreeMap<IpNet, Option<Route>>,
    neighbors: BTreeMap<IpAddr, String>,
    forwarding: BTreeSet<(String, IpAddr)>,
}

async fn ask<T: DeserializeOwned>(host: &dyn Host, program: &'static str, query: &str) -> Result<Vec<T>, HostError> {
    let command = Command::new(program, query);
    let text = host.run(&command, "").await?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    serde_json::from_str(&text).map_err(|source| HostError::Answer { command: command.to_string(), source })
}

/// Reads the state. `device` is the name of the vxlan device.
pub(crate) async fn observe(host: &dyn Host, device: &str) -> Result<Observed, HostError> {
    let mut observed = Observed { links: ask(host, "ip", "-j -d address show").await?, ..Observed::default() };
    for family in ["-4", "-6"] {
        let query = format!("-j {family} route show table main proto {PROTOCOL}");
        let routes: Vec<RouteJson> = ask(host, "ip", &query).await?;
        for route in routes {
            let to = route.dst.parse().or_else(|_| route.dst.parse::<IpAddr>().map(IpNet::from));
            let Ok(to) = to else { continue };
            let via = route.gateway.map(|via| Route { via, onlink: route.dev == device, device: route.dev });
            observed.routes.insert(to, via);
        }
    }
    if observed.links.iter().any(|l| l.ifname == device) {
        let neighbors: Vec<NeighborJson> =
            ask(host, "ip", &format!("-j neigh show dev {device} nud permanent")).await?;
        observed.neighbors = neighbors.into_iter().map(|n| (n.dst, n.lladdr)).collect();
        let entries: Vec<ForwardingJson> = ask(host, "bridge", &format!("-j fdb show dev {device}")).await?;
        observed.forwarding = entries.into_iter().filter_map(|e| Some((e.mac, e.dst?))).collect();
    }
    Ok(observed)
}

impl Observed {
    /// The devices with internal addresses of a node, in the order of its addresses.
    pub(crate) fn uplinks(&self, node: &NodeView) -> Vec<Uplink> {
        let find = |address: &IpAddr| {
            self.links.iter().find_map(|link| {
                let mut networks = link.addr_info.iter().filter_map(AddressJson::network);
                let network = networks.find(|n| n.addr() == *address)?;
                Some(Uplink { device: link.ifname.clone(), mtu: link.mtu, address: network })
            })
        };
        node.addresses.iter().filter_map(find).collect()
    }

    /// Commands that make the host as planned.
    pub(crate) fn commands(&self, plan: &Plan, device: &str) -> Vec<Command> {
        let mut commands = Vec::new();
        let mut fresh = false;
        match &plan.vxlan {
            Some(vxlan) => fresh = self.device(vxlan, &mut commands),
            None => commands.extend(self.remove_device(device)),
        }
        if let Some(vxlan) = &plan.vxlan {
            self.entries(vxlan, fresh, &mut commands);
        }
        for (to, route) in &plan.routes {
            let gone_with_device = fresh && route.device == device;
            if gone_with_device || self.routes.get(to).and_then(Option::as_ref) != Some(route) {
                let family = if to.addr().is_ipv4() { "-4" } else { "-6" };
                let onlink = if route.onlink { " onlink" } else { "" };
                let (via, device) = (route.via, &route.device);
                let text = format!("{family} route replace {to} via {via} dev {device}{onlink} proto {PROTOCOL}");
                commands.push(Command::new("ip", &text));
            }
        }
        commands.extend(self.stale_routes(|to| plan.routes.contains_key(to)));
        commands
    }

    /// Commands that remove everything of the agent.
    pub(crate) fn cleanup(&self, device: &str) -> Vec<Command> {
        let mut commands = self.stale_routes(|_| false);
        commands.extend(self.remove_device(device));
        commands
    }

    fn stale_routes(&self, keep: impl Fn(&IpNet) -> bool) -> Vec<Command> {
        let stale = self.routes.keys().filter(|to| !keep(to));
        let delete = |to: &IpNet| {
            let family = if to.addr().is_ipv4() { "-4" } else { "-6" };
            Command::new("ip", &format!("{family} route del {to} proto {PROTOCOL}"))
        };
        stale.map(delete).collect()
    }

    fn remove_device(&self, device: &str) -> Option<Command> {
        let ours = |l: &&LinkJson| l.ifname == device && l.linkinfo.info_kind == "vxlan";
        self.links.iter().find(ours).map(|_| Command::new("ip", &format!("link del {device}")))
    }

    /// Makes the device; `true` if it is new.
    fn device(&self, wanted: &Vxlan, commands: &mut Vec<Command>) -> bool {
        let name = &wanted.name;
        let present = self.links.iter().find(|l| l.ifname == *name);
        let same = present.filter(|l| is_same(l, wanted));
        if present.is_some() && same.is_none() {
            commands.push(Command::new("ip", &format!("link del {name}")));
        }
        match same {
            None => {
                let Vxlan { vni, port, local, uplink, mac, mtu, .. } = wanted;
                commands.push(Command::new(
                    "ip",
                    &format!(
                        "link add {name} address {mac} mtu {mtu} type vxlan id {vni} dstport {port} local {local} dev \
                         {uplink} nolearning"
                    ),
                ));
            }
            Some(link) if link.mtu != wanted.mtu => {
                commands.push(Command::new("ip", &format!("link set {name} mtu {}", wanted.mtu)));
            }
            Some(_) => {}
        }
        if !same.is_some_and(|l| l.flags.iter().any(|f| f == "UP")) {
            commands.push(Command::new("ip", &format!("link set {name} up")));
        }
        let global = |a: &&AddressJson| a.scope == "global";
        let has: BTreeSet<IpNet> =
            same.into_iter().flat_map(|l| &l.addr_info).filter(global).filter_map(AddressJson::network).collect();
        for address in has.difference(&wanted.addresses) {
            commands.push(Command::new("ip", &format!("address del {address} dev {name}")));
        }
        for address in wanted.addresses.difference(&has) {
            let nodad = if address.addr().is_ipv4() { "" } else { " nodad" };
            commands.push(Command::new("ip", &format!("address add {address} dev {name}{nodad}")));
        }
        same.is_none()
    }

    fn entries(&self, wanted: &Vxlan, fresh: bool, commands: &mut Vec<Command>) {
        let name = &wanted.name;
        let nothing = Self::default();
        let now = if fresh { &nothing } else { self };
        for (address, mac) in &wanted.neighbors {
            if now.neighbors.get(address) != Some(mac) {
                let text = format!("neigh replace {address} lladdr {mac} nud permanent dev {name}");
                commands.push(Command::new("ip", &text));
            }
        }
        for address in now.neighbors.keys().filter(|a| !wanted.neighbors.contains_key(a) && !is_multicast(a)) {
            commands.push(Command::new("ip", &format!("neigh del {address} dev {name}")));
        }
        for (mac, to) in now.forwarding.iter().filter(|(mac, to)| wanted.forwarding.get(mac) != Some(to)) {
            commands.push(Command::new("bridge", &format!("fdb del {mac} dev {name} dst {to}")));
        }
        for (mac, to) in &wanted.forwarding {
            if !now.forwarding.contains(&(mac.clone(), *to)) {
                commands.push(Command::new("bridge", &format!("fdb replace {mac} dev {name} dst {to} self permanent")));
            }
        }
    }
}

fn is_multicast(address: &IpAddr) -> bool {
    address.is_multicast()
}

/// Whether a device is the wanted one but for what can be changed.
fn is_same(link: &LinkJson, wanted: &Vxlan) -> bool {
    let data = &link.linkinfo.info_data;
    let local = data.local.as_ref().or(data.local6.as_ref()).and_then(|l| l.parse::<IpAddr>().ok());
    link.linkinfo.info_kind == "vxlan"
        && link.address == wanted.mac
        && data.id == Some(wanted.vni)
        && data.port == Some(wanted.port)
        && local == Some(wanted.local)
        && data.link.as_ref().is_none_or(|l| *l == wanted.uplink)
}

#[cfg(test)]
mod tests;
