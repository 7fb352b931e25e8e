//! `--runtime-config`: which of the built-in API is served.

use std::{collections::BTreeMap, sync::Arc};

use api::{Kind, discovery::Serves};
use runtime::flags::boolean;

/// Keys that stand for many versions.
const ALL: &str = "api/all";
const STAGES: [&str; 3] = ["api/ga", "api/beta", "api/alpha"];

/// Kinds that are younger than the oldest version that can be emulated: group, version, plural (or all of the version),
/// and the minor version that brought them.
const YOUNG: [(&str, &str, &str, u16); 5] = [
    ("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicies", 36),
    ("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicybindings", 36),
    ("resource.k8s.io", "v1", "", 34),
    ("scheduling.k8s.io", "v1", "workloads", 36),
    ("storage.k8s.io", "v1", "volumeattributesclasses", 34),
];

/// The minor version that brought a kind.
fn introduced(kind: &Kind) -> u16 {
    let is = |(group, version, plural, _): &&(&str, &str, &str, u16)| {
        kind.gvk.group == *group && kind.gvk.version == *version && (plural.is_empty() || kind.plural == *plural)
    };
    YOUNG.iter().find(is).map_or(0, |(.., minor)| *minor)
}

/// Whether kinds are served that the emulated version did not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Forward {
    /// The emulated minor version.
    pub(crate) emulated: u16,
    /// All of them (`--emulation-forward-compatible`).
    pub(crate) all: bool,
    /// Those of versions that `--runtime-config` turns on (`--runtime-config-emulation-forward-compatible`).
    pub(crate) named: bool,
}

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

    /// Whether a version that the emulated one did not have is served all the same.
    fn is_there(&self, kind: &Kind, forward: Forward) -> bool {
        let named = || {
            let version = key_of(kind);
            [format!("{version}/{}", kind.plural), version].iter().any(|key| self.0.get(key) == Some(&true))
        };
        introduced(kind) <= forward.emulated || forward.all || (forward.named && named())
    }

    /// Tells which kinds are served.
    pub(crate) fn serves(&self, forward: Forward) -> Serves {
        let config = self.clone();
        Arc::new(move |kind| config.is_on(kind) && config.is_there(kind, forward))
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
    fn kinds_of_later_versions_are_not_there() {
        let serves = |text: &str, emulated, all, named| {
            let serves = config(text).expect(text).serves(Forward { emulated, all, named });
            let mut hidden: Vec<&str> =
                api::api().kinds().iter().filter(|kind| !serves(kind)).map(|k| &*k.plural).collect();
            hidden.sort_unstable();
            hidden
        };
        let policies = ["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"];
        assert_eq!(serves("", 36, false, false), Vec::<&str>::new());
        assert_eq!(serves("", 35, false, false), policies);
        assert_eq!(serves("", 33, true, false), Vec::<&str>::new());
        let old = serves("", 33, false, false);
        assert!(old.contains(&"resourceclaims") && old.contains(&"volumeattributesclasses"), "{old:?}");
        assert_eq!(serves("resource.k8s.io/v1", 33, false, false), old);
        let named = serves("resource.k8s.io/v1", 33, false, true);
        assert!(!named.contains(&"resourceclaims") && named.contains(&"volumeattributesclasses"), "{named:?}");
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
