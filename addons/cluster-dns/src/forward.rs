//! Asking upstream resolvers: each question from a port of its own, checked against its answer, within a deadline.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Edns, Message, MessageType, Query},
    rr::{Name, RecordType},
};
use rand::{Rng, seq::SliceRandom};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

use crate::{
    corefile::{Forward, Policy, Upstream},
    metrics::DnsMetrics,
    resolv,
    wire::MAX_UDP,
};

/// Time a server has for its answer.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Time for all servers together; clients give up after five seconds.
const DEADLINE: Duration = Duration::from_secs(5);
/// Time a server that failed is asked last.
const REST: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error("too many questions at once")]
    Busy,
    #[error("there are no upstream servers")]
    NoServers,
    #[error("no upstream server answered in time")]
    Deadline,
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("the answer is unreadable or not to the question")]
    Garbled,
}

struct Server {
    address: SocketAddr,
    /// Milliseconds on the clock of `started` until when it is asked last.
    rests_until: AtomicU64,
    /// Its questions come back here.
    loops: AtomicBool,
}

/// Upstreams of one `forward`.
pub(crate) struct Upstreams {
    pub(crate) from: Name,
    except: Vec<Name>,
    policy: Policy,
    force_tcp: bool,
    servers: Vec<Server>,
    slots: Semaphore,
    turn: AtomicUsize,
    started: Instant,
    metrics: Arc<DnsMetrics>,
}

impl Upstreams {
    /// Reads files that name servers; one that cannot be read has none.
    pub(crate) fn new(settings: &Forward, metrics: Arc<DnsMetrics>) -> Self {
        let mut addresses = Vec::new();
        for upstream in &settings.to {
            match upstream {
                Upstream::Address(address) => addresses.push(*address),
                Upstream::File(path) => match std::fs::read_to_string(path) {
                    Ok(text) => addresses.extend(resolv::servers(&text)),
                    Err(error) => tracing::error!(%error, path = %path.display(), "cannot read upstream servers"),
                },
            }
        }
        let server = |address| Server { address, rests_until: AtomicU64::new(0), loops: AtomicBool::new(false) };
        Self {
            from: settings.from.clone(),
            except: settings.except.clone(),
            policy: settings.policy,
            force_tcp: settings.force_tcp,
            servers: addresses.into_iter().map(server).collect(),
            slots: Semaphore::new(settings.max_concurrent),
            turn: AtomicUsize::new(0),
            started: Instant::now(),
            metrics,
        }
    }

    /// Whether names like this are asked here.
    pub(crate) fn covers(&self, name: &Name) -> bool {
        self.from.zone_of(name) && !self.except.iter().any(|e| e.zone_of(name))
    }

    /// Asks one server after the other until one answers.
    pub(crate) async fn ask(&self, query: &Query, flags: (bool, bool)) -> Result<Message, ForwardError> {
        let Ok(_slot) = self.slots.try_acquire() else {
            self.metrics.rejects.inc();
            return Err(ForwardError::Busy);
        };
        let all = async {
            let mut last = ForwardError::NoServers;
            for server in self.order() {
                let begun = Instant::now();
                let asked = timeout(ATTEMPT, exchange(server.address, query, flags, self.force_tcp)).await;
                let outcome = asked.unwrap_or(Err(ForwardError::Deadline));
                let code = outcome.as_ref().map_or_else(|_| "none".into(), rcode);
                self.metrics.observe_upstream(server.address, &code, begun.elapsed());
                match outcome {
                    Ok(message) => {
                        server.rests_until.store(0, Ordering::Relaxed);
                        return Ok(message);
                    }
                    Err(error) => {
                        tracing::debug!(%error, server = %server.address, "an upstream failed");
                        server.rests_until.store(millis(self.started.elapsed() + REST), Ordering::Relaxed);
                        last = error;
                    }
                }
            }
            Err(last)
        };
        timeout(DEADLINE, all).await.unwrap_or(Err(ForwardError::Deadline))
    }

    /// Servers in the order in which they are asked now: those that failed lately last, those that lead back never.
    fn order(&self) -> Vec<&Server> {
        let mut servers: Vec<&Server> = self.servers.iter().filter(|s| !s.loops.load(Ordering::Relaxed)).collect();
        match self.policy {
            Policy::Sequential => {}
            Policy::Random => servers.shuffle(&mut rand::rng()),
            Policy::RoundRobin if !servers.is_empty() => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) % servers.len();
                servers.rotate_left(turn);
            }
            Policy::RoundRobin => {}
        }
        let now = millis(self.started.elapsed());
        servers.sort_by_key(|s| s.rests_until.load(Ordering::Relaxed) > now);
        servers
    }

    /// Asks every server for a name that only this process knows and stops using those through which the question
    /// comes back.
    pub(crate) async fn find_loops(&self, probe: &LoopProbe) {
        for server in &self.servers {
            let Some(name) = probe.begin() else { return };
            let query = Query::query(name, RecordType::HINFO);
            // Only the way of the question matters, not its answer.
            let _answered = timeout(ATTEMPT, exchange(server.address, &query, (false, false), false)).await.is_ok();
            if probe.came_back() {
                tracing::error!(server = %server.address, "an upstream leads back to this server and is not used");
                server.loops.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// The name asked for in search of loops.
#[derive(Default)]
pub(crate) struct LoopProbe {
    name: parking_lot::Mutex<Option<Name>>,
    seen: AtomicBool,
}

impl LoopProbe {
    fn begin(&self) -> Option<Name> {
        let labels = [rand::rng().random::<u64>(), rand::rng().random::<u64>()];
        let name = crate::name::parse(&format!("{}.{}", labels[0], labels[1]))?;
        self.seen.store(false, Ordering::SeqCst);
        *self.name.lock() = Some(name.clone());
        Some(name)
    }

    fn came_back(&self) -> bool {
        *self.name.lock() = None;
        self.seen.swap(false, Ordering::SeqCst)
    }

    /// Whether a question is the own one, come back.
    pub(crate) fn is_own(&self, query: &Query) -> bool {
        if query.query_type() != RecordType::HINFO || self.name.lock().as_ref() != Some(query.name()) {
            return false;
        }
        self.seen.store(true, Ordering::SeqCst);
        true
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn rcode(message: &Message) -> String {
    crate::metrics::rcode(message.metadata.response_code)
}

fn question(query: &Query, (signatures, unchecked): (bool, bool)) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = unchecked;
    message.add_query(query.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_UDP);
    edns.set_dnssec_ok(signatures);
    message.set_edns(edns);
    message
}

fn is_answer(message: &Message, question: &Message) -> bool {
    let same = match (message.queries.as_slice(), question.queries.as_slice()) {
        ([a], [q]) => a.name() == q.name() && a.query_type() == q.query_type() && a.query_class() == q.query_class(),
        // Some servers leave the question out of refusals.
        ([], [_]) => message.answers.is_empty(),
        _ => false,
    };
    message.metadata.message_type == MessageType::Response && message.metadata.id == question.metadata.id && same
}

async fn exchange(
    server: SocketAddr,
    query: &Query,
    flags: (bool, bool),
    force_tcp: bool,
) -> Result<Message, ForwardError> {
    let question = question(query, flags);
    let bytes = question.to_vec().map_err(|_| ForwardError::Garbled)?;
    if !force_tcp {
        let answer = over_udp(server, &question, &bytes).await?;
        if !answer.metadata.truncation {
            return Ok(answer);
        }
    }
    let answer = over_tcp(server, &bytes).await?;
    if is_answer(&answer, &question) { Ok(answer) } else { Err(ForwardError::Garbled) }
}

async fn over_udp(server: SocketAddr, question: &Message, bytes: &[u8]) -> Result<Message, ForwardError> {
    let any = if server.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        // Anything but the answer may be forged: go on waiting.
        let message = Message::from_vec(buffer.get(..length).unwrap_or_default());
        if let Some(message) = message.ok().filter(|m| is_answer(m, question)) {
            return Ok(message);
        }
    }
}

async fn over_tcp(server: SocketAddr, bytes: &[u8]) -> Result<Message, ForwardError> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(|_| ForwardError::Garbled)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; length.into()];
    stream.read_exact(&mut answer).await?;
    Message::from_vec(&answer).map_err(|_| ForwardError::Garbled)
}
