//! A disk that is full: a file system of two megabytes in memory.

use bytes::Bytes;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::*;
use crate::contract::{Expect, Store, Written};

struct TinyDisk(TempDir);

impl TinyDisk {
    fn new(size: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let options = format!("size={size}");
        mount(Some("tmpfs"), directory.path(), Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .expect("mounting needs root");
        Self(directory)
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).expect("unmount");
    }
}

fn options() -> EmbeddedOptions {
    EmbeddedOptions { segment_bytes: 128 << 10, reserve_bytes: 512 << 10, ..EmbeddedOptions::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_values_and_nothing_else() {
    let disk = TinyDisk::new("2m");
    let path = disk.0.path().join("store");
    let store = EmbeddedStore::open(&path, options()).await.expect("open");
    let value = Bytes::from(vec![b'x'; 10_000]);
    let mut written = Vec::new();
    let refused = loop {
        match store.put(&format!("/{}", written.len()), value.clone(), Expect::Absent, None).await {
            Ok(Written::Done { revision }) => written.push(revision),
            other => break other,
        }
        assert!(written.len() < 1000);
    };
    assert_eq!(refused, Err(StoreError::Full));
    assert!(written.len() > 50, "only {} values fit", written.len());
    for (n, revision) in written.iter().enumerate() {
        let (found, _) = store.get(&format!("/{n}")).await.unwrap();
        assert_eq!(found.unwrap().mod_revision, *revision);
    }
    for (n, revision) in written.iter().enumerate().skip(1) {
        let removed = store.delete(&format!("/{n}"), Expect::Revision(*revision)).await;
        assert!(matches!(removed, Ok(Written::Done { .. })), "{n}: {removed:?}");
    }
    // Removals have made room: values are taken again without anybody's help.
    let mut tries = 0;
    while let Err(error) = store.put("/again", value.clone(), Expect::Absent, None).await {
        assert_eq!(error, StoreError::Full);
        tries += 1;
        assert!(tries < 400, "no space was given back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store.close().await;
    let store = EmbeddedStore::open(&path, options()).await.expect("reopen");
    assert_eq!(store.get("/0").await.unwrap().0.unwrap().mod_revision, written[0]);
    assert!(store.get("/again").await.unwrap().0.is_some());
    assert!(store.get("/1").await.unwrap().0.is_none());
    store.close().await;
}
