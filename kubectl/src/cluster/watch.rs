//! Watches.

use std::time::Duration;

use futures::StreamExt;
use http_body_util::BodyExt;
use kube::client::Body;
use machinery::Status;
use serde_json::Value;
use tokio::time::Instant;

use crate::error::CommandError;

/// A line of a watch that is longer than this is no event.
const LONGEST: usize = 32 * 1024 * 1024;

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// `ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK`.
    pub kind: String,
    /// The object.
    pub object: Value,
}

/// Events as they come.
pub struct Watch {
    body: http_body_util::BodyDataStream<Body>,
    buffer: Vec<u8>,
    /// What has been searched for the end of a line.
    searched: usize,
    /// When `--request-timeout` ends it.
    end: Option<Instant>,
}

impl Watch {
    pub(super) fn new(body: Body, limit: Option<Duration>) -> Self {
        let end = limit.map(|l| Instant::now() + l);
        Self { body: body.into_data_stream(), buffer: Vec::new(), searched: 0, end }
    }

    /// The next event; `None` when the server closed the watch. An `ERROR` event becomes an error.
    pub async fn next(&mut self) -> Result<Option<Event>, CommandError> {
        loop {
            if let Some(at) = self.buffer[self.searched..].iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=self.searched + at).collect();
                self.searched = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return decode(&line).map(Some);
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > LONGEST {
                return Err(CommandError::plain("an event of the watch is too large"));
            }
            let part = match self.end {
                Some(end) => tokio::time::timeout_at(end, self.body.next()).await.unwrap_or(None),
                None => self.body.next().await,
            };
            match part {
                Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
                // The end of a watch is no failure, however it comes.
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }
}

fn decode(line: &[u8]) -> Result<Event, CommandError> {
    let mut event: Value = serde_json::from_slice(line)
        .map_err(|e| CommandError::plain(format!("unable to decode an event from the watch stream: {e}")))?;
    let kind = event["type"].as_str().unwrap_or("").to_owned();
    let object = event["object"].take();
    if kind == "ERROR" {
        return Err(CommandError::server(serde_json::from_value::<Status>(object).unwrap_or_default()));
    }
    Ok(Event { kind, object })
}
