//! Pod Security Standards: the policy of a namespace, and what of a Pod violates a level (KEP-2579).

mod checks;
mod restricted;
mod setters;
#[cfg(test)]
mod tests;

use std::fmt;

use machinery::field::{ErrorList, Path};
use serde_json::Value;

/// Prefix of the labels of a namespace.
const LABELS: &str = "pod-security.kubernetes.io/";

/// How strict a policy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Everything is allowed.
    Privileged,
    /// Known privilege escalations are not.
    Baseline,
    /// What hardened Pods need, and no more.
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "privileged" => Self::Privileged,
            "baseline" => Self::Baseline,
            "restricted" => Self::Restricted,
            _ => return None,
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        })
    }
}

/// The release whose definition of a level counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `v1.N`.
    Minor(u32),
    /// The present one.
    Latest,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Self::Latest);
        }
        let minor = text.strip_prefix("v1.")?;
        let canonical = minor == "0" || (!minor.starts_with('0') && minor.bytes().all(|b| b.is_ascii_digit()));
        minor.parse().ok().filter(|_| canonical && !minor.is_empty()).map(Self::Minor)
    }

    /// Whether this is 1.`minor` or later.
    fn since(self, minor: u32) -> bool {
        self >= Self::Minor(minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("latest"),
            Self::Minor(minor) => write!(f, "v1.{minor}"),
        }
    }
}

/// A level in the definition of a version; shown as `restricted:latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standard {
    /// The level.
    pub level: Level,
    /// The version.
    pub version: Version,
}

impl Standard {
    /// What holds where nothing is said.
    pub const DEFAULT: Self = Self { level: Level::Privileged, version: Version::Latest };

    /// Whether Pods may do anything.
    pub fn is_privileged(self) -> bool {
        self.level == Level::Privileged
    }
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.level, self.version)
    }
}

/// What a namespace asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Pods that violate it are refused.
    pub enforce: Standard,
    /// Violations are recorded in the audit log.
    pub audit: Standard,
    /// Violations are answered with a warning.
    pub warn: Standard,
}

impl Policy {
    /// What holds where nothing is said.
    pub const DEFAULT: Self = Self { enforce: Standard::DEFAULT, audit: Standard::DEFAULT, warn: Standard::DEFAULT };

    /// Reads the labels of a namespace by their keys, with what is wrong with them. A level that is not one counts as the
    /// strictest.
    pub fn of<'a>(labels: impl Fn(&str) -> Option<&'a str>) -> (Self, ErrorList) {
        Self::with_defaults(&Self::DEFAULT, labels)
    }

    /// The same where `defaults` hold if the labels say nothing.
    pub fn with_defaults<'a>(defaults: &Self, labels: impl Fn(&str) -> Option<&'a str>) -> (Self, ErrorList) {
        let mut errors = ErrorList::default();
        let label = |name: &str| labels(&format!("{LABELS}{name}"));
        let mut read = |mode: &str, mut standard: Standard| -> (Standard, bool) {
            let level = label(mode);
            if let Some(text) = level {
                standard.level = Level::parse(text).unwrap_or_else(|| {
                    wrong(&mut errors, mode, text, "must be one of privileged, baseline, restricted");
                    Level::Restricted
                });
            }
            let mode = format!("{mode}-version");
            if let Some(text) = label(&mode) {
                standard.version = Version::parse(text).unwrap_or_else(|| {
                    wrong(&mut errors, &mode, text, "must be \"latest\" or \"v1.x\"");
                    Version::Latest
                });
            }
            (standard, level.is_some())
        };
        let (enforce, enforces) = read("enforce", defaults.enforce);
        let (audit, _) = read("audit", defaults.audit);
        let (mut warn, warns) = read("warn", defaults.warn);
        if enforces && !warns && enforce.level > warn.level {
            warn = enforce;
        }
        (Self { enforce, audit, warn }, errors)
    }
}

fn wrong(errors: &mut ErrorList, label: &str, value: &str, detail: &str) {
    let path = Path::new("metadata").child("labels").key(&format!("{LABELS}{label}"));
    errors.invalid(&path, &Value::from(value), detail);
}

/// One thing that a level does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What it is.
    pub reason: String,
    /// Where it is; may be empty.
    pub detail: String,
}

impl Violation {
    fn new(reason: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { reason: reason.into(), detail: detail.into() }
    }
}

/// A Pod, or the template of one, as the checks see it.
struct Pod<'a> {
    metadata: &'a Value,
    spec: &'a Value,
    version: Version,
}

impl<'a> Pod<'a> {
    fn containers(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |list| spec[list].as_array().into_iter().flatten())
            .map(|container| (container["name"].as_str().unwrap_or(""), container))
    }

    /// `spec.hostUsers` is false: root of the Pod is nobody on the node.
    fn has_own_users(&self) -> bool {
        self.version.since(35) && self.spec["hostUsers"] == false
    }

    /// Restrictions that Windows has no notion of are not asked of its Pods.
    fn is_windows(&self) -> bool {
        self.version.since(25) && self.spec.pointer("/os/name").is_some_and(|name| name == "windows")
    }
}

type Check = fn(&Pod<'_>) -> Option<Violation>;

/// Checks of a level, by id, with the first minor version that has them.
const BASELINE: [(&str, u32, Check); 12] = [
    ("appArmorProfile", 0, checks::app_armor),
    ("capabilities_baseline", 0, checks::capabilities),
    ("hostNamespaces", 0, checks::host_namespaces),
    ("hostPathVolumes", 0, checks::host_path_volumes),
    ("hostPorts", 0, checks::host_ports),
    ("hostProbesAndHostLifecycle", 34, checks::probe_hosts),
    ("privileged", 0, checks::privileged),
    ("procMount", 0, checks::proc_mount),
    ("seLinuxOptions", 0, checks::se_linux_options),
    ("seccompProfile_baseline", 0, checks::seccomp_profile),
    ("sysctls", 0, checks::sysctls),
    ("windowsHostProcess", 0, checks::windows_host_process),
];

/// The checks that the restricted level adds, with the check of the baseline that each replaces.
const RESTRICTED: [(&str, u32, Check, &str); 6] = [
    ("allowPrivilegeEscalation", 8, restricted::privilege_escalation, ""),
    ("capabilities_restricted", 22, restricted::capabilities, "capabilities_baseline"),
    ("restrictedVolumes", 0, restricted::volumes, "hostPathVolumes"),
    ("runAsNonRoot", 0, restricted::run_as_non_root, ""),
    ("runAsUser", 23, restricted::run_as_user, ""),
    ("seccompProfile_restricted", 19, restricted::seccomp_profile, "seccompProfile_baseline"),
];

/// What of a Pod (or template) violates a standard.
pub fn evaluate(standard: Standard, metadata: &Value, spec: &Value) -> Vec<Violation> {
    let Standard { level, version } = standard;
    let pod = Pod { metadata, spec, version };
    let added: Vec<_> = match level {
        Level::Privileged => return Vec::new(),
        Level::Baseline => Vec::new(),
        Level::Restricted => RESTRICTED.iter().filter(|(_, since, ..)| version.since(*since)).collect(),
    };
    let replaced = |id: &str| added.iter().any(|(.., replaces)| *replaces == id);
    let kept = BASELINE.iter().filter(|(id, since, _)| version.since(*since) && !replaced(id));
    let relaxed = level == Level::Baseline && pod.has_own_users();
    kept.filter(|(id, ..)| !(relaxed && *id == "procMount"))
        .map(|(_, _, check)| check)
        .chain(added.iter().map(|(_, _, check, _)| check))
        .filter_map(|check| check(&pod))
        .collect()
}

/// The violations in one line: `reason (detail), reason (detail)`.
pub fn describe(violations: &[Violation]) -> String {
    let shown = violations.iter().map(|v| match v.detail.as_str() {
        "" => v.reason.clone(),
        detail => format!("{} ({detail})", v.reason),
    });
    shown.collect::<Vec<_>>().join(", ")
}
