//! `kubectl port-forward`.

mod ports;

use std::{
    io::Write,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use machinery::meta;
use serde_json::Value;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use ports::Pair;

use crate::{
    cluster::Cluster,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    follow,
    pods::{self, Prefer},
    resolve::{Info, arguments::of_kind},
    streams::Output,
};

/// Connections that are forwarded at once.
const CONNECTIONS: usize = 1024;

/// The command.
pub(crate) fn command() -> Command {
    Command::new("port-forward", "Forward one or more local ports to a pod")
        .usage("TYPE/NAME [options] [LOCAL_PORT:]REMOTE_PORT [...[LOCAL_PORT_N:]REMOTE_PORT_N]")
        .examples(&["kubectl port-forward pod/mypod 5000 6000", "kubectl port-forward service/myservice 8443:https"])
        .flags([
            Flag::list("address", "Addresses to listen on: IP addresses or localhost.").preset("localhost"),
            Flag::duration("pod-running-timeout", "1m0s", "Time to wait until a Pod runs."),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let Some((argument, specs)) = context.args.split_first().filter(|(_, specs)| !specs.is_empty()) else {
        return Err(context.usage("TYPE/NAME and list of ports are required for port-forward"));
    };
    let cluster = context.cluster().await?;
    let info = pods::named(context, argument, "expected a single resource").await?;
    pods::check_attachable(&info)?;
    let service = Some(info.object.clone()).filter(|object| object["kind"] == "Service");
    let limit = context.flags.duration("pod-running-timeout");
    let (pod, _) = pods::of_object(&cluster, info, Prefer::Oldest, limit).await?;
    let pairs: Vec<Pair> = specs
        .iter()
        .map(|spec| Pair::resolve(spec, service.as_ref(), &pod).map_err(CommandError::plain))
        .collect::<Result<_, _>>()?;
    let phase = pod["status"]["phase"].as_str().unwrap_or("");
    if phase != "Running" {
        return Err(CommandError::plain(format!(
            "unable to forward port because pod is not running. Current status={phase}"
        )));
    }
    let addresses = addresses(context.flags.list("address"))?;
    check(&cluster, &pod, &pairs).await?;
    let listeners = listen(context, &addresses, &pairs).await?;
    serve(context, &cluster, &pod, listeners).await
}

/// An address to listen on, and whether it may be missing on this machine.
type Address = (IpAddr, bool);

fn addresses(given: &[String]) -> Result<Vec<Address>, CommandError> {
    let local = [(IpAddr::from([127, 0, 0, 1]), true), (IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), true)];
    if given.is_empty() {
        return Ok(local.to_vec());
    }
    let mut all: Vec<Address> = Vec::new();
    for text in given {
        if text == "localhost" {
            all.extend(local);
            continue;
        }
        let address = text.parse().map_err(|_| CommandError::plain(format!("{text} is not a valid IP")))?;
        all.push((address, false));
    }
    all.dedup();
    Ok(all)
}

/// Whether the Pod can be reached at all.
async fn check(cluster: &Cluster, pod: &Value, pairs: &[Pair]) -> Result<(), CommandError> {
    let Some(first) = pairs.first() else { return Ok(()) };
    connect(cluster, pod, first.remote).await.map(drop)
}

async fn connect(cluster: &Cluster, pod: &Value, port: u16) -> Result<kube::api::Portforwarder, CommandError> {
    let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), meta::namespace(pod));
    pods.portforward(meta::name(pod), &[port]).await.map_err(|error| {
        let text = match error {
            kube::Error::Api(status) => status.message,
            other => util::chain(&other),
        };
        CommandError::plain(format!("error upgrading connection: unable to upgrade connection: {text}"))
    })
}

/// Opens the local ports; a pair needs one address to succeed.
async fn listen(
    context: &Context,
    addresses: &[Address],
    pairs: &[Pair],
) -> Result<Vec<(TcpListener, u16, u16)>, CommandError> {
    let mut out = context.streams.out.clone();
    let mut listeners = Vec::new();
    for pair in pairs {
        let (mut local, mut failures) = (pair.local, Vec::new());
        let before = listeners.len();
        for (address, _) in addresses {
            match TcpListener::bind(SocketAddr::new(*address, local)).await {
                Ok(listener) => {
                    local = listener.local_addr()?.port();
                    writeln!(out, "Forwarding from {} -> {}", SocketAddr::new(*address, local), pair.shown)?;
                    out.flush()?;
                    listeners.push((listener, local, pair.remote));
                }
                Err(error) => {
                    let family = if address.is_ipv4() { "tcp4" } else { "tcp6" };
                    let reason = crate::kubeconfig::files::go_io_text(&error);
                    let place = SocketAddr::new(*address, local);
                    failures.push(format!("unable to create listener: Error listen {family} {place}: bind: {reason}"));
                }
            }
        }
        if listeners.len() == before {
            writeln!(
                context.streams.err.clone(),
                "Unable to listen on port {}: Listeners failed to create with the following errors: [{}]",
                pair.local,
                failures.join(" ")
            )?;
        }
    }
    if listeners.is_empty() {
        let wanted: Vec<String> = pairs.iter().map(|pair| format!("{{{} {}}}", pair.local, pair.remote)).collect();
        let wanted = wanted.join(" ");
        return Err(CommandError::plain(format!("unable to listen on any of the requested ports: [{wanted}]")));
    }
    Ok(listeners)
}

/// Forwards connections until the user stops or the Pod is gone.
async fn serve(
    context: &Context,
    cluster: &Arc<Cluster>,
    pod: &Value,
    listeners: Vec<(TcpListener, u16, u16)>,
) -> Result<(), CommandError> {
    let forwarding = Arc::new(Forwarding {
        cluster: Arc::clone(cluster),
        pod: pod.clone(),
        out: context.streams.out.clone(),
        err: context.streams.err.clone(),
        room: Arc::new(tokio::sync::Semaphore::new(CONNECTIONS)),
        lost: CancellationToken::new(),
    });
    let mut tasks = JoinSet::new();
    for (listener, local, remote) in listeners {
        tasks.spawn(Arc::clone(&forwarding).accept(listener, local, remote));
    }
    let info = Info {
        resource: of_kind(cluster, &with_kind(pod)).await?,
        namespace: meta::namespace(pod).to_owned(),
        name: meta::name(pod).to_owned(),
        source: String::new(),
        object: pod.clone(),
    };
    let uid = meta::uid(pod).to_owned();
    let gone = follow::until(context, cluster, &info, |pod| {
        let runs = pod.is_some_and(|pod| meta::uid(pod) == uid && pod["status"]["phase"] == "Running");
        Ok((!runs).then_some(()))
    });
    tokio::select! {
        () = context.stop.cancelled() => Ok(()),
        () = forwarding.lost.cancelled() => Err(CommandError::plain("lost connection to pod")),
        lost = gone => match lost {
            Ok(()) => Err(CommandError::plain("lost connection to pod")),
            Err(CommandError::Exit(_)) => Ok(()),
            // Who may not watch the Pod forwards until the user stops.
            Err(_) => {
                context.stop.cancelled().await;
                Ok(())
            }
        },
    }
}

/// Items of lists have no kind of their own.
fn with_kind(pod: &Value) -> Value {
    let mut pod = pod.clone();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod
}

struct Forwarding {
    cluster: Arc<Cluster>,
    pod: Value,
    out: Output,
    err: Output,
    room: Arc<tokio::sync::Semaphore>,
    /// Cancelled when the Pod refused a connection: the others go with it.
    lost: CancellationToken,
}

impl Forwarding {
    async fn accept(self: Arc<Self>, listener: TcpListener, local: u16, remote: u16) {
        let mut connections = JoinSet::new();
        loop {
            let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else { return };
            // What cannot be accepted is the caller's loss.
            let Ok((stream, _)) = listener.accept().await else { continue };
            while connections.try_join_next().is_some() {}
            let forwarding = Arc::clone(&self);
            connections.spawn(async move {
                let _permit = permit;
                forwarding.one(stream, local, remote).await;
            });
        }
    }

    async fn one(&self, mut stream: TcpStream, local: u16, remote: u16) {
        let mut out = self.out.clone();
        // Nobody may be reading what is only told.
        let _unread = writeln!(out, "Handling connection for {local}").and_then(|()| out.flush()).is_err();
        if let Err(error) = self.forward(&mut stream, remote).await {
            let text = format!("an error occurred forwarding {local} -> {remote}: {error}");
            let _unread = self.err.clone().log('E', "portforward.go:522", &format!("\"Unhandled Error\" err={text:?}"));
            self.lost.cancel();
        }
    }

    async fn forward(&self, stream: &mut TcpStream, remote: u16) -> Result<(), CommandError> {
        let mut forwarder = connect(&self.cluster, &self.pod, remote).await?;
        let failure = forwarder.take_error(remote);
        let Some(mut there) = forwarder.take_stream(remote) else { return Ok(()) };
        // Either side may end the connection in its own way.
        let _cut = copy_bidirectional(stream, &mut there).await.is_err();
        drop(there);
        let _cut = forwarder.join().await.is_err();
        match failure {
            Some(failure) => match failure.await {
                Some(text) => Err(CommandError::plain(text)),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }
}
