//! Writes into Ingresses where they are served: done by the one of all controllers that leads.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use client::{CallError, Scope, merge_patch};
use controller::{EventRecorder, LeaderConfig, LeaderElector, ObjectKey};
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    networking::v1::Ingress,
};
use kube::{Api, Client, api::ListParams};
use runtime::{CancellationToken, Runtime, clock::Clock};
use serde_json::{Value, json};

use crate::{backends::Sources, objects::Address, options::Options, run::IngressError, sync::Ours};

/// Labels that differ between Pods of one controller.
const OF_ONE_POD: [&str; 5] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "apps.kubernetes.io/pod-index",
    "statefulset.kubernetes.io/pod-name",
];
/// Changes that come together are written together.
const GATHER: Duration = Duration::from_secs(1);
/// Time for the last write.
const LAST_CALL: Duration = Duration::from_secs(5);

/// Writes statuses.
pub(crate) struct StatusWriter {
    pub(crate) client: Client,
    pub(crate) options: Options,
    pub(crate) ours: Arc<Ours>,
    pub(crate) sources: Sources,
    pub(crate) clock: Arc<dyn Clock>,
    /// This Pod, if it is one.
    pub(crate) pod: Option<ObjectKey>,
}

impl StatusWriter {
    /// Becomes a candidate; whenever it leads, it writes.
    pub(crate) fn start(self, runtime: &Runtime, recorder: EventRecorder) -> Result<(), IngressError> {
        let identity = match &self.pod {
            Some(pod) => pod.name.clone(),
            None => runtime::env::identity().map_err(IngressError::Name)?,
        };
        let namespace = self.pod.as_ref().map_or("default", |pod| &pod.namespace);
        let config = LeaderConfig {
            namespace: namespace.to_owned(),
            name: self.options.election_id.clone(),
            identity,
            lease: Duration::from_secs(30),
            renew: Duration::from_secs(15),
            retry: Duration::from_millis(7500),
            release: true,
        };
        let clock = Arc::clone(&runtime.clock);
        let elector = LeaderElector::new(self.client.clone(), config, clock, recorder, Some(&runtime.registry))?;
        let stop = runtime.shutdown.clone();
        let writer = Arc::new(self);
        runtime.tasks.spawn("status", async move {
            while !stop.is_cancelled() {
                let leader = Arc::clone(&writer);
                if let Err(error) = elector.run(&stop, |leading| async move { leader.lead(leading).await }).await {
                    tracing::warn!(%error, "Another controller writes statuses");
                }
            }
        });
        Ok(())
    }

    async fn lead(&self, leading: CancellationToken) {
        let interval = Duration::from_secs(self.options.status_update_interval.max(1));
        loop {
            match self.addresses().await {
                Ok(addresses) if addresses.is_empty() => tracing::debug!("No address is known for Ingresses"),
                Ok(addresses) => self.write(&addresses).await,
                Err(error) => tracing::warn!(%error, "The addresses of this controller cannot be found"),
            }
            tokio::select! {
                () = leading.cancelled() => break,
                () = self.clock.sleep(interval) => {}
                () = self.ours.changed.notified() => self.clock.sleep(GATHER).await,
            }
        }
        if self.options.update_status_on_shutdown && tokio::time::timeout(LAST_CALL, self.clear()).await.is_err() {
            tracing::warn!("The status of Ingresses could not be cleared in time");
        }
    }

    /// Nobody is left to serve: no address is true any more.
    async fn clear(&self) {
        let others = match self.pods().await {
            Ok(pods) => pods.iter().any(|pod| pod.metadata.name.as_ref() != self.pod.as_ref().map(|own| &own.name)),
            Err(_) => true,
        };
        if !others {
            self.write(&BTreeSet::new()).await;
        }
    }

    async fn write(&self, addresses: &BTreeSet<Address>) {
        for ingress in self.ours.all.load().iter() {
            let balancer = ingress.view.0.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let entries = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
            let current = entries.iter().filter_map(|entry| entry.ip.as_deref().or(entry.hostname.as_deref()));
            if current.map(Address::of).eq(addresses.iter().cloned()) {
                continue;
            }
            let api = Api::<Ingress>::namespaced(self.client.clone(), &ingress.key.namespace);
            let status = json!({"status": {"loadBalancer": {"ingress": entries_of(addresses)}}});
            if let Err(error) = merge_patch(&api, &ingress.key.name, Scope::Status, &status).await {
                tracing::warn!(ingress = %ingress.key, %error, "The status of an Ingress cannot be written");
            }
        }
    }

    async fn addresses(&self) -> Result<BTreeSet<Address>, CallError> {
        if !self.options.publish_status_address.is_empty() {
            let given = self.options.publish_status_address.iter().map(|address| address.trim());
            return Ok(given.filter(|address| !address.is_empty()).map(Address::of).collect());
        }
        if let Some(service) = &self.options.publish_service.0 {
            let service = self.sources.services.get(service);
            return Ok(service.map(|service| service.addresses.iter().cloned().collect()).unwrap_or_default());
        }
        let mut addresses = BTreeSet::new();
        for pod in self.pods().await? {
            let Some(name) = pod.spec.and_then(|spec| spec.node_name) else { continue };
            let node = Api::<Node>::all(self.client.clone()).get(&name).await;
            let node = node.map_err(|error| CallError::new(format!("get node {name}"), error))?;
            addresses.extend(address_of(&node, self.options.report_node_internal_ip_address));
        }
        Ok(addresses)
    }

    /// The ready Pods of this controller.
    async fn pods(&self) -> Result<Vec<Pod>, CallError> {
        let Some(own) = &self.pod else { return Ok(Vec::new()) };
        let api = Api::<Pod>::namespaced(self.client.clone(), &own.namespace);
        let pod = api.get(&own.name).await.map_err(|error| CallError::new(format!("get pod {own}"), error))?;
        let labels = pod.metadata.labels.unwrap_or_default();
        let of_all = labels.iter().filter(|(key, _)| !OF_ONE_POD.contains(&key.as_str()));
        let selector: Vec<String> = of_all.map(|(key, value)| format!("{key}={value}")).collect();
        let listed = api.list(&ListParams::default().labels(&selector.join(","))).await;
        let listed = listed.map_err(|error| CallError::new("list pods", error))?;
        Ok(listed.items.into_iter().filter(is_ready).collect())
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Where a Node is reached: from outside if it has such an address and that is wanted.
fn address_of(node: &Node, internal: bool) -> Option<Address> {
    let addresses = node.status.as_ref()?.addresses.as_deref()?;
    let of = |kind: &str| addresses.iter().find(|address| address.type_ == kind && !address.address.is_empty());
    let outer = of("ExternalIP").filter(|_| !internal);
    outer.or_else(|| of("InternalIP")).map(|address| Address::of(&address.address))
}

fn entries_of(addresses: &BTreeSet<Address>) -> Vec<Value> {
    let entry = |address: &Address| match address {
        Address::Ip(ip) => json!({ "ip": ip.to_string() }),
        Address::Name(name) => json!({ "hostname": name }),
    };
    addresses.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_nodes() {
        let node = |addresses: Value| -> Node {
            serde_json::from_value(json!({"status": {"addresses": addresses}})).expect("valid")
        };
        let both =
            node(json!([{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "ExternalIP", "address": "1.2.3.4"}]));
        assert_eq!(address_of(&both, false), Some(Address::of("1.2.3.4")));
        assert_eq!(address_of(&both, true), Some(Address::of("10.0.0.1")));
        let inner = node(json!([{"type": "Hostname", "address": "x"}, {"type": "InternalIP", "address": "10.0.0.1"}]));
        assert_eq!(address_of(&inner, false), Some(Address::of("10.0.0.1")));
        assert_eq!(address_of(&node(json!([])), false), None);
    }

    #[test]
    fn entries() {
        let all = BTreeSet::from([Address::of("lb.example"), Address::of("10.0.0.1")]);
        assert_eq!(json!(entries_of(&all)), json!([{"ip": "10.0.0.1"}, {"hostname": "lb.example"}]));
    }
}
