//! Mode ipvs: virtual servers of the kernel on a dummy interface, ipsets, and rules of iptables around them.
//!
//! The plan is made anew each time; what is sent is what differs from the plan before, or on a full synchronization
//! from what the kernel has. Connections to an endpoint that goes end by themselves: it gets no new ones and is
//! deleted when it has none.

mod frame;
mod kernel;
mod plan;
mod sets;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

use crate::{
    backend::{Applied, Backend, BackendError, Work, sysctl},
    config::settings::{Detector, IpvsSettings, Settings},
    family::Family,
    iptables::{Style, install, program},
    netlink::NetlinkError,
    node::{Home, IPVS_INTERFACE, NodePorts, local_addresses},
    view::Protocol,
};
use kernel::Ipvs;
use plan::{Place, Plan, Server, Service, plan};

/// How often endpoints that go are looked at.
const DRAIN_PERIOD: Duration = Duration::from_secs(60);
/// A server that nobody has, to try a scheduler with.
const PROBE: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 51, 100, 0), 20_000);

/// Kernel settings of this mode, and the timeouts of connections.
pub(crate) fn set_up(settings: &IpvsSettings) {
    let mut wanted = vec![
        ("net/ipv4/vs/conntrack", 1),
        ("net/ipv4/vs/expire_nodest_conn", 1),
        ("net/ipv4/vs/expire_quiescent_template", 1),
        ("net/ipv4/ip_forward", 1),
    ];
    if reuses_badly(&std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()) {
        wanted.push(("net/ipv4/vs/conn_reuse_mode", 0));
    }
    if settings.strict_arp {
        wanted.extend([("net/ipv4/conf/all/arp_ignore", 1), ("net/ipv4/conf/all/arp_announce", 2)]);
    }
    for (name, value) in wanted {
        if let Err(error) = sysctl(name, value) {
            tracing::warn!(%error, name, value, "a kernel setting of ipvs mode cannot be set");
        }
    }
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let times = [settings.tcp_timeout, settings.tcp_fin_timeout, settings.udp_timeout].map(seconds);
    if times.iter().any(|time| *time > 0)
        && let Err(error) = Ipvs::open().and_then(|mut ipvs| ipvs.timeouts(times[0], times[1], times[2]))
    {
        tracing::warn!(%error, "the timeouts of ipvs connections cannot be set");
    }
}

/// Whether a kernel delays connections that reuse a port, unless told not to.
fn reuses_badly(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    let version = [numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)];
    ([4, 1]..[5, 9]).contains(&version)
}

/// The virtual servers of one family.
struct Servers {
    style: Style,
    settings: IpvsSettings,
    sync_period: Duration,
    node_ports: NodePorts,
    node_ip: IpAddr,
    before: Plan,
    draining: BTreeSet<(Server, SocketAddr)>,
    drained: Instant,
}

/// Prepares this mode for a family.
pub(crate) async fn backend(
    settings: &Settings,
    detector: Detector,
    node_ports: NodePorts,
    home: &Home,
    family: Family,
) -> Result<Box<dyn Backend>, BackendError> {
    sets::check().await?;
    let style = Style::of(settings, detector, node_ports.clone(), home.ip(family), family).await?;
    let scheduler = settings.ipvs.scheduler.clone();
    blocking("try the ipvs scheduler", move || probe(&scheduler)).await?;
    Ok(Box::new(Servers {
        style,
        settings: settings.ipvs.clone(),
        sync_period: settings.sync_period,
        node_ports,
        node_ip: home.ip(family),
        before: Plan::default(),
        draining: BTreeSet::new(),
        drained: Instant::now(),
    }))
}

/// Fails unless the kernel has a scheduler.
fn probe(scheduler: &str) -> Result<(), NetlinkError> {
    let mut ipvs = Ipvs::open()?;
    if ipvs.servers()?.iter().any(|present| present.scheduler == scheduler) {
        return Ok(());
    }
    let server = Server { protocol: Protocol::Tcp, address: SocketAddr::from(PROBE) };
    ipvs.put(&server, &Service::default(), scheduler, true)?;
    ipvs.remove(&server)
}

async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, NetlinkError> + Send + 'static,
) -> Result<T, BackendError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| BackendError::Cancelled)?;
    done.map_err(|source| BackendError::Netlink { what, source })
}

/// One change of the kernel's state.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Carry(IpAddr, bool),
    Put {
        server: Server,
        service: Service,
        new: bool,
    },
    Remove(Server),
    Add(Server, SocketAddr),
    /// Deletes an endpoint, at once or when its connections have ended.
    Retire(Server, SocketAddr),
}

/// The steps from one plan to another: addresses before servers, servers before endpoints, and back.
fn steps(old: &Plan, new: &Plan) -> Vec<Step> {
    let mut steps: Vec<Step> = new.addresses.difference(&old.addresses).map(|ip| Step::Carry(*ip, true)).collect();
    for (server, service) in &new.servers {
        let before = old.servers.get(server);
        if before.is_none_or(|before| before.timeout != service.timeout) {
            steps.push(Step::Put { server: *server, service: service.clone(), new: before.is_none() });
        }
        let none = BTreeSet::new();
        let there = before.map_or(&none, |before| &before.endpoints);
        steps.extend(service.endpoints.difference(there).map(|to| Step::Add(*server, *to)));
        steps.extend(there.difference(&service.endpoints).map(|to| Step::Retire(*server, *to)));
    }
    steps.extend(old.servers.keys().filter(|s| !new.servers.contains_key(s)).map(|s| Step::Remove(*s)));
    steps.extend(old.addresses.difference(&new.addresses).map(|ip| Step::Carry(*ip, false)));
    steps
}

/// What the kernel has of a family. Servers that are excluded are not seen.
fn present(ipvs: &mut Ipvs, family: Family, excluded: &[ipnet::IpNet], scheduler: &str) -> Result<Plan, NetlinkError> {
    let mut plan = Plan { addresses: kernel::carried(family), ..Plan::default() };
    for there in ipvs.servers()? {
        let ip = there.server.address.ip();
        if Family::of(&ip) != family || excluded.iter().any(|range| range.contains(&ip)) {
            continue;
        }
        // One with another scheduler is as good as one with another timeout: it is changed.
        let same = there.scheduler == scheduler;
        let timeout = match (same, there.persistent) {
            (true, true) => there.timeout,
            (true, false) => 0,
            (false, _) => u32::MAX,
        };
        let endpoints = ipvs.destinations(&there.server)?.into_iter().filter(|d| d.weight > 0).map(|d| d.address);
        plan.servers.insert(there.server, Service { timeout, endpoints: endpoints.collect() });
    }
    Ok(plan)
}

/// Takes the steps. Gives the endpoints that are left to go by themselves.
fn take(
    steps: &[Step],
    scheduler: &str,
    draining: &BTreeSet<(Server, SocketAddr)>,
) -> Result<BTreeSet<(Server, SocketAddr)>, NetlinkError> {
    let mut ipvs = Ipvs::open()?;
    let mut draining = draining.clone();
    for step in steps {
        match step {
            Step::Carry(ip, wanted) => kernel::carry(ip, *wanted)?,
            Step::Put { server, service, new } => ipvs.put(server, service, scheduler, *new)?,
            Step::Remove(server) => {
                ipvs.remove(server)?;
                draining.retain(|(of, _)| of != server);
            }
            Step::Add(server, to) => {
                // One that was going begins anew.
                if draining.remove(&(*server, *to)) {
                    ipvs.delete(server, to)?;
                }
                ipvs.add(server, to)?;
            }
            Step::Retire(server, to) => {
                let connections = match server.protocol {
                    Protocol::Tcp => connections(&mut ipvs, server, to)?,
                    Protocol::Udp | Protocol::Sctp => 0,
                };
                if connections == 0 {
                    ipvs.delete(server, to)?;
                } else {
                    ipvs.drain(server, to)?;
                    draining.insert((*server, *to));
                }
            }
        }
    }
    Ok(draining)
}

fn connections(ipvs: &mut Ipvs, server: &Server, to: &SocketAddr) -> Result<u32, NetlinkError> {
    Ok(ipvs.destinations(server)?.iter().filter(|d| d.address == *to).map(|d| d.connections).sum())
}

/// Deletes endpoints whose connections have ended. Gives those that still have some.
fn drain(draining: &BTreeSet<(Server, SocketAddr)>) -> Result<BTreeSet<(Server, SocketAddr)>, NetlinkError> {
    let mut ipvs = Ipvs::open()?;
    let mut left = BTreeSet::new();
    for (server, to) in draining {
        if connections(&mut ipvs, server, to)? == 0 {
            ipvs.delete(server, to)?;
        } else {
            left.insert((*server, *to));
        }
    }
    Ok(left)
}

impl Servers {
    fn place(&self) -> Place {
        let local: BTreeSet<IpAddr> = local_addresses(IPVS_INTERFACE);
        let link_local = |ip: &IpAddr| matches!(ip, IpAddr::V6(a) if a.segments()[0] & 0xffc0 == 0xfe80);
        let node_ports = self.node_ports.addresses(&local);
        let node_ports = node_ports.into_iter().filter(|ip| !ip.is_loopback() && !link_local(ip)).collect();
        Place { local, node_ports, node_ip: self.node_ip }
    }

    /// Interface, sets, chains and rules.
    async fn prepare(&self) -> Result<(), BackendError> {
        let family = self.style.family;
        blocking("make the dummy interface", kernel::make_interface).await?;
        sets::create(family).await?;
        install::install(family, &frame::TABLES, &frame::jumps()).await?;
        program::restore(family, frame::render(&self.style).into_iter()).await
    }
}

#[async_trait]
impl Backend for Servers {
    async fn sync(&mut self, work: &Work<'_>) -> Result<Applied, BackendError> {
        let family = self.style.family;
        let wanted = plan(work.model, &self.place());
        let began = Instant::now();
        let scheduler = self.settings.scheduler.clone();
        let mut before = self.before.clone();
        if work.full {
            self.prepare().await?;
            let (excluded, scheduler) = (self.settings.excluded.clone(), scheduler.clone());
            let there =
                blocking("read virtual servers", move || present(&mut Ipvs::open()?, family, &excluded, &scheduler));
            before = there.await?;
            before.sets = sets::present(family).await?;
        }
        sets::apply(&before.sets, &wanted.sets, family).await?;
        let (steps, draining) = (steps(&before, &wanted), self.draining.clone());
        if !steps.is_empty() {
            let work = move || take(&steps, &scheduler, &draining);
            self.draining = blocking("write virtual servers", work).await?;
        }
        if self.drained.elapsed() >= DRAIN_PERIOD && !self.draining.is_empty() {
            let draining = self.draining.clone();
            self.draining = blocking("delete endpoints that went", move || drain(&draining)).await?;
            self.drained = Instant::now();
        }
        self.before = wanted;
        Ok(Applied { outside: began.elapsed() })
    }

    fn full_period(&self) -> Duration {
        self.sync_period
    }

    fn unfinished(&self) -> Option<Duration> {
        (!self.draining.is_empty()).then_some(DRAIN_PERIOD)
    }
}

/// Chains and jumps of this mode, which go together with those of the other one: they point to the same chains.
pub(crate) fn leftovers() -> install::Leftovers {
    install::Leftovers { tables: frame::TABLES.to_vec(), jumps: frame::jumps() }
}

/// Removes everything else that this mode made. Virtual servers go only if there is the dummy interface of this mode.
pub(crate) async fn cleanup() -> Result<(), BackendError> {
    for family in Family::ALL {
        sets::destroy(family).await?;
    }
    let there = nix::net::if_::if_nametoindex(IPVS_INTERFACE).is_ok();
    if !there {
        return Ok(());
    }
    blocking("remove virtual servers", || {
        if let Ok(mut ipvs) = Ipvs::open() {
            for present in ipvs.servers()? {
                ipvs.remove(&present.server)?;
            }
        }
        kernel::delete_interface()
    })
    .await
}

#[cfg(test)]
mod tests;
