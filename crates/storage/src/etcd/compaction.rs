//! Periodic compaction, once for all apiservers of a cluster: they agree by a compare-and-swap on a key, as upstream's
//! do, so that ours and theirs can share an etcd.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, Txn, TxnOp, TxnOpResponse};

use super::{EtcdStore, revision_of};
use crate::contract::{Store, StoreError};

const KEY: &str = "compact_rev_key";

/// What the last round left for the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionRound {
    /// Version of the agreement key.
    version: i64,
    /// Revision to compact to.
    revision: i64,
}

impl EtcdStore {
    /// Compacts for ever: every `interval`, to the revision that was the latest one interval before.
    pub async fn keep_compacting(&self, interval: Duration) {
        let mut round = CompactionRound::default();
        loop {
            tokio::time::sleep(interval).await;
            match self.compact_round(round).await {
                Ok(next) => round = next,
                Err(error) => tracing::warn!(%error, "etcd compaction failed"),
            }
        }
    }

    /// One round. Only one of those who take part in it compacts.
    pub async fn compact_round(&self, round: CompactionRound) -> Result<CompactionRound, StoreError> {
        let txn = Txn::new()
            .when([Compare::version(KEY, CompareOp::Equal, round.version)])
            .and_then([TxnOp::put(KEY, round.revision.to_string(), None)])
            .or_else([TxnOp::get(KEY, None)]);
        let answer = self.within(async { self.kv().txn(txn).await }).await?;
        let revision = revision_of(answer.header());
        if !answer.succeeded() {
            // Somebody else was first.
            let version = answer.op_responses().iter().find_map(|response| match response {
                TxnOpResponse::Get(found) => found.kvs().first().map(|kv| kv.version()),
                _ => None,
            });
            return Ok(CompactionRound { version: version.unwrap_or(0), revision });
        }
        let next = CompactionRound { version: round.version + 1, revision };
        if round.revision == 0 {
            return Ok(next);
        }
        match self.compact(round.revision).await {
            Ok(()) | Err(StoreError::Compacted { .. }) => Ok(next),
            Err(error) => Err(error),
        }
    }
}
