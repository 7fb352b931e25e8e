//! Where kubelets are.

use std::{sync::Arc, time::Duration};

use generic::resource::{Resource, decode_cached};
use machinery::{ApiError, ApiResult};
use rustls::ClientConfig;
use serde_json::Value;
use storage::cache::Freshness;
use streaming::Connection;

use super::{
    dial::{self, DialError},
    egress::Dialer,
    throttled::Throttled,
};

/// Feature of nodes whose kubelet speaks the newest WebSocket protocol itself.
const WEBSOCKETS: &str = "ExtendWebSocketsToKubelet";

/// How this server reaches kubelets.
pub struct Kubelets {
    /// The Nodes.
    pub nodes: Arc<Resource>,
    /// Client certificate, and whom to trust (`--kubelet-certificate-authority`).
    pub tls: Arc<ClientConfig>,
    /// The same client certificate without checking the server's.
    pub unverified: Arc<ClientConfig>,
    /// How the nodes' network is reached.
    pub dialer: Dialer,
    /// Node address types, most preferred first.
    pub address_types: Vec<String>,
    /// Time to connect.
    pub timeout: Duration,
    /// Port of kubelets whose Node does not say.
    pub port: u16,
    /// Bytes a second that a stream to a Pod may carry in each direction; 0 for any number.
    pub stream_rate: u64,
}

/// A kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubelet {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether it takes `v5.channel.k8s.io`.
    pub speaks_websockets: bool,
}

impl Kubelet {
    /// `host:port`.
    pub fn authority(&self) -> String {
        dial::host_port(&self.host, self.port)
    }
}

impl Kubelets {
    /// The kubelet of a node.
    pub async fn of(&self, node: &str) -> ApiResult<Kubelet> {
        let cached = self.nodes.get("", node, Freshness::Any).await?;
        let object = decode_cached(&cached)?.object;
        locate(&object, &self.address_types, self.port).ok_or_else(|| {
            ApiError::internal(format!(
                "no preferred addresses found; known addresses: {}",
                object["status"]["addresses"]
            ))
        })
    }

    /// Connects to one; `verified` is false when the client takes any certificate.
    pub async fn connect(&self, kubelet: &Kubelet, verified: bool) -> Result<Connection, DialError> {
        let tls = if verified { &self.tls } else { &self.unverified };
        dial::connect_within(self.timeout, &self.dialer, &kubelet.host, kubelet.port, Some(tls)).await
    }

    /// Connects for a stream to a Pod, which may be limited.
    pub(crate) async fn stream(&self, kubelet: &Kubelet) -> Result<Connection, DialError> {
        let connection = self.connect(kubelet, true).await?;
        Ok(match self.stream_rate {
            0 => connection,
            rate => Box::new(Throttled::new(connection, rate)),
        })
    }
}

fn locate(node: &Value, types: &[String], default: u16) -> Option<Kubelet> {
    let addresses = node.pointer("/status/addresses").and_then(Value::as_array)?;
    let of_type = |wanted: &String| addresses.iter().find(|a| a["type"] == *wanted && a["address"].is_string());
    let host = types.iter().find_map(of_type)?["address"].as_str()?.to_owned();
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port").and_then(Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).unwrap_or(default);
    let features = node.pointer("/status/declaredFeatures").and_then(Value::as_array);
    let speaks_websockets = features.is_some_and(|list| list.iter().any(|feature| feature == WEBSOCKETS));
    Some(Kubelet { host, port, speaks_websockets })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_preferred_address_wins() {
        let node = json!({"status": {
            "addresses": [{"type": "Hostname", "address": "n1"}, {"type": "InternalIP", "address": "10.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10260}}, "declaredFeatures": [WEBSOCKETS],
        }});
        let types = ["InternalIP".to_owned(), "Hostname".to_owned()];
        let kubelet = locate(&node, &types, 10250).unwrap();
        assert_eq!((kubelet.authority().as_str(), kubelet.speaks_websockets), ("10.0.0.1:10260", true));
        assert_eq!(locate(&node, &types[1..], 10250).unwrap().host, "n1");
        assert_eq!(locate(&node, &["ExternalIP".to_owned()], 10250), None);
        assert_eq!(locate(&json!({}), &types, 10250), None);
    }
}
