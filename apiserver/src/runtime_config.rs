//! `--runtime-config`: which of the built-in API is served.

use std::{collections::BTreeMap, sync::Arc};

use api::{Kind, discovery::Serves};
use runtime::flags::boolean;

/// Keys that stand for many versions.
const ALL: &str = "api/all";
const STAGES: [&str; 3] = ["api/ga", "api/beta", "api/alpha"];

/// What is to be served and what is not, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RuntimeConfig(BTreeMap<String, bool>);

/// The key of all versions of the maturity that a version's name tells.
fn stage_of(version: &str) -> &'static str {
    match version {
        alpha if alpha.contains("alpha") => "api/alpha",
        beta if beta.contains("beta") => "api/beta",
        _ => "api/ga",
    }
}

fn key_of(kind: &Kind) -> String {
    let group = if kind.gvk.group.is_empty() { "api" } else { &kind.gvk.group };
    format!("{group}/{}", kind.gvk.version)
}

impl RuntimeConfig {
    /// Reads pairs; a key without a value is one that is on.
    pub(crate) fn parse(pairs: &[String]) -> Result<Self, String> {
        let mut config = BTreeMap::new();
        for pair in pairs.iter().map(|pair| pair.trim()).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let on = match value.trim() {
                "" => true,
                text => boolean(text).map_err(|error| format!("invalid value of {key}={text}, err: {error}"))?,
            };
            config.insert(key.trim().to_owned(), on);
        }
        let config = Self(config);
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if self.0.len() == 1 && self.0.get(ALL) == Some(&false) {
            return Err("invalid key with only api/all=false".to_owned());
        }
        let mut unknown = Vec::new();
        for key in self.0.keys().filter(|key| *key != ALL && !STAGES.contains(&key.as_str())) {
            let parts: Vec<&str> = key.split('/').collect();
            let (2 | 3, Some(group)) = (parts.len(), parts.first()) else {
                return Err(format!("runtime-config invalid key {key}"));
            };
            let group = if *group == "api" { "" } else { group };
            if !api::api().kinds().iter().any(|kind| kind.gvk.group == group) {
                unknown.push(group);
            }
        }
        if unknown.is_empty() { Ok(()) } else { Err(format!("unknown api groups {}", unknown.join(","))) }
    }

    fn is_on(&self, kind: &Kind) -> bool {
        let version = key_of(kind);
        // The more a key says, the more it counts.
        let keys = [format!("{version}/{}", kind.plural), version, stage_of(&kind.gvk.version).into(), ALL.into()];
        keys.iter().find_map(|key| self.0.get(key)).copied().unwrap_or(true)
    }

    /// Tells which kinds are served.
    pub(crate) fn serves(&self) -> Serves {
        let config = self.clone();
        Arc::new(move |kind| config.is_on(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<RuntimeConfig, String> {
        RuntimeConfig::parse(&text.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_most_special_key_counts() {
        let kind = |group: &str, version: &str, plural: &str| {
            let found = api::api().kinds().iter().find(|kind| {
                (kind.gvk.group.as_str(), kind.gvk.version.as_str(), kind.plural.as_str()) == (group, version, plural)
            });
            found.expect("a kind")
        };
        let (pods, jobs) = (kind("", "v1", "pods"), kind("batch", "v1", "jobs"));
        let cron_jobs = kind("batch", "v1", "cronjobs");
        for (text, served) in [
            ("", [true, true, true]),
            ("api/all=true", [true, true, true]),
            ("batch/v1=false", [true, false, false]),
            ("batch/v1/jobs=false", [true, false, true]),
            ("api/all=false api/v1", [true, false, false]),
            ("api/ga=false api/v1=true batch/v1/jobs", [true, true, false]),
        ] {
            let config = config(text).expect(text);
            assert_eq!([pods, jobs, cron_jobs].map(|kind| config.is_on(kind)), served, "{text}");
        }
    }

    #[test]
    fn keys_that_nobody_has_are_told() {
        for (text, why) in [
            ("nobody.example/v1=true", "unknown api groups nobody.example"),
            ("api/all=false", "invalid key with only api/all=false"),
            ("batch=true", "runtime-config invalid key batch"),
            ("batch/v1=maybe", "invalid value of batch/v1=maybe, err: "),
        ] {
            let error = config(text).expect_err("refused");
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
