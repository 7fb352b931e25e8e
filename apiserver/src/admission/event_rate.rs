//! EventRateLimit: no more events than the operator wants, of all, of a namespace, of a user, of a thing.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use generic::admission::{AdmissionRequest, Operation, Plugin};
use machinery::{ApiError, ApiResult};
use parking_lot::Mutex;
use runtime::clock::Clock;
use serde::Deserialize;
use serde_json::Value;
use util::TokenBucket;

/// Keys of a limit that are kept where it does not say.
const KEYS: usize = 4096;

/// What has a limit of its own.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(super) enum Kind {
    Server,
    Namespace,
    User,
    SourceAndObject,
}

/// A limit as it is configured.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Limit {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(default)]
    qps: i32,
    #[serde(default)]
    burst: i32,
    #[serde(default)]
    cache_size: i32,
}

impl Limit {
    /// What is wrong with the limit at a place of the list.
    pub(super) fn problems(&self, at: usize) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, value) in [("burst", self.burst), ("qps", self.qps)] {
            if value <= 0 {
                problems.push(format!("limits[{at}].{name}: Invalid value: {value}: must be positive"));
            }
        }
        if self.kind != Kind::Server && self.cache_size < 0 {
            let size = self.cache_size;
            problems.push(format!("limits[{at}].cacheSize: Invalid value: {size}: must not be negative"));
        }
        problems
    }
}

/// The buckets of a limit; those that were used longest ago give way.
#[derive(Default)]
struct Buckets {
    by_key: HashMap<String, (u64, TokenBucket)>,
    by_use: BTreeMap<u64, String>,
    uses: u64,
}

struct Enforcer {
    limit: Limit,
    buckets: Mutex<Buckets>,
}

impl Enforcer {
    fn takes(&self, key: &str, now: Duration) -> bool {
        let (qps, burst) = (f64::from(self.limit.qps), f64::from(self.limit.burst));
        let size = usize::try_from(self.limit.cache_size).ok().filter(|size| *size > 0).unwrap_or(KEYS);
        let mut buckets = self.buckets.lock();
        let Buckets { by_key, by_use, uses } = &mut *buckets;
        *uses += 1;
        let mut bucket = match by_key.get(key) {
            Some((used, bucket)) => {
                by_use.remove(used);
                *bucket
            }
            None => TokenBucket::full(qps, burst, now),
        };
        let takes = bucket.take(now);
        by_use.insert(*uses, key.to_owned());
        by_key.insert(key.to_owned(), (*uses, bucket));
        while by_key.len() > size {
            let Some((_, oldest)) = by_use.pop_first() else { break };
            by_key.remove(&oldest);
        }
        takes
    }
}

/// The plugin.
pub(super) struct EventRateLimit {
    enforcers: Vec<Enforcer>,
    clock: Arc<dyn Clock>,
}

impl EventRateLimit {
    pub(super) fn new(limits: &[Limit], clock: Arc<dyn Clock>) -> Self {
        let enforcer = |limit: &Limit| Enforcer { limit: limit.clone(), buckets: Mutex::default() };
        Self { enforcers: limits.iter().map(enforcer).collect(), clock }
    }

    /// What is said of an event that is one too many.
    fn refusal(&self, key: impl Fn(Kind) -> String) -> Option<String> {
        let now = self.clock.elapsed();
        let mut reached: Vec<String> = Vec::new();
        for enforcer in &self.enforcers {
            let (kind, key) = (enforcer.limit.kind, key(enforcer.limit.kind));
            if !enforcer.takes(&key, now) {
                let text = format!("limit reached on type {kind:?} for key {key}");
                if !reached.contains(&text) {
                    reached.push(text);
                }
            }
        }
        match reached.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            more => Some(format!("[{}]", more.join(", "))),
        }
    }
}

/// Whom an event is from and what it is about.
fn subject(event: &Value) -> String {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let either = |one: &str, other: &str| if text(one).is_empty() { text(other) } else { text(one) }.to_owned();
    let mut parts = vec![
        either("/source/component", "/deprecatedSource/component"),
        either("/source/host", "/deprecatedSource/host"),
    ];
    for field in ["kind", "namespace", "name", "uid", "apiVersion"] {
        parts.push(either(&format!("/involvedObject/{field}"), &format!("/regarding/{field}")));
    }
    parts.concat()
}

#[async_trait]
impl Plugin for EventRateLimit {
    fn name(&self) -> &'static str {
        "EventRateLimit"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.kind.kind == "Event"
            && matches!(request.kind.group.as_str(), "" | "events.k8s.io")
            && matches!(request.operation, Operation::Create | Operation::Update)
            && !request.dry_run
    }

    async fn validate(
        &self,
        request: &AdmissionRequest,
        object: Option<&Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let key = |kind| match kind {
            Kind::Server => String::new(),
            Kind::Namespace => request.namespace.clone(),
            Kind::User => request.user.name.clone(),
            Kind::SourceAndObject => object.map(subject).unwrap_or_default(),
        };
        match self.refusal(key) {
            None => Ok(()),
            Some(why) => Err(ApiError::new(429, machinery::Reason::TooManyRequests, why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use runtime::clock::FakeClock;
    use serde_json::json;

    use super::*;

    fn limit(text: Value) -> Limit {
        serde_json::from_value(text).unwrap()
    }

    #[tokio::test]
    async fn each_key_has_its_own_burst() {
        let clock = FakeClock::new(std::time::SystemTime::UNIX_EPOCH);
        let limits = [
            limit(json!({"type": "Namespace", "qps": 1, "burst": 2, "cacheSize": 2})),
            limit(json!({"type": "Server", "qps": 1, "burst": 5})),
        ];
        let plugin = EventRateLimit::new(&limits, clock.clone());
        let asks = |namespace: &str| {
            let namespace = namespace.to_owned();
            plugin.refusal(move |kind| if kind == Kind::Namespace { namespace.clone() } else { String::new() })
        };
        assert_eq!([asks("a"), asks("a")], [None, None]);
        assert_eq!(asks("a").as_deref(), Some("limit reached on type Namespace for key a"));
        assert_eq!([asks("b"), asks("b")], [None, None]);
        assert_eq!(
            asks("b").as_deref(),
            Some("[limit reached on type Namespace for key b, limit reached on type Server for key ]")
        );
        clock.advance(Duration::from_secs(1));
        assert_eq!(asks("a"), None);
        // A third key drives the oldest out.
        assert_eq!(asks("c").as_deref(), Some("limit reached on type Server for key "));
        assert_eq!(plugin.enforcers[0].buckets.lock().by_key.len(), 2);
    }

    #[test]
    fn both_kinds_of_events_have_a_subject() {
        let old =
            json!({"source": {"component": "kubelet", "host": "n"}, "involvedObject": {"kind": "Pod", "name": "p"}});
        let new = json!({"deprecatedSource": {"component": "kubelet", "host": "n"}, "regarding": {"kind": "Pod", "name": "p"}});
        assert_eq!((subject(&old).as_str(), subject(&old)), ("kubeletnPodp", subject(&new)));
        assert_eq!(limit(json!({"type": "User", "qps": 0, "burst": 1})).problems(2).len(), 1);
    }
}
