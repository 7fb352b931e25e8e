//! API priority and fairness: who may run now, who waits for a seat, and who is sent away.
//!
//! A request belongs to a flow of the first schema that matches it, and the schema to a priority level with a number
//! of seats. [`queues`] says whose turn it is within a level, [`shares`] divides the seats of the server among levels,
//! [`estimate`] says how many seats a request needs. All three are pure; this module gives them the clock.

mod demand;
mod details;
mod dump;
mod estimate;
mod level;
mod metrics;
mod queues;
mod schema;
mod shares;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    sync::{Arc, OnceLock, atomic::Ordering},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue};
use machinery::meta;
use prometheus::Registry;
use runtime::clock::Clock;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

pub use self::{dump::router, level::Ticket};
use self::{
    estimate::Work,
    level::{Level, Schema},
    metrics::Metrics,
    queues::{Arrival, Refusal},
    schema::{FlowSchema, PriorityLevel},
    shares::Need,
};
use crate::{
    projection::Projection,
    request::{Query, RequestInfo},
    resource::Resource,
    user::User,
};

static FLOW_SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
static PRIORITY_LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
/// How often seats are divided anew.
const PERIOD: Duration = Duration::from_secs(10);

/// What a request found: the schema that matched it, what it takes, and since when it runs.
#[derive(Default)]
pub struct Found {
    schema: OnceLock<Arc<Schema>>,
    work: OnceLock<Work>,
    began: OnceLock<Instant>,
}

impl Found {
    /// The names of schema and level.
    pub(crate) fn names(&self) -> Option<(&str, &str)> {
        let view = &self.schema.get()?.view;
        Some((&view.metadata.name, &view.spec.priority_level_configuration.name))
    }

    /// Seats while it runs and after, and how long they are taken after.
    pub(crate) fn seats(&self) -> Option<(u32, u32, Duration)> {
        self.work.get().map(|work| (work.initial_seats, work.final_seats, work.after))
    }

    /// Says that the request runs.
    pub(crate) fn runs(&self) {
        self.began.get_or_init(Instant::now);
    }

    /// How long it has run since it was let in.
    pub(crate) fn ran(&self) -> Option<Duration> {
        self.schema.get().and(self.began.get()).map(Instant::elapsed)
    }

    /// Names schema and level in the answer, if the request got as far.
    pub fn mark(&self, headers: &mut HeaderMap) {
        if let Some(schema) = self.schema.get() {
            headers.insert(FLOW_SCHEMA.clone(), schema.uid.clone());
            headers.insert(PRIORITY_LEVEL.clone(), schema.level_uid.clone());
        }
    }
}

/// A request that is sent away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Seconds after which it may be tried again.
    pub retry_after: u32,
}

#[derive(Default)]
struct Config {
    /// In the order in which they are tried.
    schemas: Vec<Arc<Schema>>,
    levels: BTreeMap<String, Arc<Level>>,
    /// Levels that are not configured any more, while requests are in them.
    leaving: Vec<Arc<Level>>,
}

/// Condition `Dangling` of a schema, as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dangling {
    /// The schema.
    pub schema: String,
    /// `True` or `False`.
    pub status: &'static str,
    /// Why, in a word.
    pub reason: &'static str,
    /// Why.
    pub message: String,
}

/// Flow control of a server.
pub struct FlowControl {
    config: ArcSwap<Config>,
    seats: u32,
    longest_wait: Duration,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    /// Clients do not know which flows share queues.
    hashes: RandomState,
}

impl FlowControl {
    /// With `seats` for all levels, and requests that wait for `longest_wait` at most. The mandatory levels and schemas
    /// are there from the start.
    pub fn new(
        seats: u32,
        longest_wait: Duration,
        clock: Arc<dyn Clock>,
        registry: &Registry,
    ) -> Result<Arc<Self>, prometheus::Error> {
        let config = ArcSwap::default();
        let (metrics, hashes) = (Metrics::new(registry)?, RandomState::new());
        let flow = Arc::new(Self { config, seats, longest_wait, clock, metrics, hashes });
        flow.configure(Vec::new(), Vec::new());
        Ok(flow)
    }

    /// Follows the stored levels and schemas, and divides seats anew from time to time, until `stop`. Resolves when
    /// the present ones are in effect.
    pub async fn follow(self: &Arc<Self>, schemas: &Arc<Resource>, levels: &Arc<Resource>, stop: &CancellationToken) {
        let schemas = Projection::<FlowSchema>::follow(schemas, stop);
        let levels = Projection::<PriorityLevel>::follow(levels, stop);
        let (mut schemas_change, mut levels_change) = (schemas.changes(), levels.changes());
        schemas.synced().await;
        levels.synced().await;
        self.configure(schemas.all(), levels.all());
        let this = Arc::clone(self);
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            let mut period_ends = this.clock.sleep(PERIOD);
            loop {
                tokio::select! {
                    Ok(()) = schemas_change.changed() => this.configure(schemas.all(), levels.all()),
                    Ok(()) = levels_change.changed() => this.configure(schemas.all(), levels.all()),
                    () = &mut period_ends => {
                        this.divide();
                        period_ends = this.clock.sleep(PERIOD);
                    }
                }
            }
        }));
    }

    fn configure(&self, stored_schemas: Vec<Arc<FlowSchema>>, stored_levels: Vec<Arc<PriorityLevel>>) {
        let now = self.clock.elapsed();
        let before = self.config.load();
        let wanted_levels = with_mandatory(stored_levels, "PriorityLevelConfiguration", |level| &level.metadata.name);
        let claims: Vec<_> = wanted_levels.iter().map(|level| level.claim()).collect();
        let mut levels = BTreeMap::new();
        for (wanted, bounds) in wanted_levels.iter().zip(shares::bounds(self.seats, &claims)) {
            let name = &wanted.metadata.name;
            let same = before.levels.get(name).filter(|level| level.is_exempt == wanted.is_exempt());
            let level = match same {
                Some(level) => Arc::clone(level),
                None => Arc::new(Level::new(name, wanted.is_exempt(), bounds, now)),
            };
            level.set_bounds(bounds, now);
            level.queues.lock().set_queuing(wanted.queuing());
            let current = level.queues.lock().limit().unwrap_or(bounds.nominal);
            self.metrics.set_seats(name, &bounds, current);
            levels.insert(name.clone(), level);
        }
        let mut leaving: Vec<Arc<Level>> = before.leaving.clone();
        leaving.extend(before.levels.values().filter(|old| !levels.values().any(|new| Arc::ptr_eq(new, old))).cloned());
        leaving.retain(|level| {
            level.is_quiescing.store(true, Ordering::Relaxed);
            !level.queues.lock().is_idle()
        });
        let schemas = self.schemas(stored_schemas, &wanted_levels, &levels);
        self.config.store(Arc::new(Config { schemas, levels, leaving }));
    }

    fn schemas(
        &self,
        stored: Vec<Arc<FlowSchema>>,
        wanted_levels: &[Arc<PriorityLevel>],
        levels: &BTreeMap<String, Arc<Level>>,
    ) -> Vec<Arc<Schema>> {
        let uid = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
        let uids: HashMap<&str, &str> =
            wanted_levels.iter().map(|l| (l.metadata.name.as_str(), l.metadata.uid.as_str())).collect();
        let mut views = with_mandatory(stored, "FlowSchema", |schema| &schema.metadata.name);
        views.sort_by(|a, b| {
            (a.spec.matching_precedence, &a.metadata.name).cmp(&(b.spec.matching_precedence, &b.metadata.name))
        });
        let schema = |view: Arc<FlowSchema>| {
            let name = &view.spec.priority_level_configuration.name;
            let level = Arc::clone(levels.get(name)?);
            Some(Arc::new(Schema {
                uid: uid(&view.metadata.uid),
                level_uid: uid(uids.get(name.as_str()).copied().unwrap_or_default()),
                metrics: self.metrics.of(name, &view.metadata.name),
                level,
                view,
            }))
        };
        views.into_iter().filter_map(schema).collect()
    }

    /// Divides the seats among levels by what they wanted since the last time.
    fn divide(&self) {
        let now = self.clock.elapsed();
        let config = self.config.load();
        let need = |level: &Arc<Level>| {
            let stats = level.queues.lock().take_demand(now);
            let mut allotment = level.allotment.lock();
            allotment.wanted = shares::smooth(allotment.wanted, &stats);
            let (bounds, wanted) = (allotment.bounds, allotment.wanted);
            let need = Need { bounds, high: stats.high, wanted, is_exempt: level.is_exempt };
            self.metrics.set_demand(&level.name, &stats, wanted, need.target());
            need
        };
        let needs: Vec<Need> = config.levels.values().map(need).collect();
        let (given, part) = shares::divide(self.seats, &needs);
        self.metrics.set_part(part);
        for ((level, need), seats) in config.levels.values().zip(&needs).zip(given) {
            self.metrics.set_seats(&level.name, &need.bounds, seats);
            if !level.is_exempt {
                level.queues.lock().set_limit(now, Some(seats));
            }
        }
    }

    /// Conditions of schemas that are not as they should be.
    pub fn dangling(schemas: &[serde_json::Value], levels: &[String]) -> Vec<Dangling> {
        let of = |object: &serde_json::Value| {
            let view = serde_json::from_value::<FlowSchema>(object.clone()).ok()?;
            let level_exists = levels.contains(&view.spec.priority_level_configuration.name);
            let (status, reason, message) = view.dangling(level_exists)?;
            Some(Dangling { schema: meta::name(object).to_owned(), status, reason, message })
        };
        schemas.iter().filter_map(of).collect()
    }

    /// Lets a request through, after it has waited if need be. `resource` is where it works, if that costs more than a
    /// seat. A request that is dropped while it waits leaves its queue.
    pub async fn admit(
        &self,
        info: &RequestInfo,
        query: &Query,
        user: &User,
        resource: Option<&Resource>,
        found: &Found,
    ) -> Result<Option<Ticket>, Refused> {
        let schema = {
            let config = self.config.load();
            config.schemas.iter().find(|schema| schema.view.covers(info, user)).cloned()
        };
        // Schema catch-all matches everybody who is authenticated or is not.
        let Some(schema) = schema else { return Ok(None) };
        found.schema.get_or_init(|| Arc::clone(&schema));
        let level = &schema.level;
        let watches = resource.and_then(|resource| estimate::watches(info, resource));
        let mut work = resource
            .map_or(Work::ONE, |resource| estimate::estimate(info, query, resource, watches, level.most_seats()));
        if level.is_exempt {
            // Nobody waits for what follows.
            work.final_seats = 0;
        }
        found.work.get_or_init(|| work);
        let flow = schema.view.flow(info, user);
        let hash = self.hashes.hash_one((&schema.view.metadata.name, flow));
        let now = self.clock.elapsed();
        let name = &schema.view.metadata.name;
        let arrival = level.queues.lock().arrive(now, work, hash, |details| details.set(name, flow, user, info));
        let metrics = &schema.metrics;
        metrics.work.observe(f64::from(work.most_seats()));
        if let Some(watches) = watches {
            metrics.watch_counts.observe(watches as f64);
        }
        let ticket = |slot, waits| Ticket {
            schema: Arc::clone(&schema),
            clock: Arc::clone(&self.clock),
            slot,
            seats: work.most_seats(),
            is_watch: info.verb == "watch",
            waits,
        };
        match arrival {
            Arrival::Runs(slot) => {
                let mut ticket = ticket(slot, false);
                ticket.begins();
                metrics.waited.observe(0.0);
                Ok(Some(ticket))
            }
            Arrival::Refused(why) => {
                metrics.refused(why, 0.0);
                Err(Refused { retry_after: level.refused(now) })
            }
            Arrival::Waits(slot, woken) => {
                metrics.waiting.inc();
                metrics.waiting_seats.add(i64::from(work.most_seats()));
                metrics.lengths.observe(level.queues.lock().length(slot) as f64);
                self.wait(ticket(slot, true), woken, now).await.map(Some)
            }
        }
    }

    async fn wait(
        &self,
        mut ticket: Ticket,
        woken: tokio::sync::oneshot::Receiver<()>,
        since: Duration,
    ) -> Result<Ticket, Refused> {
        let in_time = tokio::select! {
            told = woken => told.is_ok(),
            () = self.clock.sleep(self.longest_wait) => false,
        };
        let now = self.clock.elapsed();
        let waited = now.saturating_sub(since).as_secs_f64();
        if !in_time && ticket.times_out() {
            ticket.schema.metrics.refused(Refusal::TimeOut, waited);
            return Err(Refused { retry_after: ticket.schema.level.refused(now) });
        }
        ticket.begins();
        ticket.schema.metrics.waited.observe(waited);
        Ok(ticket)
    }
}

/// What is stored, with the mandatory objects that are not.
fn with_mandatory<T: DeserializeOwned>(stored: Vec<Arc<T>>, kind: &str, name: impl Fn(&T) -> &str) -> Vec<Arc<T>> {
    let mut all = stored;
    for object in rules::bootstrap::flow::mandatory() {
        let is_there = all.iter().any(|have| name(have) == meta::name(&object));
        if object["kind"] == kind
            && !is_there
            && let Ok(view) = serde_json::from_value(object)
        {
            all.push(Arc::new(view));
        }
    }
    all
}
