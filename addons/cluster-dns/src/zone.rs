//! The zone of the cluster: from a question to records, by the DNS schema of Kubernetes, version 1.1.0.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use controller::{Cached, ObjectKey};
use hickory_proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT},
};

use crate::{
    name::{below, dashed, from_dashed, parse, reversed, within},
    store::{Endpoint, Port, ServiceView, SliceView, Store, Target},
};

/// Version of the schema.
const SCHEMA: &str = "1.1.0";
/// Weights of SRV records of one name add up to this.
const WEIGHT: usize = 100;

/// How names of Pods are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodRecords {
    /// Not at all.
    Disabled,
    /// With the address in the name.
    Insecure,
    /// With the address in the name if a Pod of the namespace has it.
    Verified,
}

/// Settings of the zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneSettings {
    /// The cluster's domain.
    pub origin: Name,
    /// Whether addresses of the cluster are answered in the reverse zones.
    pub reverse: bool,
    /// Names of Pods.
    pub pods: PodRecords,
    /// Time to live of all records.
    pub ttl: u32,
    /// Endpoints without a hostname are named by their Pod instead of their address.
    pub endpoint_pod_names: bool,
}

/// What a question finds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    /// Records, and records that help.
    Records(Vec<Record>, Vec<Record>),
    /// The name stands for another name.
    Alias(Box<Record>, Name),
    /// The name exists, not with this type.
    NoData,
    /// The name does not exist.
    NoName,
    /// The name is not in the zone.
    Foreign,
}

/// The zone over the store.
pub(crate) struct Zone<'a> {
    settings: &'a ZoneSettings,
    store: &'a Store,
}

/// An endpoint and its name.
struct Named<'s> {
    label: String,
    endpoint: &'s Endpoint,
}

impl<'a> Zone<'a> {
    pub(crate) fn new(settings: &'a ZoneSettings, store: &'a Store) -> Self {
        Self { settings, store }
    }

    /// The SOA record for answers without records.
    pub(crate) fn soa(&self, serial: u32) -> Option<Record> {
        let origin = &self.settings.origin;
        let (server, contact) = (within(origin, &["ns", "dns"])?, within(origin, &["hostmaster"])?);
        let soa = SOA::new(server, contact, serial, 7200, 1800, 86400, self.settings.ttl);
        Some(self.record(origin.clone(), RData::SOA(soa)))
    }

    /// Finds what a question asks for. Records bear the name as it was asked.
    pub(crate) fn find(&self, name: &Name, kind: RecordType, serial: u32) -> Found {
        if let Some(labels) = below(&self.settings.origin, name) {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            return self.inside(name, &labels, kind, serial);
        }
        match reversed(name) {
            Some(address) if self.settings.reverse && kind == RecordType::PTR => self.reverse(name, address),
            _ => Found::Foreign,
        }
    }

    fn record(&self, name: Name, data: RData) -> Record {
        Record::from_rdata(name, self.settings.ttl, data)
    }

    fn inside(&self, name: &Name, labels: &[&str], kind: RecordType, serial: u32) -> Found {
        let exists = |yes: bool| if yes { Found::NoData } else { Found::NoName };
        match labels {
            [] => self.apex(name, kind, serial),
            ["dns-version"] if kind == RecordType::TXT => {
                let text = RData::TXT(TXT::new(vec![SCHEMA.into()]));
                Found::Records(vec![self.record(name.clone(), text)], Vec::new())
            }
            ["dns-version" | "svc" | "pod" | "dns"] => Found::NoData,
            ["ns", "dns"] => self.addresses(name, self.servers(), kind),
            [namespace, "svc"] => exists(self.store.has_namespace(namespace)),
            [namespace, "pod"] => exists(self.store.has_namespace(namespace)),
            [service, namespace, "svc"] => self.service(name, namespace, service, kind),
            [protocol, service, namespace, "svc"] if protocol.starts_with('_') => {
                let found = self.get(namespace, service);
                exists(found.is_some_and(|s| s.ports.iter().any(|p| format!("_{}", p.protocol) == **protocol)))
            }
            [host, service, namespace, "svc"] => self.endpoint(name, namespace, service, host, kind),
            [port, protocol, service, namespace, "svc"] => match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                (Some(port), Some(protocol)) => self.port(name, namespace, service, kind, |p| {
                    p.name.eq_ignore_ascii_case(port) && p.protocol == protocol
                }),
                _ => Found::NoName,
            },
            [address, namespace, "pod"] => self.pod(name, namespace, address, kind),
            _ => Found::NoName,
        }
    }

    fn apex(&self, name: &Name, kind: RecordType, serial: u32) -> Found {
        let data = match kind {
            RecordType::SOA => return self.soa(serial).map_or(Found::NoData, |r| Found::Records(vec![r], Vec::new())),
            RecordType::NS => within(&self.settings.origin, &["ns", "dns"]).map(|n| RData::NS(NS(n))),
            _ => None,
        };
        data.map_or(Found::NoData, |d| Found::Records(vec![self.record(name.clone(), d)], Vec::new()))
    }

    /// Addresses of this server as clients know it.
    fn servers(&self) -> Vec<IpAddr> {
        match self.get("kube-system", "kube-dns").map(|s| s.target.clone()) {
            Some(Target::Cluster(addresses)) => addresses,
            _ => Vec::new(),
        }
    }

    fn get(&self, namespace: &str, service: &str) -> Option<Arc<Cached<ServiceView>>> {
        self.store.services.get(&ObjectKey::new(namespace, service))
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<Cached<SliceView>>> {
        self.store.slices.by_index("service", &format!("{namespace}/{service}"))
    }

    fn address_records(&self, name: &Name, addresses: &[IpAddr], kind: RecordType) -> Vec<Record> {
        let mut seen = BTreeSet::new();
        let wanted = addresses.iter().filter(|a| seen.insert(**a)).filter_map(|a| match (a, kind) {
            (IpAddr::V4(a), RecordType::A | RecordType::ANY) => Some(RData::A(A(*a))),
            (IpAddr::V6(a), RecordType::AAAA | RecordType::ANY) => Some(RData::AAAA(AAAA(*a))),
            _ => None,
        });
        wanted.map(|d| self.record(name.clone(), d)).collect()
    }

    fn addresses(&self, name: &Name, addresses: Vec<IpAddr>, kind: RecordType) -> Found {
        let records = self.address_records(name, &addresses, kind);
        if records.is_empty() { Found::NoData } else { Found::Records(records, Vec::new()) }
    }

    fn service(&self, name: &Name, namespace: &str, service: &str, kind: RecordType) -> Found {
        let Some(found) = self.get(namespace, service) else { return Found::NoName };
        match &found.target {
            Target::External(_) => self.external(name, &found),
            _ if kind == RecordType::SRV => self.port(name, namespace, service, kind, |_| true),
            Target::Cluster(addresses) => self.addresses(name, addresses.clone(), kind),
            Target::Endpoints => {
                let slices = self.slices(namespace, service);
                let all: Vec<IpAddr> =
                    slices.iter().flat_map(|s| &s.endpoints).flat_map(|e| e.addresses.iter().copied()).collect();
                if all.is_empty() { Found::NoName } else { self.addresses(name, all, kind) }
            }
        }
    }

    fn external(&self, name: &Name, service: &ServiceView) -> Found {
        let Target::External(target) = &service.target else { return Found::NoName };
        match parse(target).filter(|t| !t.is_root()) {
            Some(target) => {
                let record = self.record(name.clone(), RData::CNAME(CNAME(target.clone())));
                Found::Alias(Box::new(record), target)
            }
            None => Found::NoData,
        }
    }

    /// Endpoints with their labels.
    fn named<'s>(&self, slice: &'s SliceView) -> impl Iterator<Item = Named<'s>> + use<'s> {
        let by_pod = self.settings.endpoint_pod_names;
        slice.endpoints.iter().filter_map(move |endpoint| {
            let pod = endpoint.pod.as_ref().filter(|_| by_pod).cloned();
            let label = match endpoint.hostname.clone().or(pod) {
                Some(label) => label,
                None => dashed(*endpoint.addresses.first()?),
            };
            Some(Named { label, endpoint })
        })
    }

    fn endpoint(&self, name: &Name, namespace: &str, service: &str, host: &str, kind: RecordType) -> Found {
        let Some(found) = self.get(namespace, service) else { return Found::NoName };
        if matches!(found.target, Target::External(_)) {
            return Found::NoName;
        }
        let slices = self.slices(namespace, service);
        let mut addresses = Vec::new();
        for slice in &slices {
            let wanted = self.named(slice).filter(|n| n.label.eq_ignore_ascii_case(host));
            addresses.extend(wanted.flat_map(|n| n.endpoint.addresses.iter().copied()));
        }
        if addresses.is_empty() { Found::NoName } else { self.addresses(name, addresses, kind) }
    }

    /// SRV records of the ports that `wanted` selects.
    fn port(
        &self,
        name: &Name,
        namespace: &str,
        service: &str,
        kind: RecordType,
        wanted: impl Fn(&Port) -> bool,
    ) -> Found {
        let Some(found) = self.get(namespace, service) else { return Found::NoName };
        let mut targets: Vec<(String, u16, Vec<IpAddr>)> = Vec::new();
        match &found.target {
            Target::External(_) => return self.external(name, &found),
            Target::Cluster(addresses) => {
                let ports = found.ports.iter().filter(|p| wanted(p));
                targets.extend(ports.map(|p| (String::new(), p.number, addresses.clone())));
            }
            Target::Endpoints => {
                for slice in self.slices(namespace, service) {
                    for port in slice.ports.iter().filter(|p| wanted(p)) {
                        let named = self.named(&slice);
                        targets.extend(named.map(|n| (n.label, port.number, n.endpoint.addresses.clone())));
                    }
                }
            }
        }
        if targets.is_empty() {
            return if kind == RecordType::SRV && self.is_bare(name) { Found::NoData } else { Found::NoName };
        }
        if kind != RecordType::SRV && kind != RecordType::ANY {
            let all = targets.into_iter().flat_map(|(_, _, a)| a).collect();
            return self.addresses(name, all, kind);
        }
        self.srv(name, &[service, namespace, "svc"], &targets)
    }

    /// Whether the name is that of a Service, without a port.
    fn is_bare(&self, name: &Name) -> bool {
        below(&self.settings.origin, name).is_some_and(|l| l.len() == 3)
    }

    fn srv(&self, name: &Name, service: &[&str], targets: &[(String, u16, Vec<IpAddr>)]) -> Found {
        let distinct: BTreeSet<&str> = targets.iter().map(|(label, ..)| label.as_str()).collect();
        let weight = u16::try_from((WEIGHT / distinct.len().max(1)).max(1)).unwrap_or(1);
        let (mut records, mut more, mut helped) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (label, port, addresses) in targets {
            let labels: Vec<&str> =
                Some(label.as_str()).filter(|l| !l.is_empty()).into_iter().chain(service.iter().copied()).collect();
            let Some(target) = within(&self.settings.origin, &labels) else { continue };
            let record = self.record(name.clone(), RData::SRV(SRV::new(0, weight, *port, target.clone())));
            if !records.contains(&record) {
                records.push(record);
            }
            for address in addresses {
                if helped.insert((label.as_str(), *address)) {
                    more.extend(self.address_records(&target, &[*address], RecordType::ANY));
                }
            }
        }
        Found::Records(records, more)
    }

    fn pod(&self, name: &Name, namespace: &str, label: &str, kind: RecordType) -> Found {
        let Some(address) = from_dashed(label) else { return Found::NoName };
        if !self.store.has_namespace(namespace) {
            return Found::NoName;
        }
        let known = match self.settings.pods {
            PodRecords::Disabled => false,
            PodRecords::Insecure => true,
            PodRecords::Verified => self.store.pods.as_ref().is_some_and(|pods| {
                pods.by_index("address", &address.to_string()).iter().any(|p| p.key.namespace == namespace)
            }),
        };
        if known { self.addresses(name, vec![address], kind) } else { Found::NoName }
    }

    fn reverse(&self, name: &Name, address: IpAddr) -> Found {
        let origin = &self.settings.origin;
        let text = address.to_string();
        let services = self.store.services.by_index("address", &text);
        let mut targets: Vec<Name> = services
            .iter()
            .filter_map(|s| within(origin, &[s.key.name.as_str(), s.key.namespace.as_str(), "svc"]))
            .collect();
        if targets.is_empty() {
            for slice in self.store.slices.by_index("address", &text) {
                if self.get(&slice.key.namespace, &slice.service).is_none() {
                    continue;
                }
                let hosts = self.named(&slice).filter(|n| n.endpoint.addresses.contains(&address));
                targets.extend(hosts.filter_map(|n| {
                    within(origin, &[n.label.as_str(), slice.service.as_str(), slice.key.namespace.as_str(), "svc"])
                }));
            }
        }
        targets.sort();
        targets.dedup();
        if targets.is_empty() {
            return Found::Foreign;
        }
        let records = targets.into_iter().map(|t| self.record(name.clone(), RData::PTR(PTR(t))));
        Found::Records(records.collect(), Vec::new())
    }
}

#[cfg(test)]
mod tests;
