//! Two servers on one etcd are one API.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, TryStreamExt};
use harness::{
    ApiServer,
    process::{Process, free_port},
    server::http_get,
    wait_until,
};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Endpoints},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use parking_lot::Mutex;
use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Addresses that the servers say they have; nothing is sent there.
const ADDRESSES: [&str; 2] = ["192.0.2.1", "192.0.2.2"];

struct Pair {
    _store: Process,
    _directory: TempDir,
    servers: Vec<ApiServer>,
}

impl Pair {
    /// Two servers, both with more flags.
    async fn start(more: &[&str]) -> Self {
        let directory = TempDir::new().expect("a directory");
        let [client, peer] = [free_port(), free_port()].map(|port| format!("http://127.0.0.1:{port}"));
        let arguments = [
            format!("--data-dir={}", directory.path().join("data").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
        ];
        let store = Process::start(Path::new("/usr/bin/etcd"), &arguments, directory.path().join("etcd.log"));
        let etcd = format!("--etcd-servers={client}");
        let mut servers = Vec::new();
        for address in ADDRESSES {
            let own = format!("--advertise-address={address}");
            let flags: Vec<&str> = [etcd.as_str(), &own].into_iter().chain(more.iter().copied()).collect();
            servers.push(ApiServer::start_with(&flags).await);
        }
        Self { _store: store, _directory: directory, servers }
    }

    async fn clients(&self) -> [Client; 2] {
        [self.servers[0].admin().await, self.servers[1].admin().await]
    }
}

fn config_maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), "default")
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}})).expect("a ConfigMap")
}

/// Waits until exactly these servers are behind the `kubernetes` Service.
async fn behind_service(client: &Client, wanted: &[&str]) {
    let endpoints: Api<Endpoints> = Api::namespaced(client.clone(), "default");
    let wanted: BTreeSet<String> = wanted.iter().map(|ip| (*ip).to_owned()).collect();
    wait_until("the endpoints of the kubernetes Service", || async {
        let found = endpoints.get("kubernetes").await.map_err(|error| error.to_string())?;
        let addresses = found.subsets.into_iter().flatten().flat_map(|subset| subset.addresses.unwrap_or_default());
        let present: BTreeSet<String> = addresses.map(|address| address.ip).collect();
        if present == wanted { Ok(()) } else { Err(format!("{present:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_there_are_behind_the_service() {
    let mut pair = Pair::start(&[]).await;
    let [first, second] = pair.clients().await;
    behind_service(&first, &ADDRESSES).await;
    let leases: Api<Lease> = Api::namespaced(first.clone(), "kube-system");
    let selected = ListParams::default().labels("apiserver.kubernetes.io/identity=kube-apiserver");
    let lease = wait_until("an identity lease", || async {
        let found = leases.list(&selected).await.map_err(|error| error.to_string())?;
        found.items.into_iter().next().ok_or_else(|| "none".to_owned())
    })
    .await;
    let name = lease.metadata.name.expect("a name");
    let spec = lease.spec.expect("a spec");
    assert!(name.starts_with("apiserver-") && name.len() == 36, "{name}");
    assert_eq!(spec.lease_duration_seconds, Some(3600));
    assert!(spec.holder_identity.is_some_and(|holder| holder.starts_with(&format!("{name}_"))));
    pair.servers[0].kill();
    behind_service(&second, &ADDRESSES[1..]).await;
    pair.servers[0].restart().await;
    behind_service(&second, &ADDRESSES).await;
    terminate(&pair.servers[0]);
    // It says goodbye: nobody has to wait for its lease to end.
    behind_service(&second, &ADDRESSES[1..]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_server_knows_what_the_other_has_written() {
    let pair = Pair::start(&[]).await;
    let [first, second] = pair.clients().await.map(|client| config_maps(&client));
    for number in 0..50 {
        let (writer, reader) = if number % 2 == 0 { (&first, &second) } else { (&second, &first) };
        let name = format!("m{number}");
        let written = writer.create(&PostParams::default(), &config_map(&name)).await.expect("create");
        let read = reader.get(&name).await.expect("the other server has it");
        assert_eq!(read.metadata.resource_version, written.metadata.resource_version);
        let listed = reader.list(&ListParams::default()).await.expect("list");
        assert!(listed.items.iter().any(|map| map.metadata.name.as_ref() == Some(&name)), "{name}");
        if number % 3 == 0 {
            reader.delete(&name, &DeleteParams::default()).await.expect("delete");
            assert!(writer.get_opt(&name).await.expect("get").is_none(), "{name} is gone");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_at_the_other_server() {
    let mut pair = Pair::start(&[]).await;
    let [first, second] = pair.clients().await.map(|client| config_maps(&client));
    let start = first.list(&ListParams::default()).await.expect("list").metadata.resource_version.expect("a version");
    for number in 0..3 {
        first.create(&PostParams::default(), &config_map(&format!("m{number}"))).await.expect("create");
    }
    let params = WatchParams::default();
    let mut watch = first.watch(&params, &start).await.expect("watch").boxed();
    let Ok(Some(WatchEvent::Added(seen))) = watch.try_next().await else { panic!("an event") };
    pair.servers[0].kill();
    second.create(&PostParams::default(), &config_map("m3")).await.expect("create");
    let last = seen.metadata.resource_version.expect("a version");
    let mut watch = second.watch(&params, &last).await.expect("watch").boxed();
    let mut names = Vec::new();
    while names.len() < 3 {
        match watch.try_next().await.expect("an event").expect("the watch goes on") {
            WatchEvent::Added(map) => names.push(map.metadata.name.expect("a name")),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(names, ["m1", "m2", "m3"]);
}

/// Asks a server to end.
fn terminate(server: &ApiServer) {
    let id = Pid::from_raw(i32::try_from(server.id()).expect("a process id"));
    kill(id, Signal::SIGTERM).expect("it runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_drops_no_request() {
    let pair = Pair::start(&["--shutdown-delay-duration=6s", "--shutdown-watch-termination-grace-period=10s"]).await;
    let client = pair.servers[0].admin().await;
    behind_service(&client, &ADDRESSES).await;
    let maps = config_maps(&client);
    let mut watch = maps.watch(&WatchParams::default(), "0").await.expect("watch").boxed();
    let (failed, answered) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
    let unready = CancellationToken::new();
    // Clients work on until the server has said for a while that it is to be left.
    let workers: Vec<_> = (0..4)
        .map(|number| {
            let (maps, failed, answered, unready) =
                (maps.clone(), Arc::clone(&failed), Arc::clone(&answered), unready.clone());
            tokio::spawn(async move {
                for turn in 0.. {
                    if unready.is_cancelled() {
                        return;
                    }
                    let name = format!("w{number}-{turn}");
                    match maps.create(&PostParams::default(), &config_map(&name)).await {
                        Ok(_) => *answered.lock() += 1,
                        Err(error) => failed.lock().push(error.to_string()),
                    }
                }
            })
        })
        .collect();
    let asked = Instant::now();
    terminate(&pair.servers[0]);
    wait_until("the server to say that it is leaving", || async {
        match client.request_text(http_get("/readyz")).await {
            Err(error) if error.to_string().contains("[-]shutdown failed") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(asked.elapsed() < Duration::from_secs(30));
    let before = *answered.lock();
    wait_until("requests to be answered after that", || async {
        if *answered.lock() > before + 10 { Ok(()) } else { Err(format!("{}", answered.lock())) }
    })
    .await;
    unready.cancel();
    for worker in workers {
        worker.await.expect("a worker");
    }
    assert_eq!(*failed.lock(), Vec::<String>::new());
    let stored = config_maps(&pair.servers[1].admin().await).list(&ListParams::default()).await.expect("list");
    let stored = stored.items.iter().filter(|map| map.metadata.name.as_ref().is_some_and(|name| name.starts_with('w')));
    assert_eq!(stored.count(), *answered.lock(), "what was acknowledged is there");
    // The watch ends as watches do, not in the middle of something.
    let end = tokio::time::timeout(Duration::from_secs(60), async {
        while let Some(event) = watch.next().await {
            event.expect("an event");
        }
    });
    end.await.expect("the watch ends");
}
