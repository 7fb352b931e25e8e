//! Checks before anything changes: each names itself and tells what is wrong; [`report`] tells all of it at once.

pub mod cgroups;
pub mod checks;
pub mod kernel;
#[cfg(test)]
mod tests;

use crate::{
    error::{Result, fail},
    host::Host,
};

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Name of the check.
    pub name: String,
    /// What must be changed.
    pub errors: Vec<String>,
    /// What should be known.
    pub warnings: Vec<String>,
}

impl Findings {
    /// Nothing found yet.
    pub fn of(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Adds an error.
    #[must_use]
    pub fn error(mut self, text: impl Into<String>) -> Self {
        self.errors.push(text.into());
        self
    }

    /// Adds a warning.
    #[must_use]
    pub fn warning(mut self, text: impl Into<String>) -> Self {
        self.warnings.push(text.into());
        self
    }

    /// Adds an error when there is one.
    #[must_use]
    pub fn error_if(self, wrong: bool, text: impl FnOnce() -> String) -> Self {
        if wrong { self.error(text()) } else { self }
    }

    /// Adds a warning when there is one.
    #[must_use]
    pub fn warning_if(self, doubtful: bool, text: impl FnOnce() -> String) -> Self {
        if doubtful { self.warning(text()) } else { self }
    }
}

/// A name that contains a path: slashes become dashes.
pub fn name_of(check: &str, path: &str) -> String {
    format!("{check}-{}", path.replace('/', "-"))
}

/// Names of checks to ignore, in lower case, from flags and file.
pub fn ignored<'a>(given: impl IntoIterator<Item = &'a String>) -> Result<Vec<String>> {
    let mut all: Vec<String> = given
        .into_iter()
        .flat_map(|text| text.split(','))
        .map(|name| name.trim().to_lowercase())
        .filter(|name| !name.is_empty())
        .collect();
    all.sort();
    all.dedup();
    if all.len() > 1 && all.iter().any(|name| name == "all") {
        return fail!("don't specify individual checks if 'all' is used");
    }
    Ok(all)
}

/// Prints what was found. Ignored errors are warnings; others fail.
pub fn report(host: &dyn Host, findings: &[Findings], ignored: &[String]) -> Result<()> {
    let is_ignored = |name: &str| ignored.iter().any(|i| i == "all" || *i == name.to_lowercase());
    let mut fatal = String::new();
    for found in findings {
        for text in &found.warnings {
            host.warn(&format!("\t[WARNING {}]: {text}\n", found.name));
        }
        for text in &found.errors {
            if is_ignored(&found.name) {
                host.warn(&format!("\t[WARNING {}]: {text}\n", found.name));
            } else {
                fatal.push_str(&format!("\t[ERROR {}]: {text}\n", found.name));
            }
        }
    }
    if fatal.is_empty() {
        return Ok(());
    }
    host.warn(&format!(
        "[preflight] Some fatal errors occurred:\n{fatal}[preflight] If you know what you are doing, you can make a check \
         non-fatal with `--ignore-preflight-errors=...`\n"
    ));
    fail!("preflight checks failed")
}
