//! Mode iptables: chains of rules, written by the programs of iptables.
//!
//! A full synchronization writes everything and removes what is not wanted. Others send only chains that differ: those
//! of changed service ports, and the shared ones if a rule in them changes. The front end of nftables takes time that
//! grows with the square of the chains in one transaction, so chains of Services go in transactions of a fair size
//! first; nothing leads to new ones until the shared chains are written, last.

mod accounts;
pub(crate) mod frame;
pub(crate) mod install;
mod names;
pub(crate) mod program;
mod rules;
mod style;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::time::Instant;

pub(crate) use accounts::Accounts;
pub(crate) use names::hash;
pub(crate) use program::usable;
pub(crate) use style::Style;

use crate::{
    backend::{Applied, Backend, BackendError, Work},
    family::Family,
    metrics::FamilyMetrics,
    model::{Model, Ports},
};
use frame::{CANARY, FIREWALL, chain_line, table};
use install::{CHUNK, Leftovers, install};
use names::PREFIXES;
use rules::{Chain, Comments, Rules, Shared, render, render_shared};

/// With more endpoints than this, rules have no comments for people, and stale chains are not deleted at once.
const LARGE: usize = 1000;
/// Everything is written again after this time, but for large clusters.
const FULL_PERIOD: Duration = Duration::from_secs(3600);
/// Never, as good as.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Chains that are made before rules point to them. The first table is looked at for its canary; the first chain of
/// the last one is the kubelet's too.
const TABLES: [(&str, &[&str]); 3] = [
    ("mangle", &[CANARY]),
    ("nat", &["KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", CANARY]),
    (
        "filter",
        &[
            FIREWALL,
            "KUBE-SERVICES",
            "KUBE-EXTERNAL-SERVICES",
            "KUBE-FORWARD",
            "KUBE-NODEPORTS",
            "KUBE-PROXY-FIREWALL",
            CANARY,
        ],
    ),
];

/// The rules of one family.
pub(crate) struct Iptables {
    style: Style,
    sync_period: Duration,
    metrics: FamilyMetrics,
    /// Chains that nothing leads to any more, to be deleted.
    stale: BTreeSet<String>,
    deleted: Option<Instant>,
    comments: Comments,
    /// Rules of single Services: in table nat, and in table filter.
    count: (usize, usize),
}

/// What a partial synchronization sends.
#[derive(Debug, Default)]
struct Difference {
    chains: Vec<Chain>,
    gone: BTreeSet<String>,
    /// Whether rules in shared chains differ.
    shared: bool,
    added: (usize, usize),
    removed: (usize, usize),
}

impl Difference {
    fn of(work: &Work<'_>, style: &Style, comments: Comments) -> Self {
        let mut difference = Self::default();
        let rules = |ports: Option<&Ports>| ports.map_or_else(Rules::default, |ports| render(ports, style, comments));
        for changed in work.changed {
            let (old, new) = (rules(changed.old.as_ref()), rules(changed.new.as_ref()));
            difference.shared |= old.shared != new.shared;
            let (a, b) = (old.count(), new.count());
            difference.removed = (difference.removed.0 + a.0, difference.removed.1 + a.1);
            difference.added = (difference.added.0 + b.0, difference.added.1 + b.1);
            let before: BTreeMap<&str, &str> =
                old.chains.iter().map(|chain| (chain.name.as_str(), chain.rules.as_str())).collect();
            let names: HashSet<&str> = new.chains.iter().map(|chain| chain.name.as_str()).collect();
            difference.gone.extend(before.keys().filter(|name| !names.contains(**name)).map(|name| (*name).to_owned()));
            let differs = |chain: &Chain| before.get(chain.name.as_str()) != Some(&chain.rules.as_str());
            difference.chains.extend(new.chains.into_iter().filter(differs));
        }
        difference
    }
}

/// The rules of all Services in shared chains.
fn shared(model: &Model, style: &Style) -> Shared {
    let mut all = Shared::default();
    for (_, ports) in model.iter() {
        all.append(&render_shared(ports, style));
    }
    all
}

/// Splits chains into transactions of table nat.
fn transactions(chains: impl Iterator<Item = Chain>, size: usize) -> impl Iterator<Item = String> {
    let mut chains = chains.peekable();
    std::iter::from_fn(move || {
        chains.peek()?;
        let (mut heads, mut rules) = (String::new(), String::new());
        for chain in chains.by_ref().take(size) {
            heads.push_str(&chain_line(&chain.name));
            rules.push_str(&chain.rules);
        }
        heads.push_str(&rules);
        Some(table("nat", &heads))
    })
}

fn gauge(metric: &prometheus::IntGauge, value: usize) {
    metric.set(i64::try_from(value).unwrap_or(i64::MAX));
}

impl Iptables {
    pub(crate) fn new(style: Style, sync_period: Duration, metrics: FamilyMetrics) -> Self {
        Self {
            style,
            sync_period,
            metrics,
            stale: BTreeSet::new(),
            deleted: None,
            comments: Comments::Kept,
            count: (0, 0),
        }
    }

    fn chunk(&self) -> usize {
        if self.style.features.nft { CHUNK } else { usize::MAX }
    }

    /// Jumps, canaries, and chains that exist before rules point to them. Gives the chains in table nat.
    async fn prepare(&self) -> Result<BTreeSet<String>, BackendError> {
        let mut saved = install(self.style.family, &TABLES, &frame::jumps()).await?;
        let nat = saved.remove("nat").unwrap_or_default().chains;
        // Marking works before anything leads to it.
        if !nat.contains("KUBE-MARK-MASQ") {
            let mut text = [chain_line("KUBE-MARK-MASQ"), chain_line("KUBE-POSTROUTING")].concat();
            text.push_str(&frame::masquerading(&self.style));
            program::restore(self.style.family, std::iter::once(table("nat", &text))).await?;
        }
        self.localnet().await?;
        Ok(nat)
    }

    /// Keeps loopback addresses from the network, since node ports on them make the kernel route them.
    async fn localnet(&self) -> Result<(), BackendError> {
        if !self.style.localhost_node_ports {
            return Ok(());
        }
        let rule = [&frame::LOCALNET[..], &["DROP"]].concat();
        if program::has_rule(self.style.family, "filter", FIREWALL, &rule).await {
            return Ok(());
        }
        program::edit(self.style.family, "-I", "filter", FIREWALL, &rule).await
    }

    async fn full(&mut self, work: &Work<'_>) -> Result<Duration, BackendError> {
        let began = Instant::now();
        let present = self.prepare().await?;
        let mut outside = began.elapsed();
        let endpoints: usize = work.model.ports().map(|port| port.all_endpoints().len()).sum();
        self.comments = if endpoints > LARGE { Comments::Dropped } else { Comments::Kept };
        let (style, comments) = (&self.style, self.comments);
        let mut all = Shared::default();
        let mut wanted: HashSet<String> = HashSet::new();
        let mut count = (0, 0);
        for (_, ports) in work.model.iter() {
            let rules = render(ports, style, comments);
            all.append(&rules.shared);
            let more = rules.count();
            count = (count.0 + more.0, count.1 + more.1);
            wanted.extend(rules.chains.into_iter().map(|chain| chain.name));
        }
        let ours = |name: &&String| PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        self.stale = present.iter().filter(ours).filter(|name| !wanted.contains(*name)).cloned().collect();
        drop(wanted);
        // Rendered anew while they are written: all at once they are a lot.
        let services: Vec<Ports> = work.model.iter().map(|(_, ports)| Arc::clone(ports)).collect();
        let own = style.clone();
        let chains = services.into_iter().flat_map(move |ports| render(&ports, &own, comments).chains);
        let services = transactions(chains, self.chunk());
        let frame = [table("filter", &frame::filter(style, &all)), table("nat", &frame::nat(style, &all))];
        drop(all);
        let began = Instant::now();
        program::restore(style.family, services.chain(frame)).await?;
        outside += began.elapsed();
        self.count = count;
        gauge(&self.metrics.nat_last, count.0);
        gauge(&self.metrics.filter_last, count.1);
        outside += self.delete_stale().await?;
        Ok(outside)
    }

    async fn partial(&mut self, work: &Work<'_>) -> Result<Duration, BackendError> {
        let difference = Difference::of(work, &self.style, self.comments);
        let mut last = difference.added;
        let mut frame = Vec::new();
        if difference.shared {
            let all = shared(work.model, &self.style);
            let (nat, filter) = all.count();
            last = (last.0.max(nat), last.1.max(filter));
            frame.push(table("filter", &frame::filter(&self.style, &all)));
            frame.push(table("nat", &frame::nat(&self.style, &all)));
        }
        for chain in &difference.chains {
            self.stale.remove(&chain.name);
        }
        let began = Instant::now();
        if !difference.chains.is_empty() || !frame.is_empty() {
            let services = transactions(difference.chains.into_iter(), self.chunk());
            program::restore(self.style.family, services.chain(frame)).await?;
        }
        let mut outside = began.elapsed();
        self.stale.extend(difference.gone);
        self.count = (
            (self.count.0 + difference.added.0).saturating_sub(difference.removed.0),
            (self.count.1 + difference.added.1).saturating_sub(difference.removed.1),
        );
        gauge(&self.metrics.nat_last, last.0);
        gauge(&self.metrics.filter_last, last.1);
        outside += self.delete_stale().await?;
        Ok(outside)
    }

    /// Deletes chains that nothing leads to; in large clusters not each time.
    async fn delete_stale(&mut self) -> Result<Duration, BackendError> {
        let lately = self.deleted.is_some_and(|at| at.elapsed() < self.sync_period);
        if self.stale.is_empty() || (lately && self.comments == Comments::Dropped) {
            return Ok(Duration::ZERO);
        }
        let began = Instant::now();
        install::delete(self.style.family, "nat", &self.stale.iter().collect::<Vec<_>>()).await?;
        self.stale.clear();
        self.deleted = Some(Instant::now());
        Ok(began.elapsed())
    }
}

#[async_trait]
impl Backend for Iptables {
    async fn sync(&mut self, work: &Work<'_>) -> Result<Applied, BackendError> {
        let endpoints = || work.model.ports().map(|port| port.all_endpoints().len()).sum::<usize>();
        // Whether comments are wanted is looked at with every full synchronization, and when a cluster becomes large.
        let full = work.full || (self.comments == Comments::Kept && endpoints() > LARGE);
        let done = if full { self.full(work).await } else { self.partial(work).await };
        let outside = done.inspect_err(|_| {
            self.metrics.restore_failures.inc();
            if !full {
                self.metrics.partial_failures.inc();
            }
        })?;
        gauge(&self.metrics.nat_total, self.count.0);
        gauge(&self.metrics.filter_total, self.count.1);
        Ok(Applied { outside })
    }

    async fn intact(&mut self) -> bool {
        program::has_chain(self.style.family, TABLES[0].0, CANARY).await
    }

    fn full_period(&self) -> Duration {
        if self.comments == Comments::Dropped { NEVER } else { FULL_PERIOD }
    }

    fn unfinished(&self) -> Option<Duration> {
        (!self.stale.is_empty()).then_some(self.sync_period)
    }
}

/// Removes everything that this mode made, and `other`s. The chain that the kubelet uses too stays.
pub(crate) async fn cleanup(other: fn() -> Leftovers) -> Result<(), BackendError> {
    let own = || {
        let jumps = frame::jumps().into_iter().filter(|jump| jump.to != FIREWALL).collect();
        let kept = |(name, chains): (_, &'static [_])| (name, if name == "filter" { &chains[1..] } else { chains });
        Leftovers { tables: TABLES.into_iter().map(kept).collect(), jumps }
    };
    let more = |table: &str, chain: &str| table == "nat" && PREFIXES.iter().any(|prefix| chain.starts_with(prefix));
    for family in Family::ALL {
        if usable(family).await {
            install::uninstall(family, &[own(), other()], &more).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
