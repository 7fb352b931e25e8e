//! DNS over UDP and TCP.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use runtime::tasks::TaskGroup;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

use crate::{
    metrics::DnsMetrics,
    resolver::{Answer, Local, Resolver},
    wire::{Received, Request, Transport, encode, receive},
};

/// Largest question.
const MAX_QUESTION: usize = 4096;
/// Connections at once.
const MAX_CONNECTIONS: usize = 1024;
/// Questions over UDP that wait for upstreams at once.
const MAX_WAITING: usize = 8192;
/// Time a connection may be idle, and time for sending an answer.
const IDLE: Duration = Duration::from_secs(10);
/// Tasks that read from one UDP socket.
const READERS: usize = 2;
/// Pause after a failed accept or receive.
const PAUSE: Duration = Duration::from_millis(20);

/// What serves all sockets.
pub(crate) struct Server {
    pub(crate) resolver: ArcSwap<Resolver>,
    pub(crate) metrics: Arc<DnsMetrics>,
    connections: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// A question on its way.
struct Pending {
    request: Request,
    from: IpAddr,
    transport: Transport,
    begun: Instant,
    resolver: Arc<Resolver>,
}

enum Step {
    Done(Vec<u8>),
    Nothing,
    Ask(Box<Pending>, Local),
}

impl Server {
    pub(crate) fn new(resolver: Resolver, metrics: Arc<DnsMetrics>) -> Arc<Self> {
        Arc::new(Self {
            resolver: ArcSwap::from_pointee(resolver),
            metrics,
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
        })
    }

    /// Binds both sockets of every address, then serves them in `tasks`.
    pub(crate) async fn listen(
        self: &Arc<Self>,
        addresses: &[IpAddr],
        port: u16,
        tasks: &TaskGroup,
    ) -> std::io::Result<()> {
        let all = [IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let addresses = if addresses.is_empty() { &all } else { addresses };
        for address in addresses {
            let at = SocketAddr::new(*address, port);
            let (udp, tcp) = match bind(at).await {
                Ok(bound) => bound,
                // A machine without IPv6 has no `::`.
                Err(_) if address.is_unspecified() && address.is_ipv6() => {
                    bind(SocketAddr::from(([0, 0, 0, 0], port))).await?
                }
                Err(error) => return Err(error),
            };
            let udp = Arc::new(udp);
            for reader in 0..READERS {
                let (server, socket, group) = (Arc::clone(self), Arc::clone(&udp), tasks.clone());
                tasks.spawn_cancellable(format!("udp {at} {reader}"), server.serve_udp(socket, group));
            }
            tasks.spawn_cancellable(format!("tcp {at}"), Arc::clone(self).serve_tcp(tcp, tasks.clone()));
        }
        Ok(())
    }

    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>, tasks: TaskGroup) {
        let mut buffer = vec![0; MAX_QUESTION];
        loop {
            let (length, from) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    // Such as the port unreachable of a client that has gone.
                    tracing::debug!(%error, "cannot receive");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            match self.begin(buffer.get(..length).unwrap_or_default(), from.ip(), Transport::Udp) {
                Step::Nothing => {}
                Step::Done(bytes) => send(&socket, &bytes, from).await,
                Step::Ask(pending, local) => {
                    let Ok(slot) = Arc::clone(&self.waiting).try_acquire_owned() else {
                        self.metrics.rejects.inc();
                        continue;
                    };
                    let (server, socket) = (Arc::clone(&self), Arc::clone(&socket));
                    tasks.spawn_cancellable("question", async move {
                        if let Some(bytes) = server.finish(*pending, local).await {
                            send(&socket, &bytes, from).await;
                        }
                        drop(slot);
                    });
                }
            }
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener, tasks: TaskGroup) {
        loop {
            // The listener's backlog holds those that have no place yet.
            let Ok(slot) = Arc::clone(&self.connections).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, from)) => {
                    let server = Arc::clone(&self);
                    tasks.spawn_cancellable("connection", async move {
                        if let Err(error) = server.converse(stream, from).await {
                            tracing::debug!(%error, %from, "connection ended");
                        }
                        drop(slot);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn converse(&self, mut stream: TcpStream, from: SocketAddr) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        loop {
            let question = timeout(IDLE, async {
                let length = usize::from(stream.read_u16().await?);
                let mut bytes = vec![0; length.min(MAX_QUESTION)];
                stream.read_exact(&mut bytes).await?;
                std::io::Result::Ok((length, bytes))
            });
            let (length, bytes) = question.await??;
            if length > MAX_QUESTION {
                return Ok(());
            }
            let answer = match self.begin(&bytes, from.ip(), Transport::Tcp) {
                Step::Nothing => return Ok(()),
                Step::Done(bytes) => Some(bytes),
                Step::Ask(pending, local) => self.finish(*pending, local).await,
            };
            let Some(answer) = answer else { return Ok(()) };
            let Ok(length) = u16::try_from(answer.len()) else { return Ok(()) };
            timeout(IDLE, stream.write_all(&[&length.to_be_bytes(), answer.as_slice()].concat())).await??;
        }
    }

    /// Answers what can be answered at once.
    fn begin(&self, bytes: &[u8], from: IpAddr, transport: Transport) -> Step {
        let begun = Instant::now();
        let request = match receive(bytes) {
            Received::Noise => return Step::Nothing,
            Received::Refused(message) => {
                let code = message.metadata.response_code;
                let Some(bytes) = encode(*message, usize::from(u16::MAX)) else { return Step::Nothing };
                self.metrics.response("dropped", transport, code, "", bytes.len(), begun.elapsed());
                return Step::Done(bytes);
            }
            Received::Question(request) => *request,
        };
        let resolver = self.resolver.load_full();
        let zone = resolver.zone_label(request.query.name());
        self.metrics.request(zone, from, transport, request.query.query_type(), bytes.len());
        let local = resolver.local(&request);
        let pending = Pending { request, from, transport, begun, resolver };
        match local {
            Local::Answer(answer) => self.encode(&pending, answer).map_or(Step::Nothing, Step::Done),
            ask @ Local::Ask { .. } => Step::Ask(Box::new(pending), ask),
        }
    }

    /// Asks upstreams for what could not be answered at once.
    async fn finish(&self, pending: Pending, local: Local) -> Option<Vec<u8>> {
        let answer = match local {
            Local::Answer(answer) => answer,
            Local::Ask { aliases, name } => pending.resolver.remote(&pending.request, aliases, &name).await,
        };
        self.encode(&pending, answer)
    }

    fn encode(&self, pending: &Pending, answer: Answer) -> Option<Vec<u8>> {
        let name = pending.request.query.name();
        let code = answer.message.metadata.response_code;
        let bytes = encode(answer.message, pending.request.room(pending.transport))?;
        let took = pending.begun.elapsed();
        let zone = pending.resolver.zone_label(name);
        self.metrics.response(zone, pending.transport, code, answer.plugin, bytes.len(), took);
        if pending.resolver.logs(name) {
            let kind = pending.request.query.query_type();
            let (from, code) = (pending.from, crate::metrics::rcode(code));
            tracing::info!(%from, %kind, %name, code, size = bytes.len(), seconds = took.as_secs_f64(), "question");
        }
        Some(bytes)
    }
}

async fn bind(at: SocketAddr) -> std::io::Result<(UdpSocket, TcpListener)> {
    Ok((UdpSocket::bind(at).await?, TcpListener::bind(at).await?))
}

async fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    if let Err(error) = socket.send_to(bytes, to).await {
        tracing::debug!(%error, %to, "cannot send an answer");
    }
}
