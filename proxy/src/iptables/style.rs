//! What is the same in all rules of one family, and how this machine's iptables wants it.

use std::net::IpAddr;

use super::{Accounts, program};
use crate::{
    backend::BackendError,
    config::settings::{Detector, Settings},
    family::Family,
    node::NodePorts,
};

/// How rules are written.
#[derive(Clone, Debug)]
pub(crate) struct Style {
    pub(crate) family: Family,
    /// Mark of packets that are to be masqueraded.
    pub(crate) mark: u32,
    pub(crate) masquerade_all: bool,
    pub(crate) detector: Detector,
    pub(crate) node_ports: NodePorts,
    pub(crate) localhost_node_ports: bool,
    pub(crate) node_ip: IpAddr,
    /// Whether packets of no connection pass.
    pub(crate) liberal: bool,
    pub(crate) features: program::Features,
    /// Counters that rules add to.
    pub(crate) accounts: Accounts,
}

impl Style {
    pub(crate) async fn of(
        settings: &Settings,
        detector: Detector,
        node_ports: NodePorts,
        node_ip: IpAddr,
        family: Family,
    ) -> Result<Self, BackendError> {
        let features = program::features(family).await?;
        let liberal = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal");
        let localhost = settings.localhost_node_ports && family == Family::V4 && node_ports.has_loopback();
        Ok(Self {
            family,
            mark: settings.mark,
            masquerade_all: settings.masquerade_all,
            detector,
            localhost_node_ports: localhost,
            node_ports,
            node_ip,
            liberal: liberal.is_ok_and(|text| text.trim() != "0"),
            features,
            accounts: Accounts::default(),
        })
    }

    /// The mark as iptables takes it.
    pub(crate) fn mark(&self) -> String {
        format!("{:#010x}", self.mark)
    }
}
