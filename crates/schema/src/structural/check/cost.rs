//! What the rules of a definition may cost, each and together.

use std::cmp::Reverse;

use machinery::field::{ErrorList, Path};

/// The most that one rule may be estimated to cost, and all of one schema.
const PER_RULE: u64 = 10_000_000;
const PER_SCHEMA: u64 = 100_000_000;
/// Rules that are named when all together cost too much.
const NAMED: usize = 4;

/// What the rules of a schema were estimated to cost so far.
#[derive(Debug, Default)]
pub(super) struct Costs {
    total: u64,
    dearest: Vec<(u64, Path)>,
}

fn too_dear(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        _ if factor > 100.0 => "more than 100x".to_owned(),
        _ if factor < 1.5 => format!("{factor:.6}x"),
        _ => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

impl Costs {
    /// Takes what a rule costs wherever it is evaluated.
    pub(super) fn rule(&mut self, cost: u64, path: &Path, errors: &mut ErrorList) {
        self.total = self.total.saturating_add(cost);
        self.dearest.push((cost, path.clone()));
        self.dearest.sort_by_key(|(cost, _)| Reverse(*cost));
        self.dearest.truncate(NAMED);
        if cost > PER_RULE {
            errors.forbidden(path, &too_dear("estimated rule cost", cost, PER_RULE));
        }
    }

    /// Takes what the expression of a message costs.
    pub(super) fn message(&mut self, cost: u64, path: &Path, errors: &mut ErrorList) {
        self.total = self.total.saturating_add(cost);
        if cost > PER_RULE {
            errors.forbidden(path, &too_dear("estimated messageExpression cost", cost, PER_RULE));
        }
    }

    /// Judges all together.
    pub(super) fn end(self, path: &Path, errors: &mut ErrorList) {
        if self.total <= PER_SCHEMA {
            return;
        }
        for (_, path) in &self.dearest {
            let text = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            errors.forbidden(path, text);
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        errors.forbidden(path, &too_dear(what, self.total, PER_SCHEMA));
    }
}
