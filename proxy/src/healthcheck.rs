//! Health check node ports: tell load balancers how many endpoints of a Service are here.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, response::IntoResponse};
use controller::{EventRecorder, EventType, ObjectKey};
use http::StatusCode;
use k8s_openapi::api::core::v1::ObjectReference;
use runtime::{clock::Clock, tasks::TaskGroup};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::health::Health;

/// Grace for running requests.
const GRACE: Duration = Duration::from_secs(1);

struct Open {
    port: u16,
    addresses: Vec<IpAddr>,
    local: Arc<AtomicUsize>,
    stop: CancellationToken,
}

/// The open health check node ports of one family.
pub(crate) struct HealthPorts {
    open: BTreeMap<ObjectKey, Open>,
    health: Health,
    clock: Arc<dyn Clock>,
    events: EventRecorder,
    tasks: TaskGroup,
}

fn body(key: &ObjectKey, local: usize, healthy: bool) -> String {
    format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": {:?},\n\t\t\"name\": {:?}\n\t}},\n\t\"localEndpoints\": {local},\n\t\
         \"serviceProxyHealthy\": {healthy}\n}}",
        key.namespace, key.name
    )
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

impl HealthPorts {
    pub(crate) fn new(health: Health, clock: Arc<dyn Clock>, events: EventRecorder, tasks: &TaskGroup) -> Self {
        Self { open: BTreeMap::new(), health, clock, events, tasks: tasks.child("health check node ports") }
    }

    /// Opens, closes and updates ports. `addresses` is what they listen on.
    pub(crate) fn update(&mut self, wanted: &BTreeMap<ObjectKey, (u16, usize)>, addresses: &[IpAddr]) {
        self.open.retain(|key, open| {
            let stays = wanted.get(key).is_some_and(|(port, _)| *port == open.port) && open.addresses == addresses;
            if !stays {
                open.stop.cancel();
            }
            stays
        });
        for (key, (port, local)) in wanted {
            if let Some(open) = self.open.get(key) {
                open.local.store(*local, Ordering::Relaxed);
                continue;
            }
            match self.start(key, *port, *local, addresses) {
                Ok(open) => drop(self.open.insert(key.clone(), open)),
                Err(error) => {
                    let about = ObjectReference {
                        api_version: Some("v1".to_owned()),
                        kind: Some("Service".to_owned()),
                        namespace: Some(key.namespace.clone()),
                        name: Some(key.name.clone()),
                        uid: Some(key.to_string()),
                        ..ObjectReference::default()
                    };
                    let text = format!("node failed to start healthcheck {key:?} on port {port}: {error}");
                    tracing::error!(%error, service = %key, port, "cannot listen on a health check node port");
                    self.events.event(&about, EventType::Warning, "FailedToStartServiceHealthcheck", text);
                }
            }
        }
    }

    fn start(&self, key: &ObjectKey, port: u16, local: usize, addresses: &[IpAddr]) -> std::io::Result<Open> {
        let stop = CancellationToken::new();
        let count = Arc::new(AtomicUsize::new(local));
        let listeners: Vec<TcpListener> =
            addresses.iter().map(|ip| listen(SocketAddr::new(*ip, port))).collect::<Result<_, _>>()?;
        for listener in listeners {
            let (key, count, health, clock) =
                (key.clone(), Arc::clone(&count), self.health.clone(), Arc::clone(&self.clock));
            let router = Router::new().fallback(move || async move {
                let (local, healthy) = (count.load(Ordering::Relaxed), health.is_healthy(clock.now()));
                let fine = local > 0 && healthy;
                let code = if fine { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                let headers = [
                    ("content-type", "application/json".to_owned()),
                    ("x-content-type-options", "nosniff".to_owned()),
                    ("x-load-balancing-endpoint-weight", local.to_string()),
                ];
                (code, headers, body(&key, local, healthy)).into_response()
            });
            let end = stop.clone();
            self.tasks.spawn_cancellable(format!("port {port}"), async move {
                runtime::serving::serve_router(listener, None, router, end, GRACE).await;
            });
        }
        Ok(Open { port, addresses: addresses.to_vec(), local: count, stop })
    }
}

impl Drop for HealthPorts {
    fn drop(&mut self) {
        self.open.values().for_each(|open| open.stop.cancel());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_indented_json() {
        let text = body(&ObjectKey::new("ns", "svc"), 2, true);
        assert_eq!(
            text,
            "{\n\t\"service\": {\n\t\t\"namespace\": \"ns\",\n\t\t\"name\": \"svc\"\n\t},\n\t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}"
        );
    }
}
