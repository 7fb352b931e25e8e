//! Where the server of an APIService is: its Service, and one of the endpoints.

use std::{net::IpAddr, sync::Arc};

use generic::resource::{Resource, decode_cached};
use machinery::ApiError;
use rand::seq::IndexedRandom;
use registry::connect::{dial::host_port, proxy::is_pod_address};
use serde_json::Value;
use storage::cache::{Freshness, Scope, WatchRequest, WatchStart, Watcher};

use crate::{Routing, condition::Availability, view::ServiceReference};

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What places are found with.
pub(crate) struct Places {
    pub(crate) services: Arc<Resource>,
    pub(crate) slices: Arc<Resource>,
    pub(crate) routing: Routing,
}

/// A place to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

impl Place {
    /// `host:port` as URLs have it.
    pub(crate) fn authority(&self) -> String {
        host_port(&self.address.to_string(), self.port)
    }
}

impl Places {
    /// A place where the Service can be reached now, or what it lacks.
    pub(crate) async fn find(&self, wanted: &ServiceReference) -> Result<Place, Availability> {
        let service = match self.services.get(&wanted.namespace, &wanted.name, Freshness::Any).await {
            Ok(cached) => decode_cached(&cached).map_err(|error| unchecked(wanted, &error))?.object,
            Err(error) if error.is_not_found() => {
                let text = format!("service/{} in {:?} is not present", wanted.name, wanted.namespace);
                return Err(Availability::failed("ServiceNotFound", text));
            }
            Err(error) => return Err(unchecked(wanted, &error)),
        };
        match service.pointer("/spec/type").and_then(Value::as_str) {
            Some("ExternalName") => external(&service, wanted).await,
            Some("ClusterIP") => {
                let port = port_of(&service, wanted)?;
                let slices = self.slices(wanted).await.map_err(|error| unchecked(wanted, &error))?;
                let endpoints = endpoints(&slices, &port, wanted)?;
                self.choose(&service, wanted, &endpoints)
            }
            // A Service of another type is not asked for its endpoints before it is used.
            _ => {
                let slices = self.slices(wanted).await.map_err(|error| unchecked(wanted, &error))?;
                let port = port_of(&service, wanted)?;
                let endpoints = endpoints(&slices, &port, wanted).unwrap_or_default();
                self.choose(&service, wanted, &endpoints)
            }
        }
    }

    fn choose(&self, service: &Value, wanted: &ServiceReference, endpoints: &[Place]) -> Result<Place, Availability> {
        let cluster_ip = service.pointer("/spec/clusterIP").and_then(Value::as_str).and_then(|ip| ip.parse().ok());
        if let (Routing::ClusterIp, Some(address)) = (self.routing, cluster_ip) {
            return Ok(Place { address, port: wanted.port() });
        }
        endpoints.choose(&mut rand::rng()).cloned().ok_or_else(|| {
            let text = format!("service/{} in {:?} has no endpoint that may be reached", wanted.name, wanted.namespace);
            Availability::failed("MissingEndpoints", text)
        })
    }

    async fn slices(&self, wanted: &ServiceReference) -> Result<Vec<Value>, ApiError> {
        let prefix = self.slices.key_prefix(&wanted.namespace)?;
        let failed = |error| self.slices.store_error(error);
        let snapshot = self.slices.cache().list(&prefix, Freshness::Any).await.map_err(failed)?;
        let own = snapshot.range(None).filter(|(_, slice)| slice.index.label(SERVICE_NAME) == Some(&wanted.name));
        own.map(|(_, slice)| serde_json::from_slice(&slice.json).map_err(ApiError::internal)).collect()
    }

    /// Changes of the Service and of its endpoints from now on.
    pub(crate) async fn changes(&self, wanted: &ServiceReference) -> Option<(Watcher, Watcher)> {
        let name = wanted.name.clone();
        let services = WatchRequest {
            prefix: self.services.key_prefix(&wanted.namespace).ok()?,
            scope: Scope { namespace: Some(wanted.namespace.clone()), name: Some(name.clone()), hot_field: None },
            predicate: None,
            start: WatchStart::Now(Freshness::Any),
            bookmarks: false,
            initial_events_end: false,
        };
        let slices = WatchRequest {
            prefix: self.slices.key_prefix(&wanted.namespace).ok()?,
            scope: Scope { namespace: Some(wanted.namespace.clone()), ..Scope::default() },
            predicate: Some(Arc::new(move |slice| slice.index.label(SERVICE_NAME) == Some(&name))),
            ..services.clone()
        };
        let (services, slices) = (self.services.cache().watch(services).await, self.slices.cache().watch(slices).await);
        Some((services.ok()?, slices.ok()?))
    }
}

fn unchecked(wanted: &ServiceReference, error: &ApiError) -> Availability {
    let text = format!("service/{} in {:?} cannot be checked due to: {error}", wanted.name, wanted.namespace);
    Availability { status: "Unknown", reason: "ServiceAccessError", message: text }
}

/// The name of the Service's port of that number.
fn port_of(service: &Value, wanted: &ServiceReference) -> Result<String, Availability> {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array).into_iter().flatten();
    let found = ports.into_iter().find(|port| port["port"] == u64::from(wanted.port()));
    let found = found.ok_or_else(|| {
        let text =
            format!("service/{} in {:?} is not listening on port {}", wanted.name, wanted.namespace, wanted.port());
        Availability::failed("ServicePortError", text)
    })?;
    Ok(found["name"].as_str().unwrap_or_default().to_owned())
}

/// Ready endpoints with a port of that name, at addresses that a Pod may have.
fn endpoints(slices: &[Value], port: &str, wanted: &ServiceReference) -> Result<Vec<Place>, Availability> {
    if slices.is_empty() {
        let text = format!("cannot find endpointslices for service/{} in {:?}", wanted.name, wanted.namespace);
        return Err(Availability::failed("EndpointsNotFound", text));
    }
    let mut found = Vec::new();
    for slice in slices {
        let ports = slice["ports"].as_array().into_iter().flatten();
        let number = ports.filter(|p| p["name"].as_str().unwrap_or_default() == port).find_map(|p| p["port"].as_u64());
        let Some(port) = number.and_then(|number| u16::try_from(number).ok()) else { continue };
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            if endpoint.pointer("/conditions/ready") == Some(&Value::Bool(false)) {
                continue;
            }
            let addresses = endpoint["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let parsed = addresses.filter_map(|address| address.parse::<IpAddr>().ok());
            found.extend(parsed.filter(|ip| is_pod_address(*ip)).map(|address| Place { address, port }));
        }
    }
    if found.is_empty() {
        let text = format!(
            "endpointslices for service/{} in {:?} have no addresses with port name {port:?}",
            wanted.name, wanted.namespace
        );
        return Err(Availability::failed("MissingEndpoints", text));
    }
    Ok(found)
}

/// The address of an external name, looked up once: that address is the one that is used.
async fn external(service: &Value, wanted: &ServiceReference) -> Result<Place, Availability> {
    let name = service.pointer("/spec/externalName").and_then(Value::as_str).unwrap_or_default();
    let failed = |text: String| Availability::failed("FailedDiscoveryCheck", text);
    let mut found = tokio::net::lookup_host((name, wanted.port())).await.map_err(|error| failed(error.to_string()))?;
    let place = found.find(|address| is_pod_address(address.ip()));
    let place = place.ok_or_else(|| failed(format!("{name:?} has no address that may be reached")))?;
    Ok(Place { address: place.ip(), port: place.port() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wanted() -> ServiceReference {
        ServiceReference { namespace: "ns".into(), name: "api".into(), port: None }
    }

    #[test]
    fn ports_of_services() {
        let service = json!({"spec": {"ports": [{"name": "https", "port": 443}]}});
        assert_eq!(port_of(&service, &wanted()), Ok("https".to_owned()));
        let other = port_of(&json!({"spec": {"ports": [{"port": 80}]}}), &wanted()).unwrap_err();
        assert_eq!(
            (other.reason, other.message.as_str()),
            ("ServicePortError", "service/api in \"ns\" is not listening on port 443")
        );
    }

    #[test]
    fn endpoints_that_may_be_used() {
        let slice = json!({
            "ports": [{"name": "https", "port": 8443}, {"name": "web", "port": 80}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
                {"addresses": ["127.0.0.1"]}, {"addresses": ["169.254.169.254"]},
            ],
        });
        let one = Place { address: [10, 0, 0, 1].into(), port: 8443 };
        assert_eq!(endpoints(std::slice::from_ref(&slice), "https", &wanted()), Ok(vec![one]));
        let missing = endpoints(&[slice], "other", &wanted()).unwrap_err();
        assert_eq!(
            missing.message,
            "endpointslices for service/api in \"ns\" have no addresses with port name \"other\""
        );
        let none = endpoints(&[], "https", &wanted()).unwrap_err();
        assert_eq!((none.reason, none.status), ("EndpointsNotFound", "False"));
    }
}
