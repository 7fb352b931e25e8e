//! Connections to back ends.

use std::{io, sync::Arc, time::Duration};

use machinery::ApiError;
use rustls::{ClientConfig, pki_types::ServerName};
use streaming::Connection;
use tokio_rustls::TlsConnector;

use super::egress::Dialer;

/// Time for a connection and its handshake.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a back end cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The TCP connection.
    #[error("dial tcp {address}: connect: {source}")]
    Connect {
        /// `host:port`.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The handshake.
    #[error("remote error: tls: {0}")]
    Tls(io::Error),
    /// The name cannot be in a certificate.
    #[error("invalid server name {0:?}")]
    Name(String),
    /// Nothing happened in time.
    #[error("dial tcp {0}: i/o timeout")]
    Deadline(String),
}

impl DialError {
    /// The failure of a request that the server makes for a client.
    pub fn of_request(&self, method: &str, url: &str) -> ApiError {
        let mut verb = method.to_ascii_lowercase();
        if let Some(first) = verb.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        ApiError::internal(format!("{verb} {url:?}: {self}"))
    }
}

/// `host:port`, with brackets around IPv6 addresses.
pub fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Connects, with TLS when a configuration is given.
pub async fn connect(
    dialer: &Dialer,
    host: &str,
    port: u16,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Connection, DialError> {
    connect_within(DIAL_TIMEOUT, dialer, host, port, tls).await
}

/// [`connect`] with another deadline.
pub async fn connect_within(
    deadline: Duration,
    dialer: &Dialer,
    host: &str,
    port: u16,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Connection, DialError> {
    let address = host_port(host, port);
    let dial = async {
        let stream = dialer.connect(host, port).await;
        let stream = stream.map_err(|source| DialError::Connect { address: address.clone(), source })?;
        let Some(config) = tls else { return Ok(stream) };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| DialError::Name(host.to_owned()))?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await.map_err(DialError::Tls)?;
        Ok(Box::new(stream) as Connection)
    };
    tokio::time::timeout(deadline, dial).await.map_err(|_| DialError::Deadline(address.clone()))?
}
