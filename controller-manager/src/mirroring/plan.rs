//! Slices of hand-made Endpoints: pure.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::api::{
    core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service},
    discovery::v1::{Endpoint, EndpointConditions, EndpointPort},
};

use crate::{
    endpoints::plan::LEADER,
    slices::{Group, MANAGED_BY, SERVICE_NAME, TRIGGER_TIME},
};

/// Value of the managed-by label.
pub(super) const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const NOT_COPIED: &[&str] = &["kubectl.kubernetes.io/last-applied-configuration", TRIGGER_TIME];

/// Whether Endpoints are to be mirrored.
pub(super) fn applies(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    let labels = endpoints.metadata.labels.as_ref();
    let skipped = labels.and_then(|l| l.get(SKIP)).map(String::as_str) == Some("true");
    let lock = endpoints.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER));
    let by_hand =
        service.is_some_and(|s| s.spec.as_ref().and_then(|s| s.selector.as_ref()).is_none_or(BTreeMap::is_empty));
    !skipped && !lock && by_hand && endpoints.metadata.deletion_timestamp.is_none()
}

pub(super) fn labels(endpoints: &Endpoints) -> BTreeMap<String, String> {
    let mut labels = endpoints.metadata.labels.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), endpoints.metadata.name.clone().unwrap_or_default());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    labels
}

pub(super) fn annotations(endpoints: &Endpoints) -> BTreeMap<String, String> {
    let all = endpoints.metadata.annotations.iter().flatten();
    all.filter(|(k, _)| !NOT_COPIED.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// When the change happened, as the Endpoints say.
pub(super) fn trigger(endpoints: &Endpoints) -> Option<String> {
    endpoints.metadata.annotations.as_ref()?.get(TRIGGER_TIME).cloned()
}

/// What was left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LeftOut {
    /// Addresses that are none.
    pub(super) invalid: usize,
    /// Addresses beyond what is mirrored of a subset.
    pub(super) surplus: usize,
}

/// Endpoints by address type and ports.
pub(super) fn groups(endpoints: &Endpoints, most: usize) -> (Vec<Group>, LeftOut) {
    let mut groups: BTreeMap<(&str, String), Group> = BTreeMap::new();
    let mut left_out = LeftOut::default();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = ports(subset);
        let key = serde_json::to_string(&ports).unwrap_or_default();
        let ready = subset.addresses.iter().flatten().map(|a| (a, true));
        let other = subset.not_ready_addresses.iter().flatten().map(|a| (a, false));
        let mut mirrored = 0;
        for (address, ready) in ready.chain(other) {
            if mirrored >= most {
                left_out.surplus += 1;
                continue;
            }
            let address_type = match address.ip.parse::<IpAddr>() {
                Ok(IpAddr::V4(_)) => "IPv4",
                Ok(IpAddr::V6(_)) => "IPv6",
                Err(_) => {
                    left_out.invalid += 1;
                    continue;
                }
            };
            mirrored += 1;
            let group = groups.entry((address_type, key.clone())).or_insert_with(|| Group {
                address_type: address_type.to_owned(),
                ports: ports.clone(),
                endpoints: Vec::new(),
            });
            let endpoint = endpoint(address, ready);
            if !group.endpoints.contains(&endpoint) {
                group.endpoints.push(endpoint);
            }
        }
    }
    (groups.into_values().collect(), left_out)
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    let ports = subset.ports.iter().flatten().map(|p| EndpointPort {
        name: Some(p.name.clone().unwrap_or_default()),
        port: Some(p.port),
        protocol: Some(p.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: p.app_protocol.clone(),
    });
    ports.collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|h| !h.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn endpoints(meta: Value, subsets: Value) -> Endpoints {
        serde_json::from_value(json!({"metadata": meta, "subsets": subsets})).unwrap()
    }

    #[test]
    fn what_is_mirrored() {
        let service =
            |selector: Value| -> Service { serde_json::from_value(json!({"spec": {"selector": selector}})).unwrap() };
        let plain = endpoints(json!({"name": "s"}), json!([]));
        assert!(applies(&plain, Some(&service(json!({})))));
        assert!(!applies(&plain, Some(&service(json!({"a": "b"})))));
        assert!(!applies(&plain, None));
        for meta in [json!({"labels": {SKIP: "true"}}), json!({"annotations": {LEADER: "x"}})] {
            assert!(!applies(&endpoints(meta, json!([])), Some(&service(json!({})))));
        }
    }

    #[test]
    fn addresses_by_type() {
        let object = endpoints(
            json!({"name": "s", "annotations": {"a": "b", TRIGGER_TIME: "t"}}),
            json!([{
            "addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}, {"ip": "nonsense"}],
            "notReadyAddresses": [{"ip": "10.0.0.2"}, {"ip": "10.0.0.3"}], "ports": [{"port": 80}]}]),
        );
        let (groups, left_out) = groups(&object, 3);
        let found: Vec<_> = groups.iter().map(|g| (g.address_type.as_str(), g.endpoints.len())).collect();
        assert_eq!((found, left_out), (vec![("IPv4", 2), ("IPv6", 1)], LeftOut { invalid: 1, surplus: 1 }));
        let ready = |at: usize| groups[0].endpoints[at].conditions.as_ref().and_then(|c| c.ready);
        assert_eq!((ready(0), ready(1)), (Some(true), Some(false)));
        assert_eq!(annotations(&object).len(), 1);
    }
}
