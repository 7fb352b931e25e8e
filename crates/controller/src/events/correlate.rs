//! Which events are written, and how: spam filter, aggregation of similar ones, counting of equal ones.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, SystemTime},
};

use k8s_openapi::api::core::v1::EventSource;
use util::TokenBucket;

use super::Told;

/// Keys remembered per purpose.
const CACHE: usize = 4096;
/// Events about one object from one source: at once, and seconds for one more.
const SPAM_BURST: f64 = 25.0;
const SPAM_SECONDS: f64 = 300.0;
/// Similar events, and the time between two of them, up to which each keeps its own message.
const SIMILAR: usize = 10;
const SIMILAR_WITHIN: Duration = Duration::from_secs(600);
const COMBINED: &str = "(combined from similar events): ";

/// How an event is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    /// What to remember the written event by.
    pub(super) key: String,
    /// Message to write.
    pub(super) message: String,
    /// How often it occurred.
    pub(super) count: i32,
    /// First occurrence.
    pub(super) first: SystemTime,
    /// Name of the event to update; `None` for a new one.
    pub(super) update: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Drop,
    Write(Written),
}

struct Similar {
    messages: HashSet<String>,
    /// More than [`SIMILAR`] messages came within the time.
    many: bool,
    last: SystemTime,
}

struct Seen {
    count: i32,
    first: SystemTime,
    name: Option<String>,
}

#[derive(Default)]
pub(super) struct Correlator {
    buckets: Recent<String, TokenBucket>,
    similar: Recent<String, Similar>,
    seen: Recent<String, Seen>,
}

impl Correlator {
    pub(super) fn decide(&mut self, source: &EventSource, told: &Told) -> Decision {
        let about = format!(
            "{}|{}|{}|{}|{}|{}|{}",
            source.component.as_deref().unwrap_or_default(),
            source.host.as_deref().unwrap_or_default(),
            told.about.kind.as_deref().unwrap_or_default(),
            told.about.namespace.as_deref().unwrap_or_default(),
            told.about.name.as_deref().unwrap_or_default(),
            told.about.uid.as_deref().unwrap_or_default(),
            told.about.api_version.as_deref().unwrap_or_default(),
        );
        if self.is_spam(&about, told.at) {
            return Decision::Drop;
        }
        let kind = told.kind.text();
        let group = format!("{about}|{kind}|{}", told.reason);
        let path = told.about.field_path.as_deref().unwrap_or_default();
        let (key, message) = if self.is_one_of_many(&group, &told.message, told.at) {
            (group, format!("{COMBINED}{}", told.message))
        } else {
            (format!("{group}|{path}|{}", told.message), told.message.clone())
        };
        let seen = self.seen.entry(&key, || Seen { count: 0, first: told.at, name: None });
        seen.count = seen.count.saturating_add(1);
        Decision::Write(Written { key, message, count: seen.count, first: seen.first, update: seen.name.clone() })
    }

    /// Remembers under which name an event was written.
    pub(super) fn wrote(&mut self, key: &str, name: String) {
        if let Some(seen) = self.seen.get(key) {
            seen.name = Some(name);
        }
    }

    fn is_spam(&mut self, about: &str, now: SystemTime) -> bool {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        !self.buckets.entry(about, || TokenBucket::full(1.0 / SPAM_SECONDS, SPAM_BURST, now)).take(now)
    }

    fn is_one_of_many(&mut self, group: &str, message: &str, now: SystemTime) -> bool {
        let similar = self.similar.entry(group, || Similar { messages: HashSet::new(), many: false, last: now });
        if now.duration_since(similar.last).unwrap_or_default() > SIMILAR_WITHIN {
            similar.messages.clear();
            similar.many = false;
        }
        similar.last = now;
        if similar.messages.len() < SIMILAR || similar.messages.contains(message) && !similar.many {
            similar.messages.insert(message.to_owned());
            return false;
        }
        // Once there are too many the set need not grow further.
        similar.many = true;
        true
    }
}

/// A map that forgets what was used longest ago.
struct Recent<K, V> {
    entries: HashMap<K, (u64, V)>,
    tick: u64,
}

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), tick: 0 }
    }
}

impl<V> Recent<String, V> {
    fn entry(&mut self, key: &str, make: impl FnOnce() -> V) -> &mut V {
        self.tick += 1;
        if !self.entries.contains_key(key) && self.entries.len() >= CACHE {
            self.forget_half();
        }
        let tick = self.tick;
        let (used, value) = self.entries.entry(key.to_owned()).or_insert_with(|| (tick, make()));
        *used = tick;
        value
    }

    fn get(&mut self, key: &str) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(_, v)| v)
    }

    /// Half at a time, so that the cost per entry stays constant.
    fn forget_half(&mut self) {
        let mut ages: Vec<u64> = self.entries.values().map(|(used, _)| *used).collect();
        let middle = ages.len() / 2;
        let (_, limit, _) = ages.select_nth_unstable(middle);
        let limit = *limit;
        self.entries.retain(|_, (used, _)| *used >= limit);
    }
}
