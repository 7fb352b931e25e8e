//! Chains and the jumps to them: made, and removed.

use std::collections::BTreeMap;

use super::{
    frame::{BUILT_IN, Jump, chain_line, missing, table},
    program::{self, Saved},
};
use crate::{backend::BackendError, family::Family};

/// Chains in one transaction.
pub(crate) const CHUNK: usize = 1000;

/// A table and chains in it.
pub(crate) type Tables = [(&'static str, &'static [&'static str])];

/// What a mode makes.
pub(crate) struct Leftovers {
    pub(crate) tables: Vec<(&'static str, &'static [&'static str])>,
    pub(crate) jumps: Vec<Jump>,
}

/// Makes chains and jumps that are missing. Gives what the tables hold.
pub(crate) async fn install(
    family: Family,
    tables: &Tables,
    jumps: &[Jump],
) -> Result<BTreeMap<&'static str, Saved>, BackendError> {
    let mut all = BTreeMap::new();
    let mut inputs = Vec::new();
    for (name, chains) in tables {
        let saved = program::save(family, name, &BUILT_IN).await?;
        let lines = missing(chains, &saved.chains);
        if !lines.is_empty() {
            inputs.push(table(name, &lines));
        }
        all.insert(*name, saved);
    }
    if !inputs.is_empty() {
        program::restore(family, inputs.into_iter()).await?;
    }
    for jump in jumps {
        let rule = jump.rule();
        let listed = all.get(jump.table).is_some_and(|saved| saved.rules.contains(&jump.listed()));
        if !listed && !program::has_rule(family, jump.table, jump.from, &rule).await {
            program::edit(family, "-I", jump.table, jump.from, &rule).await?;
        }
    }
    Ok(all)
}

/// Removes jumps and chains of all modes. `more` tells which other chains go.
pub(crate) async fn uninstall(
    family: Family,
    modes: &[Leftovers],
    more: &(dyn Fn(&str, &str) -> bool + Sync),
) -> Result<(), BackendError> {
    for name in ["nat", "filter", "mangle"] {
        let saved = program::save(family, name, &BUILT_IN).await?;
        let jumps = modes.iter().flat_map(|mode| &mode.jumps);
        for jump in jumps.filter(|jump| jump.table == name && saved.chains.contains(jump.to)) {
            let rule = jump.rule();
            if saved.rules.contains(&jump.listed()) || program::has_rule(family, name, jump.from, &rule).await {
                // Both modes may have the same jump: gone is gone.
                if let Err(error) = program::edit(family, "-D", name, jump.from, &rule).await
                    && program::has_rule(family, name, jump.from, &rule).await
                {
                    return Err(error);
                }
            }
        }
        let known = |chain: &str| {
            let tables = modes.iter().flat_map(|mode| &mode.tables).filter(|(table, _)| *table == name);
            tables.flat_map(|(_, chains)| chains.iter()).any(|known| *known == chain)
        };
        let ours: Vec<&String> = saved.chains.iter().filter(|chain| known(chain) || more(name, chain)).collect();
        delete(family, name, &ours).await?;
    }
    Ok(())
}

/// Deletes chains, which may point to each other: all are emptied before any is deleted.
pub(crate) async fn delete(family: Family, name: &str, chains: &[&String]) -> Result<(), BackendError> {
    if chains.is_empty() {
        return Ok(());
    }
    let text = |line: &dyn Fn(&str) -> String| -> Vec<String> {
        let pieces = chains.chunks(CHUNK);
        pieces.map(|piece| table(name, &piece.iter().map(|chain| line(chain)).collect::<String>())).collect()
    };
    let inputs = [text(&chain_line), text(&|chain| format!("-X {chain}\n"))].concat();
    program::restore(family, inputs.into_iter()).await
}
