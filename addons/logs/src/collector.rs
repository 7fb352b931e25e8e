//! The loop: look, read, send, remember.

use std::{path::PathBuf, sync::Arc, time::Duration};

use runtime::{CancellationToken, clock::Clock};
use util::Backoff;

use crate::{
    metrics::LogMetrics,
    positions,
    record::Record,
    sink::{Sink, SinkError},
    tails::{Batch, Tails},
};

/// Time between writes of the positions.
const SAVE: Duration = Duration::from_secs(1);
/// Pauses between attempts.
const RETRY: Backoff = Backoff::doubling(Duration::from_millis(500), Duration::from_secs(30));
/// Time for the last batch when the process ends.
const LAST_CALL: Duration = Duration::from_secs(5);

/// The collector.
pub(crate) struct Collector {
    pub(crate) tails: Tails,
    pub(crate) sink: Sink,
    pub(crate) position_file: PathBuf,
    pub(crate) poll_interval: Duration,
    pub(crate) metrics: Arc<LogMetrics>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stop: CancellationToken,
}

/// The files are with somebody who died.
#[derive(Debug, thiserror::Error)]
#[error("reading of logs failed: {0}")]
pub(crate) struct Died(#[from] tokio::task::JoinError);

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delivery {
    Done,
    /// The process ends first.
    Stopped,
}

/// Does something with the files where it may block.
async fn blocking<T: Send + 'static>(
    mut tails: Tails,
    work: impl FnOnce(&mut Tails) -> T + Send + 'static,
) -> Result<(Tails, T), Died> {
    let done = tokio::task::spawn_blocking(move || {
        let out = work(&mut tails);
        (tails, out)
    });
    Ok(done.await?)
}

/// What does not change.
struct Setting {
    sink: Sink,
    position_file: PathBuf,
    poll_interval: Duration,
    metrics: Arc<LogMetrics>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
}

impl Collector {
    /// Collects until the order to stop.
    pub(crate) async fn run(self) -> Result<(), Died> {
        let Self { mut tails, sink, position_file, poll_interval, metrics, clock, stop } = self;
        let setting = Setting { sink, position_file, poll_interval, metrics, clock, stop };
        let mut saved = setting.clock.elapsed();
        let mut dirty = true;
        loop {
            let batch: Batch;
            (tails, batch) = blocking(tails, |tails| {
                tails.rescan();
                tails.read()
            })
            .await?;
            setting.measure(&tails, &batch);
            let idle = batch.records.is_empty() && batch.looked.bytes == 0;
            if !batch.records.is_empty() {
                let delivery;
                (tails, delivery) = setting.deliver(tails, batch.records).await?;
                if delivery == Delivery::Stopped {
                    break;
                }
            }
            tails.commit();
            dirty |= !idle;
            if dirty && setting.clock.elapsed().saturating_sub(saved) >= SAVE {
                tails = setting.save(tails).await?;
                (saved, dirty) = (setting.clock.elapsed(), false);
            }
            if idle {
                tokio::select! {
                    () = setting.stop.cancelled() => {}
                    () = setting.clock.sleep(setting.poll_interval) => {}
                }
            }
            if setting.stop.is_cancelled() {
                break;
            }
        }
        setting.save(tails).await?;
        Ok(())
    }
}

impl Setting {
    fn measure(&self, tails: &Tails, batch: &Batch) {
        let (files, lag) = tails.state();
        self.metrics.files.set(i64::try_from(files).unwrap_or(i64::MAX));
        self.metrics.lag.set(i64::try_from(lag).unwrap_or(i64::MAX));
        self.metrics.read_bytes.inc_by(batch.looked.bytes);
        self.metrics.malformed.inc_by(batch.looked.malformed);
    }

    async fn save(&self, tails: Tails) -> Result<Tails, Died> {
        let path = self.position_file.clone();
        let (tails, saved) = blocking(tails, move |tails| positions::save(&path, tails.positions())).await?;
        if let Err(error) = saved {
            tracing::warn!(%error, path = %self.position_file.display(), "Positions cannot be written");
        }
        Ok(tails)
    }

    /// Sends records until they have arrived, or never will.
    async fn deliver(&self, mut tails: Tails, records: Vec<Record>) -> Result<(Tails, Delivery), Died> {
        let mut parts = vec![Arc::<[Record]>::from(records)];
        let mut failures = 0;
        while let Some(part) = parts.pop() {
            let outcome;
            (tails, outcome) = self.attempt(tails, &part).await?;
            match outcome {
                None => return Ok((tails, Delivery::Stopped)),
                Some(Ok(())) => {
                    failures = 0;
                    for record in part.iter() {
                        self.metrics.records.with_label_values(&[record.stream.as_str()]).inc();
                    }
                }
                Some(Err(SinkError::TooLarge)) if part.len() > 1 => {
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([Arc::from(second), Arc::from(first)]);
                }
                Some(Err(error @ (SinkError::Never(_) | SinkError::TooLarge))) => {
                    tracing::error!(%error, records = part.len(), "Lines are refused and dropped");
                    self.metrics.dropped.inc_by(part.len() as u64);
                }
                Some(Err(SinkError::Later(error))) => {
                    tracing::warn!(error, failures, "Lines cannot be sent yet");
                    parts.push(part);
                    tails = self.wait(tails, RETRY.jittered(failures)).await?;
                    failures = failures.saturating_add(1);
                    if self.stop.is_cancelled() {
                        return Ok((tails, Delivery::Stopped));
                    }
                }
            }
        }
        Ok((tails, Delivery::Done))
    }

    /// One attempt. Files are looked after meanwhile; `None` if the process ends first.
    async fn attempt(
        &self,
        mut tails: Tails,
        part: &Arc<[Record]>,
    ) -> Result<(Tails, Option<Result<(), SinkError>>), Died> {
        let start = self.clock.elapsed();
        let mut sending = std::pin::pin!(self.sink.send(part));
        let outcome = loop {
            tokio::select! {
                outcome = &mut sending => break outcome,
                () = self.clock.sleep(self.poll_interval) => (tails, ()) = blocking(tails, Tails::rescan).await?,
                () = self.stop.cancelled() => match tokio::time::timeout(LAST_CALL, &mut sending).await {
                    Ok(outcome) => break outcome,
                    Err(_) => return Ok((tails, None)),
                },
            }
        };
        self.metrics.send_duration.observe(self.clock.elapsed().saturating_sub(start).as_secs_f64());
        self.metrics.sends.with_label_values(&[if outcome.is_ok() { "ok" } else { "failed" }]).inc();
        Ok((tails, Some(outcome)))
    }

    /// A pause in which files are looked after.
    async fn wait(&self, mut tails: Tails, pause: Duration) -> Result<Tails, Died> {
        let end = self.clock.elapsed() + pause;
        while !self.stop.is_cancelled() && self.clock.elapsed() < end {
            let left = end.saturating_sub(self.clock.elapsed()).min(self.poll_interval);
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = self.clock.sleep(left) => {}
            }
            (tails, ()) = blocking(tails, Tails::rescan).await?;
        }
        Ok(tails)
    }
}

#[cfg(test)]
mod tests;
