use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use tempfile::TempDir;

use super::*;
use crate::suite::Subject;

/// An etcd of one member, killed when dropped.
pub(crate) struct Etcd {
    child: Child,
    directory: TempDir,
    client: String,
    peer: String,
    extra: Vec<String>,
}

impl Etcd {
    /// Starts one on free ports.
    pub(crate) fn start(extra: &[&str]) -> Self {
        let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [client, peer] = ports.map(|port| format!("http://{}", port.local_addr().unwrap()));
        let directory = TempDir::new().unwrap();
        let extra = extra.iter().map(|&flag| flag.to_owned()).collect();
        let child = Self::spawn(&directory, &client, &peer, &extra);
        Self { child, directory, client, peer, extra }
    }

    fn spawn(directory: &TempDir, client: &str, peer: &str, extra: &Vec<String>) -> Child {
        Command::new("etcd")
            .args(["--name=test", "--logger=zap", "--log-level=error", "--data-dir"])
            .arg(directory.path())
            .args([format!("--listen-client-urls={client}"), format!("--advertise-client-urls={client}")])
            .args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")])
            .arg(format!("--initial-cluster=test={peer}"))
            .args(extra)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd must be installed")
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again with the same data.
    pub(crate) fn restart(&mut self) {
        self.child = Self::spawn(&self.directory, &self.client, &self.peer, &self.extra);
    }

    /// A store on it, once it answers.
    pub(crate) async fn store(&self) -> EtcdStore {
        let store = EtcdStore::connect(EtcdOptions::new(vec![self.client.clone()])).await.expect("connect");
        answered(&store).await;
        store
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl EtcdStore {
    /// For an old etcd that is not busy, whose answers do not overtake events.
    pub(crate) fn assume_progress_in_order(&self) {
        self.progress_is.store(RELIABLE, Ordering::Release);
    }
}

/// Waits until etcd answers.
async fn answered(store: &EtcdStore) {
    for _ in 0..200 {
        if store.current_revision().await.is_ok() {
            store.learn_version().await;
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("etcd does not answer");
}

async fn subject(name: &str) -> (Subject, Etcd) {
    let etcd = Etcd::start(&[]);
    let store = Arc::new(etcd.store().await);
    (Subject::new(store, format!("/registry/{name}/")), etcd)
}

mod suite {
    crate::store_suite!(super::subject);
}

#[tokio::test]
async fn an_etcd_that_is_not_there_is_an_error_in_time() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = EtcdOptions::new(vec![format!("http://{}", port.local_addr().unwrap())]);
    drop(port);
    options.deadline = Duration::from_millis(500);
    let started = Instant::now();
    let store = EtcdStore::connect(options).await.expect("connecting does not fail");
    assert!(!store.proves_progress());
    let errors = [
        store.get("/a").await.map(|_| ()).unwrap_err(),
        store.put("/a", Bytes::new(), Expect::Absent, None).await.map(|_| ()).unwrap_err(),
        store.range(Range::default()).await.map(|_| ()).unwrap_err(),
        store.current_revision().await.map(|_| ()).unwrap_err(),
        store.watch(WatchRange { prefix: "/", from: 1, previous: false }).await.map(|_| ()).unwrap_err(),
    ];
    for error in errors {
        assert!(error.retryable() && matches!(error, StoreError::Unavailable(_) | StoreError::Timeout), "{error:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_store_reconnects() {
    let mut etcd = Etcd::start(&[]);
    let store = etcd.store().await;
    let subject = Subject::new(Arc::new(etcd.store().await), "/registry/x/");
    crate::suite::writes_are_conditional(&subject).await;
    let before = store.get(&subject.key("a")).await.unwrap().0.unwrap();
    etcd.kill();
    etcd.restart();
    answered(&store).await;
    assert_eq!(store.get(&subject.key("a")).await.unwrap().0.unwrap(), before);
}

#[tokio::test]
async fn a_full_etcd_is_full() {
    // The quota is looked at now and then only.
    let etcd = Etcd::start(&["--quota-backend-bytes=1048576"]);
    let store = etcd.store().await;
    let value = Bytes::from(vec![b'x'; 64 << 10]);
    let mut refused = None;
    for n in 0..1000 {
        if let Err(error) = store.put(&format!("/{n}"), value.clone(), Expect::Absent, None).await {
            refused = Some(error);
            break;
        }
    }
    assert_eq!(refused, Some(StoreError::Full));
    let (first, _) = store.get("/0").await.unwrap();
    let removed = store.delete("/0", Expect::Revision(first.unwrap().mod_revision)).await;
    assert!(matches!(removed, Ok(Written::Done { .. })), "{removed:?}");
}

#[tokio::test]
async fn events_share_leases() {
    let etcd = Etcd::start(&[]);
    let store = etcd.store().await;
    let ttl = Some(Duration::from_secs(3600));
    for n in 0..20 {
        store.put(&format!("/{n}"), Bytes::from_static(b"v"), Expect::Absent, ttl).await.unwrap();
    }
    let leases = store.client.lease_client().leases().await.unwrap();
    assert_eq!(leases.leases().len(), 1);
    let other = Some(Duration::from_secs(15));
    store.put("/other", Bytes::from_static(b"v"), Expect::Absent, other).await.unwrap();
    assert_eq!(store.client.lease_client().leases().await.unwrap().leases().len(), 2);
    // A lease that went too soon is replaced.
    for lease in leases.leases() {
        store.client.lease_client().revoke(lease.id()).await.unwrap();
    }
    store.put("/new", Bytes::from_static(b"v"), Expect::Absent, ttl).await.unwrap();
    assert!(store.get("/new").await.unwrap().0.is_some());
    assert!(store.get("/0").await.unwrap().0.is_none());
}

#[tokio::test]
async fn apiservers_agree_who_compacts() {
    let etcd = Etcd::start(&[]);
    let store = etcd.store().await;
    let mut rounds = [compaction::CompactionRound::default(); 2];
    for n in 0..4 {
        store.put(&format!("/{n}"), Bytes::from_static(b"v"), Expect::Absent, None).await.unwrap();
        for round in &mut rounds {
            *round = store.compact_round(*round).await.unwrap();
        }
    }
    let refused = store.range(Range { revision: Some(2), ..Range::default() }).await;
    assert!(matches!(refused, Err(StoreError::Compacted { .. })));
    let kept = store.range(Range { revision: Some(store.current_revision().await.unwrap()), ..Range::default() }).await;
    assert_eq!(kept.unwrap().items.len(), 5);
}

#[tokio::test]
async fn a_root_is_put_before_keys() {
    let etcd = Etcd::start(&[]);
    let mut options = EtcdOptions::new(vec![etcd.client.clone()]);
    options.root = "/registry".into();
    let plain = etcd.store().await;
    let rooted = EtcdStore::connect(options).await.unwrap();
    let outside = plain.put("/pods/x", Bytes::from_static(b"1"), Expect::Absent, None).await.unwrap();
    assert!(matches!(outside, Written::Done { .. }));
    let subject = Subject::new(Arc::new(rooted), "/pods/");
    crate::suite::watches_tell_past_and_present(&subject).await;
    let page = subject.store.range(Range { prefix: "/pods/", ..Range::default() }).await.unwrap();
    assert_eq!(page.items.iter().map(|kv| kv.key.as_str()).collect::<Vec<_>>(), ["/pods/b"]);
    assert!(plain.get("/registry/pods/b").await.unwrap().0.is_some());
}

#[test]
fn versions_that_report_progress_in_order() {
    for (version, good) in
        [("3.4.23", false), ("3.4.25", true), ("3.5.7", false), ("3.5.21", true), ("3.6.0-rc.1", true), ("", false)]
    {
        assert_eq!(reports_progress_in_order(version), good, "{version}");
    }
}
