//! A process that writes is killed, again and again; whatever it was told is written must be there.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write as _},
    process::{Command, Stdio},
};

use bytes::Bytes;

use super::*;
use crate::contract::{Expect, Range, Store, Written};

const DIRECTORY: &str = "STORAGE_CRASH_TEST_DIRECTORY";
const ROUNDS: u64 = 25;

/// The child: writes as fast as it can from several tasks and prints each write once it is acknowledged. In a normal
/// test run, without the variable, there is nothing to do.
#[test]
fn child_writes_until_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = Arc::new(EmbeddedStore::open(directory, small()).await.expect("open"));
        let page = store.range(Range::default()).await.expect("range");
        let present: HashMap<String, i64> = page.items.into_iter().map(|kv| (kv.key, kv.mod_revision)).collect();
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..8_u64 {
            tasks.spawn(write_for_ever(Arc::clone(&store), present.clone(), task));
        }
        tasks.spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(7)).await;
                let revision = store.current_revision().await.unwrap();
                drop(store.compact(revision).await);
            }
        });
        tasks.join_all().await;
    });
}

async fn write_for_ever(store: Arc<EmbeddedStore>, mut present: HashMap<String, i64>, task: u64) {
    for n in 0_u64.. {
        let key = format!("/{task}/{}", n % 50);
        let expect = present.get(&key).map_or(Expect::Absent, |revision| Expect::Revision(*revision));
        let delete = n % 7 == 3 && expect != Expect::Absent;
        let size = (n * 37 + task) % 3000;
        let written = if delete {
            store.delete(&key, expect).await
        } else {
            store.put(&key, Bytes::from(vec![b'v'; size as usize]), expect, None).await
        };
        let Ok(Written::Done { revision }) = written else { panic!("{written:?}") };
        if delete {
            present.remove(&key);
        } else {
            present.insert(key.clone(), revision);
        }
        // One write per line, so that the parent never sees half an acknowledgement as one.
        let line = format!("ack {key} {revision} {}\n", if delete { -1 } else { size as i64 });
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_a_kill() {
    let directory = TempDir::new().unwrap();
    let mut acknowledged: HashMap<String, (i64, i64)> = HashMap::new();
    let mut total = 0;
    for round in 0..ROUNDS {
        let lines = run_and_kill(&directory, 40 + round * 61 % 400);
        for line in lines {
            // The last line may be cut.
            let fields: Vec<_> = line.split(' ').collect();
            let ["ack", key, revision, size] = fields[..] else { continue };
            let (Ok(revision), Ok(size)) = (revision.parse(), size.parse()) else { continue };
            acknowledged.insert(key.to_owned(), (revision, size));
            total += 1;
        }
        let store = open(&directory).await;
        let page = store.range(Range::default()).await.expect("every value can be read");
        let present: HashMap<_, _> =
            page.items.iter().map(|kv| (kv.key.as_str(), (kv.mod_revision, kv.value.len() as i64))).collect();
        for (key, (revision, size)) in &acknowledged {
            match present.get(key.as_str()) {
                // A later write may have been made without its acknowledgement having been read.
                Some((found, found_size)) => assert!(
                    (found, found_size) == (revision, size) || found > revision,
                    "round {round}: {key} was acknowledged at {revision}, found at {found}"
                ),
                None => {
                    assert!(*size < 0 || removed_later(&store, key, *revision).await, "round {round}: {key} is lost")
                }
            }
        }
        for (key, (revision, size)) in present {
            acknowledged.insert(key.to_owned(), (revision, size));
        }
        acknowledged.retain(|key, _| page.items.iter().any(|kv| kv.key == *key));
        store.close().await;
    }
    assert!(total > 500, "only {total} writes were acknowledged in all rounds");
}

/// Whether the store's history has the key removed after `revision`, by a write that was not acknowledged any more.
async fn removed_later(store: &EmbeddedStore, key: &str, revision: i64) -> bool {
    let index = store.index.read();
    index.entry(key).is_some_and(|(_, entry)| entry.latest.deleted && entry.latest.revision > revision)
        // Compacted already: then it was the very last thing done.
        || index.compact_revision > revision
}

/// Runs a child until it has acknowledged `writes` writes, kills it, and returns its lines.
fn run_and_kill(directory: &TempDir, writes: u64) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::tests::crash::child_writes_until_killed", "--nocapture"])
        .env(DIRECTORY, directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut lines = Vec::new();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).unwrap() > 0 {
        lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
        if lines.len() as u64 == writes {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    lines
}
