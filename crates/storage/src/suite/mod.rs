//! What every store must do, as assertions. Each function wants a store of its own or at least a key prefix that
//! nobody else writes to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod reads;
mod watches;
mod writes;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;

pub use self::{reads::*, watches::*, writes::*};
use crate::contract::{Expect, Store, StoreError, StoreEvent, StoreWatch, WatchRange, Written};

/// Longest time a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// A store under test, and a key prefix that is ours.
#[derive(Clone)]
pub struct Subject {
    pub store: Arc<dyn Store>,
    pub prefix: String,
}

impl Subject {
    pub fn new(store: Arc<dyn Store>, prefix: impl Into<String>) -> Self {
        Self { store, prefix: prefix.into() }
    }

    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn create(&self, name: &str, value: &str) -> i64 {
        done(self.put(name, value, Expect::Absent).await)
    }

    async fn update(&self, name: &str, value: &str, revision: i64) -> i64 {
        done(self.put(name, value, Expect::Revision(revision)).await)
    }

    async fn put(&self, name: &str, value: &str, expect: Expect) -> Written {
        let value = Bytes::copy_from_slice(value.as_bytes());
        self.store.put(&self.key(name), value, expect, None).await.expect("put")
    }

    async fn remove(&self, name: &str, revision: i64) -> i64 {
        done(self.store.delete(&self.key(name), Expect::Revision(revision)).await.expect("delete"))
    }

    async fn value(&self, name: &str) -> Option<String> {
        let (found, _) = self.store.get(&self.key(name)).await.expect("get");
        found.map(|kv| String::from_utf8(kv.value.to_vec()).expect("text"))
    }

    async fn watch(&self, from: i64, previous: bool) -> StoreWatch {
        let range = WatchRange { prefix: &self.prefix, from, previous };
        self.store.watch(range).await.expect("watch")
    }
}

fn done(written: Written) -> i64 {
    match written {
        Written::Done { revision } => revision,
        Written::Mismatch { current } => panic!("expected a write, found {current:?}"),
    }
}

/// The next `count` events of a watch.
async fn events(watch: &mut StoreWatch, count: usize) -> Vec<StoreEvent> {
    let mut events = Vec::new();
    while events.len() < count {
        events.extend(batch(watch).await.expect("batch").events);
    }
    assert_eq!(events.len(), count, "{events:?}");
    events
}

async fn batch(watch: &mut StoreWatch) -> Result<crate::contract::WatchBatch, StoreError> {
    let next = tokio::time::timeout(PATIENCE, watch.batches.next()).await;
    next.expect("a watch should bring something").expect("a watch should not end without an error")
}

/// Makes one test of each assertion. `$subject` is an expression that makes a [`Subject`] of the test's name.
#[macro_export]
macro_rules! store_suite {
    ($subject:expr) => {
        $crate::store_suite!(@each $subject;
            writes_are_conditional one_of_many_writers_wins concurrent_writes_all_land keys_expire sizes_are_limited
            ranges_are_ordered_and_bounded long_ranges_are_whole the_past_can_be_read changes_are_noticed
            watches_tell_past_and_present watchers_agree slow_readers_lose_nothing progress_is_told
            compacted_watches_are_refused
        );
    };
    (@each $subject:expr; $($name:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let make = $subject;
                let (subject, _kept) = make(stringify!($name)).await;
                $crate::suite::$name(&subject).await;
            }
        )*
    };
}
