//! What is watched, and from which value on something must be done.

use std::collections::BTreeMap;
use std::time::Duration;

use machinery::quantity::{Format, Quantity};

use crate::config::{KubeletConfiguration, Span};

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Signal {
    /// Memory of the node.
    Memory,
    /// Memory that Pods together may use.
    AllocatableMemory,
    /// Bytes of the file system with the kubelet's directory.
    NodeFs,
    /// Its inodes.
    NodeFsInodes,
    /// Bytes of the file system with images.
    ImageFs,
    /// Its inodes.
    ImageFsInodes,
    /// Bytes of the file system with containers' layers.
    ContainerFs,
    /// Its inodes.
    ContainerFsInodes,
    /// Process ids.
    Pid,
}

/// What a signal says about the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// `MemoryPressure`
    Memory,
    /// `DiskPressure`
    Disk,
    /// `PIDPressure`
    Pid,
}

impl Condition {
    /// The Node condition's type.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "MemoryPressure",
            Self::Disk => "DiskPressure",
            Self::Pid => "PIDPressure",
        }
    }
}

impl Signal {
    const ALL: [Self; 9] = [
        Self::Memory,
        Self::AllocatableMemory,
        Self::NodeFs,
        Self::NodeFsInodes,
        Self::ImageFs,
        Self::ImageFsInodes,
        Self::ContainerFs,
        Self::ContainerFsInodes,
        Self::Pid,
    ];

    /// The name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory.available",
            Self::AllocatableMemory => "allocatableMemory.available",
            Self::NodeFs => "nodefs.available",
            Self::NodeFsInodes => "nodefs.inodesFree",
            Self::ImageFs => "imagefs.available",
            Self::ImageFsInodes => "imagefs.inodesFree",
            Self::ContainerFs => "containerfs.available",
            Self::ContainerFsInodes => "containerfs.inodesFree",
            Self::Pid => "pid.available",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        // What Pods may use together follows from the threshold of memory.
        Self::ALL.into_iter().find(|signal| signal.as_str() == text && *signal != Self::AllocatableMemory)
    }

    /// The Node condition.
    pub fn condition(self) -> Condition {
        match self {
            Self::Memory | Self::AllocatableMemory => Condition::Memory,
            Self::Pid => Condition::Pid,
            _ => Condition::Disk,
        }
    }

    /// What is short, as messages name it.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Memory | Self::AllocatableMemory => "memory",
            Self::Pid => "pids",
            Self::NodeFs | Self::ImageFs | Self::ContainerFs => "ephemeral-storage",
            Self::NodeFsInodes | Self::ImageFsInodes | Self::ContainerFsInodes => "inodes",
        }
    }

    /// Whether inodes are counted.
    pub fn counts_inodes(self) -> bool {
        self.resource() == "inodes"
    }

    /// Memory is freed before anything else.
    pub(super) fn order(self) -> u8 {
        u8::from(self.condition() != Condition::Memory)
    }
}

/// A number or a part of the whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Units.
    Units(u64),
    /// Between 0 and 1.
    Part(f64),
}

impl Amount {
    fn parse(text: &str) -> Result<Self, String> {
        if let Some(percent) = text.strip_suffix('%') {
            let number: f64 = percent.parse().map_err(|_| format!("invalid percentage {text:?}"))?;
            if !(0.0..=100.0).contains(&number) {
                return Err(format!("eviction percentage threshold must be between 0% and 100%: {text}"));
            }
            return Ok(Self::Part(number / 100.0));
        }
        let number = Quantity::parse(text).map_err(|error| error.to_string())?.value();
        u64::try_from(number).map(Self::Units).map_err(|_| format!("eviction threshold must be positive: {text}"))
    }

    /// In units of a whole.
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Units(units) => units,
            Self::Part(part) => (capacity as f64 * part) as u64,
        }
    }

    /// Nothing and everything stand for no threshold at all.
    fn is_trivial(self) -> bool {
        matches!(self, Self::Part(part) if part == 0.0 || part >= 1.0)
    }
}

/// From here on something must be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// What is watched.
    pub signal: Signal,
    /// Less than this must be there for something to be done.
    pub value: Amount,
    /// How long it may last before something is done; `None`: nothing is waited for.
    pub grace: Option<Duration>,
    /// How much more must be free before it counts as over.
    pub min_reclaim: Option<Amount>,
}

/// Thresholds of a configuration, or all that is wrong with them.
pub fn thresholds(config: &KubeletConfiguration) -> Result<Vec<Threshold>, Vec<String>> {
    let mut problems = Vec::new();
    let reclaim = amounts(&config.eviction_minimum_reclaim, &mut problems);
    let graces = graces(&config.eviction_soft_grace_period, &mut problems);
    let reclaim_of = |signal: Signal| reclaim.iter().find(|(other, _)| *other == signal).map(|(_, amount)| *amount);
    let mut out = Vec::new();
    for (signal, value) in amounts(&config.eviction_hard, &mut problems) {
        if !value.is_trivial() {
            out.push(Threshold { signal, value, grace: None, min_reclaim: reclaim_of(signal) });
        }
    }
    for (signal, value) in amounts(&config.eviction_soft, &mut problems) {
        let Some((_, grace)) = graces.iter().find(|(other, _)| *other == signal) else {
            problems
                .push(format!("grace period must be specified for the soft eviction threshold {}", signal.as_str()));
            continue;
        };
        if !value.is_trivial() {
            out.push(Threshold { signal, value, grace: Some(*grace), min_reclaim: reclaim_of(signal) });
        }
    }
    // Layers of containers follow the file system they are on.
    out.retain(|threshold| !matches!(threshold.signal, Signal::ContainerFs | Signal::ContainerFsInodes));
    let derived = |from: Signal, to: Signal, all: &[Threshold]| -> Vec<Threshold> {
        all.iter().filter(|one| one.signal == from).map(|one| Threshold { signal: to, ..*one }).collect()
    };
    let bytes = derived(Signal::NodeFs, Signal::ContainerFs, &out);
    let inodes = derived(Signal::NodeFsInodes, Signal::ContainerFsInodes, &out);
    out.extend(bytes.into_iter().chain(inodes));
    if config.enforce_node_allocatable.iter().any(|what| what == "pods") {
        let hard: Vec<Threshold> = out.iter().copied().filter(|one| one.grace.is_none()).collect();
        out.extend(derived(Signal::Memory, Signal::AllocatableMemory, &hard));
    }
    if problems.is_empty() { Ok(out) } else { Err(problems) }
}

fn amounts(texts: &BTreeMap<String, String>, problems: &mut Vec<String>) -> Vec<(Signal, Amount)> {
    let mut out = Vec::new();
    for (name, text) in texts {
        match (Signal::parse(name), Amount::parse(text)) {
            (Some(signal), Ok(amount)) => out.push((signal, amount)),
            (None, _) => problems.push(format!("unsupported eviction signal {name}")),
            (_, Err(problem)) => problems.push(problem),
        }
    }
    out
}

fn graces(texts: &BTreeMap<String, String>, problems: &mut Vec<String>) -> Vec<(Signal, Duration)> {
    let mut out = Vec::new();
    for (name, text) in texts {
        match (Signal::parse(name), Span::parse(text)) {
            (Some(signal), Ok(span)) => out.push((signal, span.0)),
            (None, _) => problems.push(format!("unsupported eviction signal {name}")),
            (_, Err(problem)) => problems.push(problem),
        }
    }
    out
}

/// A number of bytes or things as messages show it.
pub(super) fn shown(signal: Signal, value: u64) -> String {
    let format = if signal.counts_inodes() || signal == Signal::Pid { Format::DecimalSi } else { Format::BinarySi };
    Quantity::from_units(i64::try_from(value).unwrap_or(i64::MAX), format).to_string()
}
