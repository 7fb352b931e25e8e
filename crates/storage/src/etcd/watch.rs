//! Watches of an etcd cluster.

use bytes::Bytes;
use etcd_client::{Event, EventType, WatchRequestSender, WatchResponse, WatchResponseStream};
use futures::{StreamExt, stream, stream::BoxStream};
use tokio::sync::watch;

use super::error::store_error;
use crate::contract::{StoreError, StoreEvent, StoreEventKind, WatchBatch};

/// A watch on its stream.
pub(super) struct Running {
    pub(super) sender: WatchRequestSender,
    pub(super) responses: WatchResponseStream,
    /// Changes when progress is asked for.
    pub(super) progress: watch::Receiver<u64>,
    /// What is put before every key.
    pub(super) root: String,
    pub(super) from: i64,
}

/// The batches of a watch.
pub(super) fn batches(running: Running) -> BoxStream<'static, Result<WatchBatch, StoreError>> {
    stream::unfold(Some(running), |running| async {
        let mut running = running?;
        match running.next().await {
            Ok(batch) => Some((Ok(batch), Some(running))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

impl Running {
    async fn next(&mut self) -> Result<WatchBatch, StoreError> {
        loop {
            tokio::select! {
                changed = self.progress.changed() => {
                    changed.map_err(|_| StoreError::Closed)?;
                    self.sender.request_progress().await.map_err(store_error)?;
                }
                response = self.responses.next() => {
                    let response = response.ok_or_else(|| StoreError::Unavailable("the watch ended".into()))?;
                    if let Some(batch) = self.take(&response.map_err(store_error)?)? {
                        return Ok(batch);
                    }
                }
            }
        }
    }

    fn take(&self, response: &WatchResponse) -> Result<Option<WatchBatch>, StoreError> {
        let revision = response.header().map_or(0, |header| header.revision());
        if response.compact_revision() > 0 {
            let compact_revision = response.compact_revision();
            return Err(StoreError::Compacted { compact_revision, current: revision });
        }
        if response.canceled() {
            return Err(StoreError::Unavailable(format!("the watch was cancelled: {}", response.cancel_reason())));
        }
        if response.created() {
            return Ok(None);
        }
        let events: Vec<StoreEvent> = response.events().iter().filter_map(|event| self.event(event)).collect();
        let last = response.events().iter().filter_map(Event::kv).map(|kv| kv.mod_revision()).max();
        // Only an answer without events tells how far everything has been delivered.
        let revision = match last {
            Some(last) => last,
            None if revision >= self.from - 1 => revision,
            None => return Ok(None),
        };
        Ok(Some(WatchBatch { events, revision }))
    }

    fn event(&self, event: &Event) -> Option<StoreEvent> {
        let kv = event.kv()?;
        let key = key(&self.root, kv.key())?;
        let kind = match event.event_type() {
            EventType::Put => StoreEventKind::Put,
            EventType::Delete => StoreEventKind::Delete,
        };
        Some(StoreEvent {
            revision: kv.mod_revision(),
            kind,
            key,
            value: Bytes::copy_from_slice(kv.value()),
            previous: event.prev_kv().map(|previous| Bytes::copy_from_slice(previous.value())),
            created: kind == StoreEventKind::Put && kv.create_revision() == kv.mod_revision(),
        })
    }
}

/// A key as callers know it. `None` for one that is not text, which we never write.
pub(super) fn key(root: &str, key: &[u8]) -> Option<String> {
    Some(std::str::from_utf8(key).ok()?.strip_prefix(root)?.to_owned())
}
