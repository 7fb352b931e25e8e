//! Connection tracking: its limits, and the flows that lead to endpoints that are gone.

pub(crate) mod limits;
mod table;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

pub(crate) use table::{Flow, delete, list};

use crate::{
    backend::BackendError,
    family::Family,
    model::{Model, ServicePort},
    view::Protocol,
};

/// Where flows of UDP services may lead.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    addresses: HashMap<SocketAddr, HashSet<SocketAddr>>,
    node_ports: HashMap<u16, HashSet<SocketAddr>>,
}

impl Wanted {
    /// From all service ports. Those without serving endpoints are left alone.
    pub(crate) fn of(model: &Model) -> Self {
        let mut wanted = Self::default();
        for port in model.ports().filter(|p| p.protocol == Protocol::Udp && !p.serving.is_empty()) {
            wanted.add(port);
        }
        wanted
    }

    fn add(&mut self, port: &ServicePort) {
        let serving = || port.serving.iter().copied();
        let ips = std::iter::once(&port.cluster_ip).chain(&port.external_ips).chain(&port.balancer_ips);
        for ip in ips {
            self.addresses.entry(SocketAddr::new(*ip, port.port)).or_default().extend(serving());
        }
        if port.node_port != 0 {
            self.node_ports.entry(port.node_port).or_default().extend(serving());
        }
    }

    /// Whether a flow leads to what no longer serves.
    pub(crate) fn is_stale(&self, flow: &Flow) -> bool {
        let serving = self.addresses.get(&flow.destination).or_else(|| self.node_ports.get(&flow.destination.port()));
        serving.is_some_and(|serving| !serving.contains(&flow.answers_from))
    }
}

/// Deletes UDP flows to endpoints that no longer serve, else they would be sent there for ever. Gives their number.
pub(crate) async fn forget_stale(model: &Model, family: Family) -> Result<u64, BackendError> {
    let wanted = Wanted::of(model);
    if wanted.addresses.is_empty() {
        return Ok(0);
    }
    let work = move || {
        let stale = list(family, &|flow| wanted.is_stale(flow))?;
        delete(family, &stale)
    };
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| BackendError::Cancelled)?;
    done.map_err(|source| BackendError::Netlink { what: "clean up UDP flows", source })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::tests::ports;

    fn flow(destination: &str, answers_from: &str) -> Flow {
        Flow {
            destination: destination.parse().unwrap(),
            answers_from: answers_from.parse().unwrap(),
            identity: Vec::new(),
        }
    }

    #[test]
    fn flows_to_what_is_gone_are_stale() {
        let service = json!({"clusterIP": "10.0.0.9", "type": "NodePort", "externalIPs": ["1.2.3.4"],
            "ports": [{"name": "http", "port": 80, "protocol": "UDP", "nodePort": 30000}]});
        let mut ports = ports(&service, &json!([]), Family::V4);
        let mut model = Model::default();
        let key = controller::ObjectKey::new("n", "s");
        model.set(&key, ports.clone());
        assert!(!Wanted::of(&model).is_stale(&flow("10.0.0.9:80", "10.1.0.1:8080")), "no endpoints: left alone");
        ports[0].serving = [SocketAddr::from(([10, 1, 0, 1], 8080))].into();
        model.set(&key, ports);
        let wanted = Wanted::of(&model);
        for (destination, answers, stale) in [
            ("10.0.0.9:80", "10.1.0.1:8080", false),
            ("10.0.0.9:80", "10.1.0.2:8080", true),
            ("1.2.3.4:80", "1.2.3.4:80", true),
            ("192.168.0.1:30000", "10.1.0.2:8080", true),
            ("192.168.0.1:30000", "10.1.0.1:8080", false),
            ("8.8.8.8:53", "8.8.8.8:53", false),
        ] {
            assert_eq!(wanted.is_stale(&flow(destination, answers)), stale, "{destination} {answers}");
        }
    }
}
