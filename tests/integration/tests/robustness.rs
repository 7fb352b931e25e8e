//! Several clients work on a few objects while servers and stores are killed, stopped and cut off. Afterwards everything
//! that was answered has to fit one order of events, and every watcher has to have seen exactly that order.
//!
//! `TIMONEL_SEED` makes other choices, `TIMONEL_SECONDS` a longer run.

#[path = "robustness/availability.rs"]
mod availability;
#[path = "robustness/clients.rs"]
mod clients;
#[path = "robustness/cluster.rs"]
mod cluster;
#[path = "robustness/history.rs"]
mod history;
#[path = "robustness/proxy.rs"]
mod proxy;
#[path = "robustness/random.rs"]
mod random;
#[path = "robustness/watchers.rs"]
mod watchers;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use harness::wait_until;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use parking_lot::Mutex;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::{cluster::Cluster, history::History, proxy::Weather, random::Random};

/// Seed of the choices, unless another one is wanted.
const SEED: u64 = 1;
/// Clients that write and read.
const CLIENTS: u64 = 6;
/// Watchers of each server, and as many that go from one to the other.
const WATCHERS: usize = 1;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// One run: clients and faults together, then an end that all watchers reach, then the judgement.
async fn run(mut cluster: Cluster) {
    let seed = from_environment("TIMONEL_SEED", SEED);
    let seconds = from_environment("TIMONEL_SECONDS", 20);
    println!("TIMONEL_SEED={seed} TIMONEL_SECONDS={seconds}");
    let random = Random::new(seed);
    let ends = Instant::now() + Duration::from_secs(seconds);
    let endpoints = cluster.clients().await;
    let history = Arc::new(Mutex::new(History::default()));
    let (working, watching) = (CancellationToken::new(), CancellationToken::new());

    let watched = watchers::start(&endpoints, WATCHERS, &random, &watching).await;
    let workers: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let worker = clients::Worker::new(number, &endpoints, random.fork(number), Arc::clone(&history));
            tokio::spawn(worker.work(working.clone()))
        })
        .collect();
    let faults = cluster.suffer(random.fork(1000), ends).await;
    working.cancel();
    for worker in workers {
        worker.await.expect("a worker");
    }
    cluster.heal().await;
    let last = clients::last_write(&endpoints).await;
    let mut history = std::mem::take(&mut *history.lock());
    for (number, watcher) in watched.into_iter().enumerate() {
        history.segments.extend(watcher.until(last).await.unwrap_or_else(|seen| {
            panic!("watcher {number} does not get to {last}, only to {seen}; TIMONEL_SEED={seed}; {faults:?}")
        }));
    }
    watching.cancel();
    println!("{} faults {faults:?}\n{}", faults.len(), history.summary());
    let wrong = history.violations();
    assert!(wrong.is_empty(), "TIMONEL_SEED={seed}: {} violations\n{}", wrong.len(), shown(&wrong));
    assert!(history.is_telling(), "too little has happened: {}", history.summary());
}

fn shown(wrong: &[String]) -> String {
    wrong.iter().take(20).cloned().collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_store_keeps_its_word() {
    run(Cluster::embedded().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_one_etcd_keep_their_word() {
    run(Cluster::on_etcd(1, 2).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_on_three_etcd_members_keep_their_word() {
    run(Cluster::on_etcd(3, 2).await).await;
}

/// A write that the store carries out while its answer is lost: the server has to say that it does not know.
async fn unanswered<F, O>(write: F, is_done: fn(Option<&ConfigMap>) -> bool)
where
    F: FnOnce(Api<ConfigMap>, ConfigMap) -> O,
    O: Future<Output = kube::Result<()>> + Send + 'static,
{
    let cluster = Cluster::on_etcd(1, 2).await;
    let clients = cluster.clients().await;
    let [maps, others] = [0, 1].map(|server: usize| Api::<ConfigMap>::namespaced(clients[server].clone(), "default"));
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "map"}})).expect("valid");
    let map = maps.create(&PostParams::default(), &map).await.expect("created");

    cluster.set_weather(0, Weather::Deaf);
    let outcome = tokio::spawn(write(maps, map));
    let done = || async {
        let found = others.get_opt("map").await.map_err(|error| error.to_string())?;
        if is_done(found.as_ref()) { Ok(()) } else { Err(format!("{found:?}")) }
    };
    wait_until("the write", done).await;
    cluster.set_weather(0, Weather::Fair);
    match outcome.await.expect("a task") {
        Err(kube::Error::Api(status)) => assert!(status.code >= 500, "{status:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_without_an_answer_is_no_conflict() {
    let update = |maps: Api<ConfigMap>, mut map: ConfigMap| async move {
        map.data = Some([("written".to_owned(), "yes".to_owned())].into());
        maps.replace("map", &PostParams::default(), &map).await.map(drop)
    };
    unanswered(update, |found| found.is_some_and(|map| map.data.is_some())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_without_an_answer_is_not_of_something_else() {
    let delete = |maps: Api<ConfigMap>, _| async move { maps.delete("map", &DeleteParams::default()).await.map(drop) };
    unanswered(delete, |found| found.is_none()).await;
}
