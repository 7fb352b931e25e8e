//! Feature gates: which exist, what is on, and what an operator may change.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use crate::{
    env,
    flags::{BoolMap, boolean},
    version,
};

/// Maturity of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Off unless asked for.
    Alpha,
    /// Usually on.
    Beta,
    /// Always on.
    Ga,
    /// On its way out.
    Deprecated,
}

impl Stage {
    /// As metric `kubernetes_feature_enabled` labels it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Alpha => "ALPHA",
            Self::Beta => "BETA",
            Self::Ga => "",
            Self::Deprecated => "DEPRECATED",
        }
    }
}

/// Declaration of a gate.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    /// Name.
    pub name: &'static str,
    /// Maturity.
    pub stage: Stage,
    /// Whether it is on by default.
    pub default: bool,
    /// Whether the default cannot be changed.
    pub locked: bool,
    /// Gates that must be on with it.
    pub requires: &'static [&'static str],
    /// Minor version of its general availability, where that is recent enough to be emulated before; it was in beta
    /// and on by default then.
    pub available_since: u16,
}

impl Gate {
    /// A gate of general availability that cannot be turned off.
    pub const fn locked(name: &'static str) -> Self {
        Self { name, stage: Stage::Ga, default: true, locked: true, requires: &[], available_since: 0 }
    }

    /// [`Gate::locked`], since a minor version.
    pub const fn locked_since(name: &'static str, minor: u16) -> Self {
        Self { available_since: minor, ..Self::locked(name) }
    }

    /// The gate as it was in a minor version.
    fn at(mut self, minor: u16) -> Self {
        if minor < self.available_since {
            self.stage = Stage::Beta;
        }
        self
    }

    /// A gate in beta.
    pub const fn beta(name: &'static str, default: bool) -> Self {
        Self { name, stage: Stage::Beta, default, locked: false, requires: &[], available_since: 0 }
    }

    /// A gate in alpha.
    pub const fn alpha(name: &'static str) -> Self {
        Self { name, stage: Stage::Alpha, default: false, locked: false, requires: &[], available_since: 0 }
    }
}

/// Gates of what every component does with its logs.
const LOGGING: &[Gate] = &[
    Gate::beta("ContextualLogging", true),
    Gate::alpha("LoggingAlphaOptions"),
    Gate::beta("LoggingBetaOptions", true),
];

/// Gates of what every client of the API does. Their defaults may be changed by `KUBE_FEATURE_<name>`.
const CLIENT: &[Gate] = &[
    Gate::beta("AtomicFIFO", true),
    Gate::beta("ClientsAllowCARotation", true),
    Gate::alpha("ClientsAllowCBOR"),
    Gate::locked("InOrderInformers"),
    Gate::beta("WatchListClient", true),
];

/// The client gates of the process, once they are known.
static OF_CLIENT: OnceLock<FeatureGates> = OnceLock::new();

/// Whether a gate of the API client is on in this process: as the command line says, else as the environment says.
pub fn client_gate(name: &str) -> bool {
    match OF_CLIENT.get() {
        Some(gates) => gates.enabled(name),
        None => CLIENT.iter().find(|gate| gate.name == name).is_some_and(|gate| from_environment(*gate).default),
    }
}

/// The default of a client gate, unless the environment says otherwise.
fn from_environment(mut gate: Gate) -> Gate {
    let variable = format!("KUBE_FEATURE_{}", gate.name);
    match env::var(&variable).map(|value| (boolean(&value), value)) {
        None => {}
        Some((Ok(on), _)) if gate.locked && on != gate.default => {
            tracing::error!(variable, "cannot set feature gate, feature is locked");
        }
        Some((Ok(on), _)) => gate.default = on,
        Some((Err(error), value)) => tracing::error!(variable, value, err = error, "cannot read a feature gate"),
    }
    gate
}

/// Whether `--feature-gates` of this value turns `LoggingAlphaOptions` on.
pub(crate) fn logging_alpha(value: &str) -> bool {
    let settings = FeatureGates::parse(&[value.to_owned()], true).unwrap_or_default();
    let last = |name: &str| settings.iter().rev().find(|(n, _)| n == name).and_then(|(_, v)| boolean(v).ok());
    last("LoggingAlphaOptions").or_else(|| last("AllAlpha")).unwrap_or(false)
}

/// The state of all gates of a process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct FeatureGates(Arc<BTreeMap<&'static str, (Gate, bool)>>);

impl FeatureGates {
    /// Applies settings (name, text of a boolean) to the known gates of the emulated version; all errors at once.
    pub fn new(known: &'static [Gate], settings: &[(String, String)]) -> Result<Self, Vec<String>> {
        let known: Vec<Gate> =
            known.iter().chain(LOGGING).copied().chain(CLIENT.iter().copied().map(from_environment)).collect();
        Self::of_version(&known, settings, version::emulated().minor)
    }

    /// Makes the gates of the API client among these those of the process. The first call counts.
    pub fn govern_clients(&self) {
        if OF_CLIENT.set(self.clone()).is_err() {
            tracing::debug!("the client gates were decided before");
        }
    }

    fn of_version(known: &[Gate], settings: &[(String, String)], minor: u16) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut wanted: BTreeMap<String, bool> = BTreeMap::new();
        for (name, value) in settings {
            if value.is_empty() {
                problems.push(format!("missing bool value for {name}"));
                continue;
            }
            match boolean(value) {
                Ok(on) => drop(wanted.insert(name.clone(), on)),
                Err(error) => problems.push(format!("invalid value of {name}={value}, err: {error}")),
            }
        }
        let group = |name: &str| wanted.get(name).copied();
        let (alpha, beta) = (group("AllAlpha"), group("AllBeta"));
        let mut state: BTreeMap<&'static str, (Gate, bool)> = BTreeMap::new();
        for gate in known.iter().map(|gate| gate.at(minor)) {
            let by_group = match gate.stage {
                Stage::Alpha => alpha,
                Stage::Beta => beta,
                Stage::Ga | Stage::Deprecated => None,
            };
            state.insert(gate.name, (gate, by_group.filter(|_| !gate.locked).unwrap_or(gate.default)));
        }
        for (name, on) in wanted.iter().filter(|(n, _)| !matches!(n.as_str(), "AllAlpha" | "AllBeta")) {
            match state.get_mut(name.as_str()) {
                None => problems.push(format!("unrecognized feature gate: {name}")),
                Some((gate, _)) if gate.locked && gate.default != *on => problems
                    .push(format!("cannot set feature gate {name} to {on}, feature is locked to {}", gate.default)),
                Some((gate, current)) => {
                    warn_about(gate, *on);
                    *current = *on;
                }
            }
        }
        let is_on = |name: &&str| state.get(*name).is_some_and(|(_, on)| *on);
        for (name, (gate, on)) in &state {
            let missing: Vec<&str> = gate.requires.iter().filter(|r| !is_on(r)).copied().collect();
            if *on && !missing.is_empty() {
                problems.push(format!(
                    "{name} is enabled, but depends on features that are disabled: [{}]",
                    missing.join(" ")
                ));
            }
        }
        if problems.is_empty() { Ok(Self(Arc::new(state))) } else { Err(problems) }
    }

    /// The gates, if neither they nor anything else is wrong: all problems in one text otherwise.
    pub fn unless(mut problems: Vec<String>, gates: Result<Self, Vec<String>>) -> Result<Self, String> {
        let gates = gates.unwrap_or_else(|more| {
            problems.extend(more);
            Self::default()
        });
        match problems.as_slice() {
            [] => Ok(gates),
            [one] => Err(one.clone()),
            all => Err(format!("[{}]", all.join(", "))),
        }
    }

    /// Splits the uses of `--feature-gates`. `prefixed` components take `kube:A=true` too.
    pub fn parse(uses: &[String], prefixed: bool) -> Result<Vec<(String, String)>, String> {
        let mut out = Vec::new();
        let (mut plain, mut with_prefix) = (false, false);
        for pair in uses.iter().flat_map(|u| u.split(',')).map(str::trim).filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = match name.trim().strip_prefix("kube:") {
                Some(rest) if prefixed => {
                    with_prefix = true;
                    rest
                }
                _ => {
                    plain = true;
                    name.trim()
                }
            };
            out.push((name.to_owned(), value.trim().to_owned()));
        }
        if plain && with_prefix {
            return Err(
                "set kube feature gates with default empty prefix or kube: prefix consistently, do not mix use".into(),
            );
        }
        Ok(out)
    }

    /// Settings of a configuration file in the form [`FeatureGates::new`] takes.
    pub fn from_map(map: &BoolMap) -> Vec<(String, String)> {
        map.0.iter().map(|(k, v)| (k.clone(), v.to_string())).collect()
    }

    /// Whether a gate is on; an unknown one is off.
    pub fn enabled(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|(_, on)| *on)
    }

    /// All gates by name: stage and state.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Stage, bool)> + '_ {
        self.0.iter().map(|(name, (gate, on))| (*name, gate.stage, *on))
    }
}

fn warn_about(gate: &Gate, on: bool) {
    match gate.stage {
        Stage::Ga => {
            tracing::warn!("Setting GA feature gate {}={on}. It will be removed in a future release.", gate.name);
        }
        Stage::Deprecated => {
            tracing::warn!(
                "Setting deprecated feature gate {}={on}. It will be removed in a future release.",
                gate.name
            );
        }
        Stage::Alpha | Stage::Beta => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Gate] = &[
        Gate::alpha("A"),
        Gate::beta("B", true),
        Gate::locked("G"),
        Gate { requires: &["A"], ..Gate::alpha("NeedsA") },
    ];

    fn gates(text: &str) -> Result<FeatureGates, Vec<String>> {
        FeatureGates::new(KNOWN, &FeatureGates::parse(&[text.to_owned()], true).map_err(|e| vec![e])?)
    }

    #[test]
    fn groups_yield_to_names() {
        let set = gates("AllAlpha=true,A=true,AllBeta=false").expect("legal");
        assert!(set.enabled("LoggingAlphaOptions") && !set.enabled("LoggingBetaOptions"));
        assert!(set.enabled("A") && set.enabled("NeedsA") && !set.enabled("B") && set.enabled("G"));
    }

    #[test]
    fn the_gate_of_log_options_is_known_before_the_others() {
        assert!(logging_alpha("LoggingAlphaOptions=true,X=true") && logging_alpha("kube:AllAlpha=true"));
        assert!(!logging_alpha("AllAlpha=true,LoggingAlphaOptions=false") && !logging_alpha(""));
    }

    #[test]
    fn gates_are_as_they_were_in_the_emulated_version() {
        const GATES: &[Gate] = &[Gate::locked_since("G", 34), Gate::locked("Old")];
        for (minor, stage) in [(33, Stage::Beta), (34, Stage::Ga), (36, Stage::Ga)] {
            let gates = FeatureGates::of_version(GATES, &[], minor).expect("legal");
            let found: Vec<_> = gates.iter().collect();
            assert_eq!(found, [("G", stage, true), ("Old", Stage::Ga, true)], "{minor}");
        }
    }

    #[test]
    fn errors_have_upstreams_texts() {
        assert_eq!(gates("X=true").unwrap_err(), ["unrecognized feature gate: X"]);
        assert_eq!(gates("G=false").unwrap_err(), ["cannot set feature gate G to false, feature is locked to true"]);
        assert_eq!(gates("A").unwrap_err(), ["missing bool value for A"]);
        let dependent = "NeedsA is enabled, but depends on features that are disabled: [A]";
        assert_eq!(gates("NeedsA=true").unwrap_err(), [dependent]);
        assert!(gates("kube:A=true,B=true").unwrap_err()[0].contains("do not mix use"));
    }
}
