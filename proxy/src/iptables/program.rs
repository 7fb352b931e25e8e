//! The programs of iptables.

use std::collections::BTreeSet;

use crate::{
    backend::{self, BackendError},
    family::Family,
};

/// Seconds to wait for the lock that the programs share.
const LOCK_WAIT: &str = "5";

/// What this machine's iptables does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    /// Whether source ports can be chosen at random.
    pub(crate) random_fully: bool,
    /// Whether it is a front end of nftables. That one's time grows with the square of the chains in one transaction;
    /// the other one's with each transaction.
    pub(crate) nft: bool,
}

fn name(family: Family, what: &str) -> String {
    match family {
        Family::V4 => format!("iptables{what}"),
        Family::V6 => format!("ip6tables{what}"),
    }
}

/// Reads `iptables v1.8.9 (nf_tables)`.
pub(crate) fn parse_features(text: &str) -> Features {
    let version = text.split_whitespace().find_map(|word| word.strip_prefix('v')).unwrap_or_default();
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let version = [numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)];
    Features { random_fully: version >= [1, 6, 2], nft: text.contains("nf_tables") }
}

/// What the programs of a family can do.
pub(crate) async fn features(family: Family) -> Result<Features, BackendError> {
    Ok(parse_features(&backend::run(&name(family, ""), &["--version"], &[]).await?))
}

/// Whether there are programs of a family, and a kernel for them.
pub(crate) async fn usable(family: Family) -> bool {
    list(family, "nat", "POSTROUTING").await.is_ok()
}

async fn list(family: Family, table: &str, chain: &str) -> Result<String, BackendError> {
    backend::run(&name(family, ""), &["-w", LOCK_WAIT, "-t", table, "-S", chain, "1"], &[]).await
}

/// Whether a chain exists.
pub(crate) async fn has_chain(family: Family, table: &str, chain: &str) -> bool {
    list(family, table, chain).await.is_ok()
}

/// What a table holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Saved {
    /// Names of chains.
    pub(crate) chains: BTreeSet<String>,
    /// Rules of the chains that are asked for.
    pub(crate) rules: Vec<String>,
}

/// Reads the chains of a table, and the rules in chains that `wanted` names.
pub(crate) async fn save(family: Family, table: &str, wanted: &[&str]) -> Result<Saved, BackendError> {
    let text = backend::run(&name(family, "-save"), &["-t", table], &[]).await?;
    let mut saved = Saved::default();
    for line in text.lines() {
        if let Some(chain) = line.strip_prefix(':') {
            saved.chains.extend(chain.split(' ').next().map(str::to_owned));
        } else if let Some(rule) = line.strip_prefix("-A ")
            && rule.split(' ').next().is_some_and(|chain| wanted.contains(&chain))
        {
            saved.rules.push(rule.to_owned());
        }
    }
    Ok(saved)
}

/// Applies transactions, each a table. Chains that are not named stay as they are.
pub(crate) async fn restore(
    family: Family,
    transactions: impl Iterator<Item = String> + Send,
) -> Result<(), BackendError> {
    let arguments = ["-w", LOCK_WAIT, "--noflush", "--counters"];
    let pieces = transactions.map(String::into_bytes);
    backend::run_with(&name(family, "-restore"), &arguments, pieces).await.map(drop)
}

/// Whether a rule exists, however it is written.
pub(crate) async fn has_rule(family: Family, table: &str, chain: &str, rule: &[&str]) -> bool {
    let mut arguments = vec!["-w", LOCK_WAIT, "-t", table, "-C", chain];
    arguments.extend(rule);
    backend::run(&name(family, ""), &arguments, &[]).await.is_ok()
}

/// Inserts or deletes a rule: `-I` or `-D`.
pub(crate) async fn edit(
    family: Family,
    edit: &str,
    table: &str,
    chain: &str,
    rule: &[&str],
) -> Result<(), BackendError> {
    let mut arguments = vec!["-w", LOCK_WAIT, "-t", table, edit, chain];
    arguments.extend(rule);
    backend::run(&name(family, ""), &arguments, &[]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, random_fully, nft) in [
            ("iptables v1.8.9 (nf_tables)", true, true),
            ("iptables v1.8.4 (legacy)", true, false),
            ("iptables v1.6.1", false, false),
            ("?", false, false),
        ] {
            assert_eq!(parse_features(text), Features { random_fully, nft }, "{text}");
        }
    }
}
