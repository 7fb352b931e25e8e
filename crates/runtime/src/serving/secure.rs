//! From the secure serving flags to a listening server.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body};
use http::{Request, Response};
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Limits, handler_of, serve_with};
use crate::{
    flags::SecureServingArgs,
    tasks::TaskGroup,
    tls::{self, CertificateSet, ServerOptions, ServingCertificate, SniCertificate, TlsError},
};

/// Connections the kernel keeps for us.
const BACKLOG: i32 = 1024;
/// Streams of an HTTP/2 connection when the flag does not say.
const DEFAULT_STREAMS: u32 = 100;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    /// The port cannot be had.
    #[error("failed to create listener: failed to listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Certificates or TLS settings are not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A key without a certificate, or the other way round.
    #[error("cert file and private key file must both be provided")]
    HalfPair,
}

/// Listens on an address. `0.0.0.0` are the addresses of both families, as everywhere in Kubernetes, where the host has
/// both.
pub fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    listen_with(address, false)
}

fn listen_with(address: SocketAddr, share_port: bool) -> std::io::Result<TcpListener> {
    if address.is_ipv4() && address.ip().is_unspecified() {
        match open(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), address.port()), share_port) {
            Err(error) if error.kind() != std::io::ErrorKind::AddrInUse => {
                tracing::debug!(%error, "the host has no IPv6");
            }
            done => return done,
        }
    }
    open(address, share_port)
}

fn open(address: SocketAddr, share_port: bool) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // Go's listener sets it too: a port whose last owner is in TIME_WAIT can be had.
    socket.set_reuse_address(true)?;
    if share_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// [`listen`] as the serving flags say.
pub fn bind(address: SocketAddr, share_port: bool, share_address: bool) -> Result<TcpListener, ServingError> {
    tracing::debug!(%address, share_port, share_address, "listening");
    listen_with(address, share_port).map_err(|source| ServingError::Listen { address, source })
}

/// A TLS server that listens and does not serve yet.
pub struct SecureServing {
    /// The socket.
    pub listener: TcpListener,
    /// Its address; tells the port when port 0 was asked for.
    pub address: SocketAddr,
    /// TLS settings with certificates that follow their files.
    pub tls: Arc<ServerConfig>,
    limits: Limits,
}

impl SecureServing {
    /// Binds what the flags say; `None` if the port is 0. `pair` names the files in `--cert-dir`; `names` and
    /// `addresses` are what a certificate made here is for.
    pub fn bind(
        args: &SecureServingArgs,
        default_port: u16,
        pair: &str,
        names: &[String],
        addresses: &[IpAddr],
        tasks: &TaskGroup,
    ) -> Result<Option<Self>, ServingError> {
        let port = args.secure_port.unwrap_or(default_port);
        if port == 0 {
            return Ok(None);
        }
        Self::bind_to(args, SocketAddr::new(args.bind_address, port), pair, names, addresses, tasks).map(Some)
    }

    /// [`SecureServing::bind`] to an address that is decided elsewhere; port 0 takes any.
    pub fn bind_to(
        args: &SecureServingArgs,
        address: SocketAddr,
        pair: &str,
        names: &[String],
        addresses: &[IpAddr],
        tasks: &TaskGroup,
    ) -> Result<Self, ServingError> {
        let default = default_certificate(args, pair, names, addresses, tasks)?;
        let mut by_name = Vec::new();
        for value in &args.tls_sni_cert_key {
            let (certificate, key, names) = SniCertificate::parse(value)?;
            by_name.push(SniCertificate::new(tls::watch_pair(&certificate, &key, tasks)?, names));
        }
        let options = ServerOptions {
            cipher_suites: args.tls_cipher_suites.clone(),
            min_version: args.tls_min_version.clone(),
            curves: args.tls_curve_preferences.clone(),
            no_http2: args.disable_http2_serving,
            no_client_certificates: false,
        };
        let tls = tls::server_config_with(&options, Arc::new(CertificateSet::new(default, by_name)))?;
        let listener = bind(address, args.permit_port_sharing, args.permit_address_sharing)?;
        let address = listener.local_addr().map_err(|source| ServingError::Listen { address, source })?;
        let max_streams = match args.http2_max_streams_per_connection {
            0 => DEFAULT_STREAMS,
            n => n,
        };
        tracing::info!(%address, "Serving securely");
        Ok(Self { listener, address, tls, limits: Limits { max_streams, ..Limits::default() } })
    }

    /// Serves a router until `stop`, then for `grace` what runs.
    pub async fn serve(self, router: Router, stop: CancellationToken, grace: Duration) {
        self.serve_handler(handler_of(router), stop, grace).await;
    }

    /// The same for a handler of all requests.
    pub async fn serve_handler<H, F>(self, handler: H, stop: CancellationToken, grace: Duration)
    where
        H: Fn(Request<Body>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        serve_with(self.listener, Some(self.tls), handler, stop, grace, self.limits).await;
    }
}

fn default_certificate(
    args: &SecureServingArgs,
    pair: &str,
    names: &[String],
    addresses: &[IpAddr],
    tasks: &TaskGroup,
) -> Result<Arc<ServingCertificate>, ServingError> {
    let given = |path: &Option<PathBuf>| path.clone().filter(|p| !p.as_os_str().is_empty());
    match (given(&args.tls_cert_file), given(&args.tls_private_key_file)) {
        (Some(certificate), Some(key)) => return Ok(tls::watch_pair(&certificate, &key, tasks)?),
        (None, None) => {}
        _ => return Err(ServingError::HalfPair),
    }
    let mut addresses = addresses.to_vec();
    let mut names = names.to_vec();
    let common_name = if args.bind_address.is_unspecified() {
        names.push("localhost".into());
        "localhost".to_owned()
    } else {
        addresses.push(args.bind_address);
        args.bind_address.to_string()
    };
    if args.cert_dir.as_os_str().is_empty() {
        let (certificate, key) = tls::self_signed(&common_name, &names, &addresses)?;
        tracing::info!("Generated self-signed cert in-memory");
        return Ok(Arc::new(ServingCertificate::new(certificate.as_bytes(), key.as_bytes())?));
    }
    let (certificate, key) = (args.cert_dir.join(format!("{pair}.crt")), args.cert_dir.join(format!("{pair}.key")));
    if !certificate.exists() || !key.exists() {
        let (certificate_pem, key_pem) = tls::self_signed(&common_name, &names, &addresses)?;
        tls::write_private(&key, key_pem.as_bytes())?;
        tls::write_private(&certificate, certificate_pem.as_bytes())?;
        tracing::info!(certificate = %certificate.display(), key = %key.display(), "Generated self-signed cert");
    }
    Ok(tls::watch_pair(&certificate, &key, tasks)?)
}
