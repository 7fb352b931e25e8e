//! How device plugins get in: by the socket of old, or as other plugins do.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proto::device as v1;
use proto::device::registration_server::{Registration, RegistrationServer};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::Devices;
use super::plugin::Endpoint;
use crate::metrics::METRICS;
use crate::plugins::{Handler, Plugin};

const VERSION: &str = "v1beta1";
const SOCKET: &str = "kubelet.sock";
const DEADLINE: Duration = Duration::from_secs(10);

/// Takes device plugins.
#[derive(Clone)]
pub struct DeviceRegistration {
    devices: Arc<Devices>,
}

impl DeviceRegistration {
    /// For these devices.
    pub fn new(devices: Arc<Devices>) -> Self {
        Self { devices }
    }

    /// Serves the socket until stopped. Plugins of an earlier kubelet find their sockets gone, and register anew.
    pub async fn serve(self, stop: CancellationToken) {
        let dir = self.devices.dir().to_owned();
        let listener = match clear_sockets(&dir).and_then(|()| UnixListener::bind(dir.join(SOCKET))) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, dir = %dir.display(), "device plugin registration"),
        };
        let server = tonic::transport::Server::builder().add_service(RegistrationServer::new(self));
        let incoming = UnixListenerStream::new(listener);
        if let Err(error) = server.serve_with_incoming_shutdown(incoming, stop.cancelled()).await {
            tracing::error!(%error, "device plugin registration");
        }
    }

    fn add(&self, resource: &str, endpoint: Endpoint) {
        METRICS.device_registrations.with_label_values(&[resource]).inc();
        tracing::info!(resource, "device plugin registered");
        tokio::spawn(Arc::clone(&self.devices).follow(resource.to_owned(), endpoint));
    }
}

fn clear_sockets(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A vendor's domain and a name, and not one of Kubernetes' own.
fn check_resource(name: &str) -> Result<(), String> {
    let wrong = || format!("the ResourceName {name:?} is invalid");
    let (domain, rest) = name.split_once('/').ok_or_else(wrong)?;
    let native = domain == "kubernetes.io" || domain.ends_with(".kubernetes.io") || name.starts_with("requests.");
    let legal = |text: &str| {
        !text.is_empty() && text.len() <= 253 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    if native || !legal(domain) || !legal(rest) { Err(wrong()) } else { Ok(()) }
}

#[async_trait]
impl Registration for DeviceRegistration {
    async fn register(&self, request: Request<v1::RegisterRequest>) -> Result<Response<v1::Empty>, Status> {
        let request = request.into_inner();
        if request.version != VERSION {
            let text = format!(
                "requested API version {:?} is not supported by kubelet. Supported version is {VERSION:?}",
                request.version
            );
            return Err(Status::unknown(text));
        }
        check_resource(&request.resource_name).map_err(Status::unknown)?;
        let mut parts = Path::new(&request.endpoint).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(Status::invalid_argument("the endpoint must be the name of a socket in this directory"));
        }
        let socket = self.devices.dir().join(&request.endpoint);
        let endpoint = Endpoint::connect(&socket, request.options.unwrap_or_default())
            .map_err(|error| Status::unknown(error.to_string()))?;
        self.add(&request.resource_name, endpoint);
        Ok(Response::new(v1::Empty {}))
    }
}

#[async_trait]
impl Handler for DeviceRegistration {
    async fn register(&self, plugin: &Plugin) -> Result<(), String> {
        if !plugin.versions.iter().any(|version| version == VERSION) {
            return Err(format!(
                "manager version, {VERSION}, is not among plugin supported versions {:?}",
                plugin.versions
            ));
        }
        check_resource(&plugin.name)?;
        let mut endpoint = Endpoint::connect(&plugin.endpoint, v1::DevicePluginOptions::default())
            .map_err(|error| error.to_string())?;
        endpoint.ask_options(DEADLINE).await.map_err(|error| error.to_string())?;
        self.add(&plugin.name, endpoint);
        Ok(())
    }

    async fn deregister(&self, _plugin: &Plugin) {
        // The end of its list says the same.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_have_a_vendor() {
        for (name, legal) in [
            ("vendor.com/gpu", true),
            ("gpu", false),
            ("kubernetes.io/gpu", false),
            ("a.kubernetes.io/gpu", false),
            ("vendor.com/", false),
            ("vendor.com/a/b", false),
        ] {
            assert_eq!(check_resource(name).is_ok(), legal, "{name}");
        }
    }
}
