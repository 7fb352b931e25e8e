//! API aggregation: group versions that other servers answer for.
//!
//! ```text
//!  APIService --> [register] local ones: made, kept, removed with what they stand for
//!             \-> [watch]    remote ones: reachable? what do they serve? --> status, discovery, OpenAPI
//!  request    --> [proxy]    to a Service, with the identity of the user in headers
//! ```
//! A remote server is trusted with nothing but its own group version: it never sees the credentials of a client, and
//! where it tries to send one elsewhere the answer is refused. It is reached at the cluster IP of its Service, or at one
//! of its endpoints, and has to prove the name of the Service by the authorities in the APIService.

mod backend;
mod condition;
mod documents;
mod identity;
mod place;
mod proxy;
mod register;
mod remotes;
mod view;
mod watch;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use generic::{projection::Projection, published::Published, resource::Resource};
use prometheus::Registry;
use registry::connect::egress::Dialer;
use tokio_util::sync::CancellationToken;

pub use identity::{IdentityError, ProxyIdentity};

use crate::{place::Places, register::Register, remotes::Remotes, view::View, watch::Report};

/// Whether requests go to cluster IPs, or straight to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// The rules of the node's proxy find the endpoint.
    ClusterIp,
    /// An endpoint is chosen here (`--enable-aggregator-routing`).
    Endpoints,
}

/// What aggregation works with.
pub struct Settings {
    /// APIServices.
    pub api_services: Arc<Resource>,
    /// CustomResourceDefinitions, whose group versions get local APIServices.
    pub definitions: Arc<Resource>,
    /// Services.
    pub services: Arc<Resource>,
    /// EndpointSlices.
    pub slices: Arc<Resource>,
    /// Where what other servers serve is told.
    pub published: Arc<Published>,
    /// What this server proves itself with; without it, other servers take its requests for anonymous.
    pub identity: Option<ProxyIdentity>,
    /// How Services are reached.
    pub dialer: Dialer,
    /// How Services are reached.
    pub routing: Routing,
    /// Whether answers that send clients elsewhere are refused.
    pub rejects_redirects: bool,
    /// Where metrics are registered.
    pub metrics: Registry,
}

/// Aggregation that has been started.
pub struct Aggregation {
    /// Passes requests on.
    pub delegate: Arc<dyn generic::delegate::Delegate>,
    registered: Arc<AtomicBool>,
    followed: Arc<AtomicBool>,
}

impl Aggregation {
    /// Tells whether all local APIServices have been there once.
    pub fn registered(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let done = Arc::clone(&self.registered);
        move || done.load(Ordering::Acquire)
    }

    /// Tells whether the APIServices of other servers have been looked at once.
    pub fn followed(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let done = Arc::clone(&self.followed);
        move || done.load(Ordering::Acquire)
    }
}

/// Starts aggregation; it ends with `stop`.
pub fn start(settings: Settings, stop: &CancellationToken) -> Result<Aggregation, prometheus::Error> {
    let views: Arc<Projection<View>> = Projection::follow(&settings.api_services, stop);
    let register = Register {
        api_services: Arc::clone(&settings.api_services),
        views: Arc::clone(&views),
        definitions: Projection::follow(&settings.definitions, stop),
        discovery: settings.published.discovery(),
        complete: Arc::default(),
    };
    let registered = Arc::clone(&register.complete);
    tokio::spawn(stop.clone().run_until_cancelled_owned(register.run()));
    let remotes = Arc::new(Remotes::new(
        Places { services: settings.services, slices: settings.slices, routing: settings.routing },
        settings.api_services,
        settings.published,
        (settings.identity.map(Arc::new), settings.dialer),
        settings.rejects_redirects,
        Report::new(&settings.metrics)?,
    ));
    tokio::spawn(stop.clone().run_until_cancelled_owned(Arc::clone(&remotes).follow(views)));
    let followed = remotes.followed();
    Ok(Aggregation { delegate: remotes, registered, followed })
}
