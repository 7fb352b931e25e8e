//! Following objects of the API without ever staying behind.
//!
//! kube's watcher recovers from most failures. Here is what a node needs beyond that: short pauses, so that an outage is
//! over for the node when it is over; watches that end often, so that a stream that is silent for ever is noticed; and
//! a new list whenever a version is too old to be watched from, also where the server says so in its first answer.

use std::fmt::Debug;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use rand::Rng;
use serde::de::DeserializeOwned;

/// Seconds until a watch ends; the client waits a little longer for the server to end it.
const WATCH_SECONDS: u32 = 30;
/// Pauses after failures: doubling from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

struct Following<K> {
    api: Api<K>,
    config: watcher::Config,
    stream: BoxStream<'static, watcher::Result<Event<K>>>,
    /// The next pause.
    pause: Duration,
    waits: bool,
}

impl<K> Following<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    fn begin(api: &Api<K>, config: &watcher::Config) -> BoxStream<'static, watcher::Result<Event<K>>> {
        watcher::watcher(api.clone(), config.clone()).boxed()
    }

    async fn next(mut self) -> Option<(watcher::Result<Event<K>>, Self)> {
        if std::mem::take(&mut self.waits) {
            let pause = self.pause.mul_f64(rand::rng().random_range(0.5..1.0));
            tokio::time::sleep(pause).await;
            self.pause = (self.pause * 2).min(PAUSE.1);
        }
        let item = self.stream.next().await?;
        match &item {
            // Only what a server that works says counts as success; the beginning of a list comes from here.
            Ok(Event::Init) => {}
            Ok(_) => self.pause = PAUSE.0,
            Err(error) => {
                self.waits = true;
                if is_expired(error) {
                    self.stream = Self::begin(&self.api, &self.config);
                }
            }
        }
        Some((item, self))
    }
}

/// Events of all objects that match, for ever; errors are for the log only.
pub(crate) fn follow<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = config.timeout(WATCH_SECONDS);
    let stream = Following::begin(&api, &config);
    stream::unfold(Following { api, config, stream, pause: PAUSE.0, waits: false }, Following::next)
}

/// One object by name: its present state whenever it changes, `None` while it does not exist.
pub(crate) fn follow_object<K>(api: Api<K>, name: &str) -> impl Stream<Item = watcher::Result<Option<K>>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let events = follow(api, config).boxed();
    stream::unfold((events, None::<K>), |(mut events, mut listed)| async move {
        loop {
            let state = match events.next().await? {
                Ok(Event::Init) => {
                    listed = None;
                    continue;
                }
                Ok(Event::InitApply(object)) => {
                    listed = Some(object);
                    continue;
                }
                Ok(Event::InitDone) => Ok(listed.take()),
                Ok(Event::Apply(object)) => Ok(Some(object)),
                Ok(Event::Delete(_)) => Ok(None),
                Err(error) => Err(error),
            };
            return Some((state, (events, listed)));
        }
    })
}

/// Whether the version to watch from is too old, so that only a new list helps.
fn is_expired(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => status.code == 410,
        watcher::Error::WatchError(status) => status.code == 410,
        _ => false,
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
