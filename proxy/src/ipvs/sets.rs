//! The ipsets around virtual servers.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    backend::{self, BackendError},
    family::Family,
    view::Protocol,
};

/// Longest name of a set.
const LONGEST: usize = 31;
/// The oldest `ipset` that has all kinds.
const OLDEST: u32 = 6;

macro_rules! sets {
    ($($variant:ident $name:literal $kind:literal,)*) => {
        /// A set, which rules refer to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Set { $($variant),* }

        impl Set {
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),*];

            fn base(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            fn kind(self) -> &'static str {
                match self { $(Self::$variant => $kind),* }
            }
        }
    };
}

sets! {
    LoopBack "KUBE-LOOP-BACK" "hash:ip,port,ip",
    ClusterIp "KUBE-CLUSTER-IP" "hash:ip,port",
    ExternalIp "KUBE-EXTERNAL-IP" "hash:ip,port",
    ExternalIpLocal "KUBE-EXTERNAL-IP-LOCAL" "hash:ip,port",
    LoadBalancer "KUBE-LOAD-BALANCER" "hash:ip,port",
    LoadBalancerFirewall "KUBE-LOAD-BALANCER-FW" "hash:ip,port",
    LoadBalancerLocal "KUBE-LOAD-BALANCER-LOCAL" "hash:ip,port",
    LoadBalancerSourceIp "KUBE-LOAD-BALANCER-SOURCE-IP" "hash:ip,port,ip",
    LoadBalancerSourceCidr "KUBE-LOAD-BALANCER-SOURCE-CIDR" "hash:ip,port,net",
    NodePortTcp "KUBE-NODE-PORT-TCP" "bitmap:port",
    NodePortLocalTcp "KUBE-NODE-PORT-LOCAL-TCP" "bitmap:port",
    NodePortUdp "KUBE-NODE-PORT-UDP" "bitmap:port",
    NodePortLocalUdp "KUBE-NODE-PORT-LOCAL-UDP" "bitmap:port",
    NodePortSctp "KUBE-NODE-PORT-SCTP-HASH" "hash:ip,port",
    NodePortLocalSctp "KUBE-NODE-PORT-LOCAL-SCTP-HASH" "hash:ip,port",
    HealthCheck "KUBE-HEALTH-CHECK-NODE-PORT" "bitmap:port",
    IpvsIps "KUBE-IPVS-IPS" "hash:ip",
}

impl Set {
    /// Its name in a family.
    pub(crate) fn name(self, family: Family) -> String {
        let base = self.base();
        let mut name = match family {
            Family::V4 => base.to_owned(),
            Family::V6 => base.replacen("KUBE-", "KUBE-6-", 1),
        };
        name.truncate(LONGEST);
        name
    }

    /// The line that makes it unless it is there.
    fn create(self, family: Family) -> String {
        let options = match (self.kind(), family) {
            ("bitmap:port", _) => "range 0-65535".to_owned(),
            (_, Family::V4) => "family inet maxelem 65536".to_owned(),
            (_, Family::V6) => "family inet6 maxelem 65536".to_owned(),
        };
        format!("create {} {} {options} -exist\n", self.name(family), self.kind())
    }
}

/// Entries of all sets.
pub(crate) type Entries = BTreeMap<Set, BTreeSet<String>>;

async fn restore(text: String) -> Result<(), BackendError> {
    if text.is_empty() {
        return Ok(());
    }
    backend::run("ipset", &["restore", "-exist"], text.as_bytes()).await.map(drop)
}

/// Whether there is an `ipset` that is new enough.
pub(crate) async fn check() -> Result<(), BackendError> {
    let text = backend::run("ipset", &["--version"], &[]).await?;
    let version = text.split_whitespace().find_map(|word| word.strip_prefix('v'));
    let major = version.and_then(|v| v.split('.').next()).and_then(|v| v.trim_end_matches(',').parse::<u32>().ok());
    if major.is_some_and(|major| major >= OLDEST) {
        return Ok(());
    }
    Err(BackendError::Unsupported(format!("ipset version: {} is less than min required version: 6.0", text.trim())))
}

/// Makes all sets.
pub(crate) async fn create(family: Family) -> Result<(), BackendError> {
    restore(Set::ALL.iter().map(|set| set.create(family)).collect()).await
}

/// Reads `ipset save`.
pub(crate) fn parse(text: &str, family: Family) -> Entries {
    let names: BTreeMap<String, Set> = Set::ALL.iter().map(|set| (set.name(family), *set)).collect();
    let mut entries = Entries::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        if words.next() == Some("add")
            && let (Some(set), Some(entry)) = (words.next().and_then(|name| names.get(name)), words.next())
        {
            entries.entry(*set).or_default().insert(numbered(entry));
        }
    }
    entries
}

/// An entry with the number of its protocol, which is listed by its name where names are known.
fn numbered(entry: &str) -> String {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let named = all.iter().find(|protocol| entry.contains(&format!(",{}:", protocol.name())));
    named.map_or_else(
        || entry.to_owned(),
        |protocol| entry.replacen(&format!(",{}:", protocol.name()), &format!(",{}:", protocol.number()), 1),
    )
}

/// What the kernel's sets hold.
pub(crate) async fn present(family: Family) -> Result<Entries, BackendError> {
    Ok(parse(&backend::run("ipset", &["save"], &[]).await?, family))
}

/// The lines that lead from some entries to others.
pub(crate) fn difference(old: &Entries, new: &Entries, family: Family) -> String {
    let none = BTreeSet::new();
    let mut text = String::new();
    for set in Set::ALL {
        let (old, new) = (old.get(set).unwrap_or(&none), new.get(set).unwrap_or(&none));
        let name = set.name(family);
        old.difference(new).for_each(|entry| text.push_str(&format!("del {name} {entry}\n")));
        new.difference(old).for_each(|entry| text.push_str(&format!("add {name} {entry}\n")));
    }
    text
}

/// Brings the sets from some entries to others.
pub(crate) async fn apply(old: &Entries, new: &Entries, family: Family) -> Result<(), BackendError> {
    restore(difference(old, new, family)).await
}

/// Deletes all sets. Rules that refer to them are gone by then.
pub(crate) async fn destroy(family: Family) -> Result<(), BackendError> {
    let Ok(text) = backend::run("ipset", &["list", "-n"], &[]).await else { return Ok(()) };
    let there: BTreeSet<&str> = text.lines().collect();
    let ours = Set::ALL.iter().map(|set| set.name(family)).filter(|name| there.contains(name.as_str()));
    restore(ours.map(|name| format!("destroy {name}\n")).collect()).await
}
