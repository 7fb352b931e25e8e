//! Services: cluster IPs (through IPAddress objects) and node ports (through one bitmap), allocated at writes.

mod addresses;
mod events;
mod families;
mod pools;
mod ports;
mod repair;

use std::sync::Arc;

use async_trait::async_trait;
use generic::endpoint::{Hooks, Outcome, Reservation};
use machinery::{
    ApiResult, GroupVersionKind,
    field::{ErrorList, Path},
    meta,
};
use serde_json::{Map, Value, json};

use addresses::held_addresses;
pub use addresses::{Addresses, first_address};
pub use events::Events;
use families::{is_external, strings};
pub use ports::NodePorts;
pub use repair::Repair;

/// Allocates what Services need.
pub struct ServiceHooks {
    /// Cluster IPs.
    pub addresses: Arc<Addresses>,
    /// Node ports.
    pub ports: Arc<NodePorts>,
}

fn text<'a>(object: &'a Value, path: &str) -> &'a str {
    object.pointer(path).and_then(Value::as_str).unwrap_or("")
}

fn spec(object: &mut Value) -> &mut Map<String, Value> {
    meta::object_mut(meta::object_mut(object).entry("spec").or_insert_with(|| json!({})))
}

fn needs_node_ports(service: &Value) -> bool {
    match text(service, "/spec/type") {
        "NodePort" => true,
        "LoadBalancer" => {
            service.pointer("/spec/allocateLoadBalancerNodePorts").and_then(Value::as_bool).unwrap_or(true)
        }
        _ => false,
    }
}

/// Whether traffic from outside the cluster comes to the Service.
fn is_reachable(service: &Value) -> bool {
    match text(service, "/spec/type") {
        "NodePort" | "LoadBalancer" => true,
        "ClusterIP" => {
            service.pointer("/spec/externalIPs").and_then(Value::as_array).is_some_and(|list| !list.is_empty())
        }
        _ => false,
    }
}

/// The node ports an object holds.
fn held_ports(service: &Value) -> Vec<u16> {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
    let mut held: Vec<u16> = ports
        .filter_map(|p| p.get("nodePort").and_then(Value::as_u64))
        .chain(service.pointer("/spec/healthCheckNodePort").and_then(Value::as_u64))
        .filter_map(|p| u16::try_from(p).ok().filter(|p| *p > 0))
        .collect();
    held.sort_unstable();
    held.dedup();
    held
}

/// 422 at a field of a Service.
fn invalid(service: &Value, path: &Path, value: Value, detail: &str) -> machinery::ApiError {
    let mut errors = ErrorList::default();
    errors.invalid(path, &value, detail);
    refused(service, errors)
}

/// 422 for what is wrong with a Service.
fn refused(service: &Value, errors: ErrorList) -> machinery::ApiError {
    let kind = GroupVersionKind::new("", "v1", "Service").group_kind();
    machinery::ApiError::invalid(&kind, meta::name(service), errors.into_causes())
}

/// Takes over from the stored Service what the client left blank, and drops what a type change leaves behind.
fn carry_over(new: &mut Value, old: &Value) {
    let (was, is) = (text(old, "/spec/type").to_owned(), text(new, "/spec/type").to_owned());
    if !is_external(new) && !is_external(old) {
        if text(new, "/spec/clusterIP").is_empty() {
            take_over(new, old, &["clusterIP"]);
        }
        let same = text(new, "/spec/clusterIP") == text(old, "/spec/clusterIP");
        if same && strings(new, "clusterIPs").is_empty() {
            take_over(new, old, &["clusterIPs"]);
        }
        let blank: Vec<&str> = ["ipFamilies", "ipFamilyPolicy"]
            .into_iter()
            .filter(|field| new.pointer(&format!("/spec/{field}")).is_none_or(Value::is_null))
            .collect();
        take_over(new, old, &blank);
    }
    if is == "ExternalName" && was != is {
        drop_unchanged(new, old, &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]);
    }
    if needs_node_ports(new) && needs_node_ports(old) {
        keep_node_ports(new, old);
    } else if !needs_node_ports(new) && needs_node_ports(old) {
        drop_node_ports(new, old);
        drop_unchanged(new, old, &["healthCheckNodePort"]);
    }
    if was == "LoadBalancer" && is != was {
        drop_unchanged(new, old, &["allocateLoadBalancerNodePorts", "loadBalancerClass"]);
        if let Some(status) = new.get_mut("status").and_then(Value::as_object_mut) {
            status.insert("loadBalancer".into(), json!({}));
        }
    }
    if is_reachable(old) && !is_reachable(new) {
        drop_unchanged(new, old, &["externalTrafficPolicy"]);
    }
}

fn take_over(new: &mut Value, old: &Value, fields: &[&str]) {
    for field in fields {
        if let Some(value) = old.pointer(&format!("/spec/{field}")) {
            spec(new).insert((*field).to_owned(), value.clone());
        }
    }
}

fn drop_unchanged(new: &mut Value, old: &Value, fields: &[&str]) {
    for field in fields {
        let path = format!("/spec/{field}");
        if new.pointer(&path) == old.pointer(&path) {
            spec(new).remove(*field);
        }
    }
}

fn ports_mut(service: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    let list = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

fn node_port_of(service: &Value, name: Option<&Value>) -> Option<Value> {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array)?;
    ports.iter().find(|p| p.get("name") == name).and_then(|p| p.get("nodePort")).cloned()
}

fn keep_node_ports(new: &mut Value, old: &Value) {
    for port in ports_mut(new) {
        let blank = port.get("nodePort").and_then(Value::as_u64).unwrap_or(0) == 0;
        if let (true, Some(stored)) = (blank, node_port_of(old, port.get("name"))) {
            port.insert("nodePort".into(), stored);
        }
    }
}

fn drop_node_ports(new: &mut Value, old: &Value) {
    for port in ports_mut(new) {
        if port.get("nodePort").cloned() == node_port_of(old, port.get("name")) {
            port.remove("nodePort");
        }
    }
}

#[async_trait]
impl Hooks for ServiceHooks {
    async fn begin(&self, object: &mut Value, old: Option<&Value>, dry_run: bool) -> ApiResult<Reservation> {
        if let Some(old) = old {
            carry_over(object, old);
        }
        let kept_addresses = old.map(held_addresses).unwrap_or_default();
        let kept_ports = old.map(held_ports).unwrap_or_default();
        let new_addresses = self.addresses.assign(object, old, dry_run).await?;
        let new_ports = match self.ports.assign(object, &kept_ports, dry_run).await {
            Ok(ports) => ports,
            Err(error) => {
                self.addresses.release(&new_addresses).await;
                return Err(error);
            }
        };
        let (now_addresses, now_ports) = (held_addresses(object), held_ports(object));
        let stale_addresses: Vec<String> = kept_addresses.into_iter().filter(|a| !now_addresses.contains(a)).collect();
        let stale_ports: Vec<u16> = kept_ports.into_iter().filter(|p| !now_ports.contains(p)).collect();
        let (addresses, ports) = (Arc::clone(&self.addresses), Arc::clone(&self.ports));
        Ok(Reservation::new(move |outcome| {
            let (drop_addresses, drop_ports) = match outcome {
                Outcome::Committed => (stale_addresses, stale_ports),
                Outcome::Abandoned => (new_addresses, new_ports),
            };
            if !dry_run && (!drop_addresses.is_empty() || !drop_ports.is_empty()) {
                tokio::spawn(async move {
                    addresses.release(&drop_addresses).await;
                    ports.release(&drop_ports).await;
                });
            }
        }))
    }

    async fn deleted(&self, object: &Value) {
        self.addresses.release(&held_addresses(object)).await;
        self.ports.release(&held_ports(object)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_are_taken_over_and_type_changes_clean_up() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "externalTrafficPolicy": "Cluster", "ports": [{"name": "a", "port": 80, "nodePort": 30001}]}});
        let mut new = json!({"spec": {"type": "NodePort", "ports": [{"name": "a", "port": 81}]}});
        carry_over(&mut new, &old);
        assert_eq!(new["spec"]["clusterIP"], "10.0.0.1");
        assert_eq!(new["spec"]["ports"][0]["nodePort"], 30001);
        let mut new = old.clone();
        new["spec"]["type"] = json!("ClusterIP");
        carry_over(&mut new, &old);
        assert!(new["spec"]["ports"][0].get("nodePort").is_none());
        assert!(new["spec"].get("externalTrafficPolicy").is_none());
        let mut new = old.clone();
        new["spec"]["type"] = json!("ExternalName");
        carry_over(&mut new, &old);
        assert!(new["spec"].get("clusterIP").is_none());
        let mut old = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"],
            "externalIPs": ["10.1.0.1"], "externalTrafficPolicy": "Cluster"}});
        let mut new = old.clone();
        new["spec"]["externalIPs"] = json!([]);
        carry_over(&mut new, &old);
        assert!(new["spec"].get("externalTrafficPolicy").is_none());
        old["spec"]["type"] = json!("NodePort");
        let mut new = old.clone();
        new["spec"]["type"] = json!("ExternalName");
        carry_over(&mut new, &old);
        assert!(new["spec"].get("externalTrafficPolicy").is_none());
    }
}
