//! From a question to its answer: the cluster's zone, the cache, the upstreams.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{DNSClass, Name, Record, RecordType},
};
use rand::seq::SliceRandom;
use runtime::clock::Clock;

use crate::{
    cache::{Cache, Key},
    corefile::{Block, Config},
    forward::{ForwardError, LoopProbe, Upstreams},
    metrics::DnsMetrics,
    store::Store,
    wire::Request,
    zone::{Found, Zone},
};

/// Names an alias may lead over.
const MAX_ALIASES: usize = 8;

/// A block of the configuration at work.
struct Part {
    block: Block,
    label: String,
    upstreams: Vec<Upstreams>,
    cache: Cache,
}

/// Answers questions by one configuration.
pub(crate) struct Resolver {
    parts: Vec<Part>,
    store: Store,
    metrics: Arc<DnsMetrics>,
    clock: Arc<dyn Clock>,
    probe: LoopProbe,
}

/// An answer and who gave it.
pub(crate) struct Answer {
    pub(crate) message: Message,
    pub(crate) plugin: &'static str,
}

/// What is known without asking anybody else.
pub(crate) enum Local {
    Answer(Answer),
    /// Upstreams must be asked for this name; the records lead to it.
    Ask {
        aliases: Vec<Record>,
        name: Name,
    },
}

impl Resolver {
    pub(crate) fn new(config: &Config, store: Store, metrics: Arc<DnsMetrics>, clock: Arc<dyn Clock>) -> Self {
        let parts = config.blocks.iter().map(|block| Part {
            label: block.zones.first().map_or_else(|| ".".into(), Name::to_ascii),
            upstreams: block.forwards.iter().map(|f| Upstreams::new(f, Arc::clone(&metrics))).collect(),
            cache: Cache::default(),
            block: block.clone(),
        });
        Self { parts: parts.collect(), store, metrics, clock, probe: LoopProbe::default() }
    }

    /// Whether questions about the cluster can be answered.
    pub(crate) fn ready(&self) -> bool {
        self.store.synced()
    }

    /// Searches for upstreams that lead back here.
    pub(crate) async fn find_loops(&self) {
        for part in self.parts.iter().filter(|p| p.block.detect_loops) {
            for upstreams in &part.upstreams {
                upstreams.find_loops(&self.probe).await;
            }
        }
    }

    /// The part with the longest zone around a name.
    fn part(&self, name: &Name) -> Option<&Part> {
        let around = |part: &Part| {
            let zones = part.block.zones.iter().filter(|z| z.zone_of(name));
            zones.map(|z| z.iter().count()).max()
        };
        let found = self.parts.iter().filter_map(|p| Some((around(p)?, p)));
        found.max_by_key(|(length, _)| *length).map(|(_, part)| part)
    }

    /// Name of the zone in metrics.
    pub(crate) fn zone_label(&self, name: &Name) -> &str {
        let Some(part) = self.part(name) else { return "dropped" };
        part.label.as_str()
    }

    /// Whether questions for a name are logged.
    pub(crate) fn logs(&self, name: &Name) -> bool {
        self.part(name).is_some_and(|p| p.block.log)
    }

    /// Seconds since the epoch, as the serial of the zone.
    fn serial(&self) -> u32 {
        let since = self.clock.now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        u32::try_from(since.as_secs() & u64::from(u32::MAX)).unwrap_or(0)
    }

    /// Answers from the cluster's zone, as far as that goes.
    pub(crate) fn local(&self, request: &Request) -> Local {
        let query = &request.query;
        if self.probe.is_own(query) {
            return Local::Answer(Answer { message: request.answer(ResponseCode::ServFail), plugin: "loop" });
        }
        let mut name = query.name().clone();
        let mut aliases = Vec::new();
        let mut code = ResponseCode::NoError;
        for _ in 0..MAX_ALIASES {
            let Some(part) = self.part(&name) else { break };
            let Some(settings) = &part.block.kubernetes else { return Local::Ask { aliases, name } };
            let zone = Zone::new(settings, &self.store);
            let serial = self.serial();
            let found = if settings.origin.zone_of(&name) && !self.store.synced() {
                code = ResponseCode::ServFail;
                break;
            } else {
                zone.find(&name, query.query_type(), serial)
            };
            let (mut records, more) = match found {
                Found::Foreign => return Local::Ask { aliases, name },
                Found::Alias(record, target) => {
                    aliases.push(*record);
                    if !matches!(query.query_type(), RecordType::A | RecordType::AAAA) {
                        break;
                    }
                    name = target;
                    continue;
                }
                Found::Records(records, more) => (records, more),
                Found::NoData | Found::NoName => {
                    let code = if found == Found::NoName { ResponseCode::NXDomain } else { ResponseCode::NoError };
                    let mut message = self.authoritative(request, code, aliases);
                    message.authorities.extend(zone.soa(serial));
                    return Local::Answer(Answer { message, plugin: "kubernetes" });
                }
            };
            if part.block.loadbalance {
                records.shuffle(&mut rand::rng());
            }
            aliases.extend(records);
            let mut message = self.authoritative(request, ResponseCode::NoError, aliases);
            message.additionals = more;
            return Local::Answer(Answer { message, plugin: "kubernetes" });
        }
        if aliases.is_empty() && code == ResponseCode::NoError {
            return Local::Answer(Answer { message: request.answer(ResponseCode::Refused), plugin: "" });
        }
        Local::Answer(Answer { message: self.authoritative(request, code, aliases), plugin: "kubernetes" })
    }

    fn authoritative(&self, request: &Request, code: ResponseCode, answers: Vec<Record>) -> Message {
        let mut message = request.answer(code);
        message.metadata.authoritative = code != ResponseCode::ServFail;
        message.answers = answers;
        message
    }

    /// Answers from the cache or from upstreams.
    pub(crate) async fn remote(&self, request: &Request, aliases: Vec<Record>, name: &Name) -> Answer {
        let mut query = Query::query(name.clone(), request.query.query_type());
        query.set_query_class(DNSClass::IN);
        let (mut message, plugin) = match self.ask(&query, request.flags()).await {
            Ok((message, plugin)) => (request.relay(message), plugin),
            Err(code) if aliases.is_empty() => (request.answer(code), "forward"),
            // The alias itself is known.
            Err(_) => (request.answer(ResponseCode::NoError), "kubernetes"),
        };
        if !aliases.is_empty() {
            let found = std::mem::replace(&mut message.answers, aliases);
            message.answers.extend(found);
        }
        Answer { message, plugin }
    }

    async fn ask(&self, query: &Query, flags: (bool, bool)) -> Result<(Message, &'static str), ResponseCode> {
        let name = query.name();
        let Some(part) = self.part(name) else { return Err(ResponseCode::Refused) };
        let key = Key { name: name.to_lowercase(), kind: query.query_type(), class: query.query_class(), flags };
        if part.block.cache.is_some() {
            let hit = part.cache.get(&key, self.clock.elapsed());
            self.metrics.cached(&part.label, hit.as_ref().map(|m| !m.answers.is_empty()), part.cache.len());
            if let Some(message) = hit {
                return Ok((message, "cache"));
            }
        }
        let upstreams = part.upstreams.iter().filter(|u| u.covers(name));
        let Some(upstreams) = upstreams.max_by_key(|u| u.from.iter().count()) else {
            return Err(ResponseCode::Refused);
        };
        match upstreams.ask(query, flags).await {
            Ok(message) => {
                if let Some(settings) = &part.block.cache {
                    part.cache.put(settings, key, &message, self.clock.elapsed());
                }
                Ok((message, "forward"))
            }
            Err(error) => {
                tracing::warn!(%error, name = %name, kind = %query.query_type(), "a question has no answer");
                let busy = matches!(error, ForwardError::Busy);
                Err(if busy { ResponseCode::Refused } else { ResponseCode::ServFail })
            }
        }
    }
}
