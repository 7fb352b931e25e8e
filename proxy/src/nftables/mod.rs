//! Mode nftables: a table of its own, written through netlink, one transaction for each synchronization.
//!
//! What a Service has is told from what rules were written for, so a change sends only chains and elements that
//! differ. Chains that are not used any more are emptied at once and deleted with a later transaction.

mod expr;
mod frame;
mod rules;
mod style;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use async_trait::async_trait;
use controller::{Informer, InformerConfig, start_informer};
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::{Api, Client};
use runtime::Runtime;
use tokio::time::Instant;

use style::Spread;
pub(crate) use style::Style;

use crate::{
    backend::{Applied, Backend, BackendError, Work},
    family::Family,
    metrics::FamilyMetrics,
    netlink::NetlinkError,
};
use rules::{Key, Rule, Rules, Set, render};
use wire::{Batch, Data, Kind, SetSpec, Target, Verdict};

/// Rules are looked for every sync period, and written when they are gone; nothing else is to be found unasked.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Time after which what is not used is deleted.
const LATER: Duration = Duration::from_secs(1);

/// With more service ports than this, a Service has no map of its own.
const LARGE: usize = 1000;
/// Endpoints that may be gone through one by one.
const FEW: usize = 32;

/// The ranges of a ServiceCIDR.
pub(crate) type Ranges = Vec<IpNet>;

/// Follows the ranges that cluster IPs are taken from.
pub(crate) fn ranges(client: Client, runtime: &Runtime) -> Informer<Ranges> {
    let project = |object: ServiceCIDR| {
        let spec = object.spec.unwrap_or_default();
        spec.cidrs.iter().flatten().filter_map(|range| range.parse().ok()).collect()
    };
    start_informer(&runtime.tasks, Api::<ServiceCIDR>::all(client), InformerConfig::default(), &[], project)
}

/// What an element leads to, and how many Services want it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    verdict: Option<Verdict>,
    owners: u32,
}

/// The elements that are written, with those that several Services want.
#[derive(Clone, Debug, Default)]
struct ElementSet {
    entries: HashMap<Key, Entry>,
    /// Keys that Services disagree about.
    contested: BTreeSet<Key>,
}

/// What to write to get from one set of elements to another.
type Touched = BTreeMap<Key, Option<Option<Verdict>>>;

impl ElementSet {
    fn touch(&self, touched: &mut Touched, key: &Key) {
        touched.entry(key.clone()).or_insert_with(|| self.entries.get(key).map(|entry| entry.verdict.clone()));
    }

    fn add(&mut self, touched: &mut Touched, key: Key, verdict: Option<Verdict>) {
        self.touch(touched, &key);
        match self.entries.get_mut(&key) {
            Some(entry) if entry.verdict == verdict => entry.owners += 1,
            // Who came first keeps it.
            Some(_) => drop(self.contested.insert(key)),
            None => drop(self.entries.insert(key, Entry { verdict, owners: 1 })),
        }
    }

    /// Whether somebody else may want the element now.
    fn remove(&mut self, touched: &mut Touched, key: &Key, verdict: Option<&Verdict>) -> bool {
        self.touch(touched, key);
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.verdict.as_ref() == verdict) else {
            return false;
        };
        entry.owners -= 1;
        if entry.owners == 0 {
            self.entries.remove(key);
            return self.contested.contains(key);
        }
        false
    }
}

/// The rules of one family.
pub(crate) struct Nftables {
    style: Style,
    service_ranges: Informer<Ranges>,
    /// Ranges that are written.
    written: Vec<IpNet>,
    elements: ElementSet,
    stale_chains: BTreeSet<String>,
    stale_sets: BTreeSet<String>,
    emptied: Option<Instant>,
    metrics: FamilyMetrics,
}

impl Nftables {
    pub(crate) fn new(style: Style, service_ranges: Informer<Ranges>, metrics: FamilyMetrics) -> Self {
        Self {
            style,
            service_ranges,
            written: Vec::new(),
            elements: ElementSet::default(),
            stale_chains: BTreeSet::new(),
            stale_sets: BTreeSet::new(),
            emptied: None,
            metrics,
        }
    }

    fn wanted_ranges(&self) -> Vec<IpNet> {
        let mut all: Vec<IpNet> = self.service_ranges.list().iter().flat_map(|ranges| ranges.view.clone()).collect();
        all.sort();
        all.dedup();
        all
    }

    fn full(&mut self, work: &Work<'_>) -> Batch {
        let mut batch = Batch::new(self.style.family);
        self.style.spread = if work.model.ports().count() > LARGE { Spread::Rules } else { Spread::Map };
        self.written = self.wanted_ranges();
        self.elements = ElementSet::default();
        self.stale_chains.clear();
        self.stale_sets.clear();
        frame::write(&mut batch, &self.style, &self.written);
        let mut touched = Touched::new();
        for (_, ports) in work.model.iter() {
            let rules = render(ports, self.style.node_ip);
            write_chains(&mut batch, &self.style, &rules, &Rules::default());
            for (key, verdict) in rules.elements {
                self.elements.add(&mut touched, key, verdict);
            }
        }
        write_elements(&mut batch, &self.elements, &touched);
        batch
    }

    /// `None` if only a full synchronization will do.
    fn partial(&mut self, work: &Work<'_>) -> Option<Batch> {
        let mut batch = Batch::new(self.style.family);
        self.delete_stale(&mut batch);
        let ranges = self.wanted_ranges();
        if ranges != self.written {
            self.written = ranges;
            frame::cluster_ips(&mut batch, &self.style, &self.written);
        }
        let mut touched = Touched::new();
        let rendered = |ports: Option<&crate::model::Ports>| {
            ports.map_or_else(Rules::default, |ports| render(ports, self.style.node_ip))
        };
        let differences: Vec<(Rules, Rules)> =
            work.changed.iter().map(|c| (rendered(c.old.as_ref()), rendered(c.new.as_ref()))).collect();
        for (old, new) in &differences {
            // A set keeps the time that it was made with.
            if old.sets.iter().any(|(name, time)| new.sets.get(name).is_some_and(|now| now != time)) {
                return None;
            }
            for name in new.chains.keys() {
                self.stale_chains.remove(name);
            }
            for name in new.sets.keys() {
                self.stale_sets.remove(name);
            }
            write_chains(&mut batch, &self.style, new, old);
            for (key, verdict) in &old.elements {
                if self.elements.remove(&mut touched, key, verdict.as_ref()) {
                    return None;
                }
            }
        }
        for (old, new) in differences {
            for (key, verdict) in new.elements {
                self.elements.add(&mut touched, key, verdict);
            }
            for name in old.chains.into_keys().filter(|name| !new.chains.contains_key(name)) {
                batch.flush_chain(&name);
                self.stale_chains.insert(name);
            }
            self.stale_sets.extend(old.sets.into_keys().filter(|name| !new.sets.contains_key(name)));
        }
        write_elements(&mut batch, &self.elements, &touched);
        Some(batch)
    }

    fn delete_stale(&mut self, batch: &mut Batch) {
        if self.emptied.is_some_and(|at| at.elapsed() < LATER) {
            return;
        }
        for name in std::mem::take(&mut self.stale_chains) {
            batch.delete_chain(&name);
        }
        for name in std::mem::take(&mut self.stale_sets) {
            batch.delete_set(&name);
        }
    }
}

/// Writes the chains and sets of a Service that differ from those that are there.
fn write_chains(batch: &mut Batch, style: &Style, new: &Rules, old: &Rules) {
    for (name, seconds) in new.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
        let key = [Kind::Address(style.family)];
        let timeout = Some(u64::from(*seconds) * 1000);
        batch.add_set(&SetSpec { name, key: &key, target: Target::None, timeout, anonymous: None });
    }
    let differing: Vec<(&String, &Vec<Rule>)> =
        new.chains.iter().filter(|(name, rules)| old.chains.get(*name) != Some(rules)).collect();
    // Chains exist before rules lead to them.
    for (name, _) in &differing {
        if !old.chains.contains_key(*name) {
            batch.add_chain(name, None);
        }
    }
    for (name, rules) in differing {
        if old.chains.contains_key(name) {
            batch.flush_chain(name);
        }
        for rule in rules {
            write_rule(batch, style, name, rule);
        }
    }
}

fn write_rule(batch: &mut Batch, style: &Style, chain: &str, rule: &Rule) {
    let family = style.family;
    let goto = |chain: &str| Verdict::Goto(chain.into());
    match rule {
        Rule::Spread(protocol, endpoints) if style.spread == Spread::Rules && endpoints.len() <= FEW => {
            for (at, endpoint) in endpoints.iter().enumerate() {
                batch.add_rule(chain, |e| {
                    e.protocol(*protocol);
                    let left = endpoints.len() - at;
                    if left > 1 {
                        e.one_of(left);
                    }
                    e.destination(endpoint);
                });
            }
        }
        Rule::Spread(protocol, endpoints) => {
            let values: Vec<Vec<u8>> = endpoints
                .iter()
                .map(|address| {
                    let mut bytes = crate::family::octets(&address.ip());
                    bytes.extend_from_slice(&address.port().to_be_bytes());
                    bytes.extend_from_slice(&[0; 2]);
                    bytes
                })
                .collect();
            let target = Target::Data(&[Kind::Address(family), Kind::Port]);
            let id = number_map(batch, target, values.iter().map(|value| Data::Value(value)));
            batch.add_rule(chain, |e| {
                e.protocol(*protocol);
                e.random_destination(family, endpoints.len(), (MAP, id));
            });
        }
        Rule::SpreadTo(chains) => {
            let verdicts: Vec<Verdict> = chains.iter().map(|chain| goto(chain)).collect();
            let id = number_map(batch, Target::Verdict, verdicts.iter().map(Data::Verdict));
            batch.add_rule(chain, |e| e.random_verdict(verdicts.len(), (MAP, id)));
        }
        simple => batch.add_rule(chain, |e| match simple {
            Rule::Stick { set, chain } => {
                e.in_set(family, expr::Side::Source, set);
                e.verdict(&goto(chain));
            }
            Rule::Remember(set) => e.remember(family, set),
            Rule::Send(protocol, address) => {
                e.protocol(*protocol);
                e.destination(address);
            }
            Rule::Mark => e.mark(style.mark),
            Rule::Goto(chain) => e.verdict(&goto(chain)),
            Rule::PodsGoto(chain) => {
                style.pods(e, expr::Is::Equal);
                e.verdict(&goto(chain));
            }
            Rule::OwnMark => {
                e.local(expr::Side::Source);
                e.mark(style.mark);
            }
            Rule::OwnGoto(chain) => {
                e.local(expr::Side::Source);
                e.verdict(&goto(chain));
            }
            Rule::Pass(range) => {
                e.in_range(family, expr::Side::Source, expr::Is::Equal, range);
                e.verdict(&Verdict::Return);
            }
            Rule::Drop | Rule::Spread(..) | Rule::SpreadTo(_) => e.verdict(&Verdict::Drop),
        }),
    }
}

/// Name that the kernel makes names of maps without one from.
const MAP: &str = "__map%d";

/// Adds a map without a name from numbers, beginning with zero. Gives its number in the batch.
fn number_map<'a>(batch: &mut Batch, target: Target<'_>, values: impl ExactSizeIterator<Item = Data<'a>>) -> u32 {
    let id = batch.next_set();
    let anonymous = Some((id, values.len()));
    batch.add_set(&SetSpec { name: MAP, key: &[Kind::Integer], target, timeout: None, anonymous });
    let numbered = (0u32..).zip(values).map(|(number, data)| (number.to_ne_bytes().to_vec(), data));
    batch.add_elements((MAP, Some(id)), numbered);
    id
}

fn key_bytes(key: &Key) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(ip) = &key.ip {
        bytes.extend(expr::address_key(ip));
        if key.set == Set::Hairpin {
            bytes.extend(expr::address_key(ip));
        }
    }
    if let Some((protocol, port)) = key.port {
        bytes.extend(expr::port_key(protocol, port));
    }
    bytes
}

/// Writes the elements that are not what they were.
fn write_elements(batch: &mut Batch, elements: &ElementSet, touched: &Touched) {
    let now = |key: &Key| elements.entries.get(key).map(|entry| entry.verdict.clone());
    let differing: Vec<(&Key, &Option<Option<Verdict>>)> =
        touched.iter().filter(|(key, before)| now(key) != **before).collect();
    for set in Set::ALL {
        let of_set = || differing.iter().filter(move |(key, _)| key.set == set);
        let gone = of_set().filter(|(_, before)| before.is_some()).map(|(key, _)| key_bytes(key));
        batch.delete_elements(set.name(), gone);
        let new = of_set().filter_map(|(key, _)| {
            let entry = elements.entries.get(*key)?;
            Some((key_bytes(key), entry.verdict.as_ref().map_or(Data::None, Data::Verdict)))
        });
        batch.add_elements((set.name(), None), new);
    }
}

async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, NetlinkError> + Send + 'static,
) -> Result<T, BackendError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| BackendError::Cancelled)?;
    done.map_err(|source| BackendError::Netlink { what, source })
}

#[async_trait]
impl Backend for Nftables {
    async fn sync(&mut self, work: &Work<'_>) -> Result<Applied, BackendError> {
        let many = work.model.ports().count() > LARGE;
        let outgrown = many && self.style.spread == Spread::Map;
        let partial = if work.full || outgrown { None } else { self.partial(work) };
        let batch = match partial {
            Some(batch) => batch,
            None => self.full(work),
        };
        if batch.is_empty() {
            return Ok(Applied::default());
        }
        let began = Instant::now();
        let done = blocking("write nftables rules", || batch.commit()).await;
        if let Err(error) = done {
            self.metrics.nftables_failures.inc();
            return Err(error);
        }
        if !self.stale_chains.is_empty() || !self.stale_sets.is_empty() {
            self.emptied = Some(Instant::now());
        }
        Ok(Applied { outside: began.elapsed() })
    }

    async fn intact(&mut self) -> bool {
        let family = self.style.family;
        let there = blocking("look for nftables rules", move || wire::exists(family, Some(frame::SERVICES))).await;
        there.unwrap_or(true)
    }

    fn full_period(&self) -> Duration {
        NEVER
    }

    fn unfinished(&self) -> Option<Duration> {
        if self.wanted_ranges() != self.written {
            return Some(Duration::ZERO);
        }
        (!self.stale_chains.is_empty() || !self.stale_sets.is_empty()).then_some(LATER)
    }
}

/// Removes everything that this mode made.
pub(crate) async fn cleanup() -> Result<(), BackendError> {
    for family in Family::ALL {
        blocking("remove the nftables table", move || match wire::exists(family, None) {
            Ok(true) => Batch::remove_table(family),
            Ok(false) => Ok(()),
            // A kernel without nf_tables has no table.
            Err(error) => {
                tracing::debug!(%error, "nftables cannot be asked");
                Ok(())
            }
        })
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
