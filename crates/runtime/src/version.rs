//! The version this build answers with.

use std::sync::OnceLock;

use serde_json::{Value, json};

/// Version of Kubernetes that is implemented.
pub const GIT_VERSION: &str = "v1.36.0";
/// Commit the version stands for in user agents and version documents.
pub const GIT_COMMIT: &str = "0000000000000000000000000000000000000000";

/// A version as compatibility is told in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minor {
    /// Major.
    pub major: u16,
    /// Minor.
    pub minor: u16,
}

impl std::fmt::Display for Minor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Minor {
    /// Some versions earlier.
    pub const fn back(self, steps: u16) -> Self {
        Self { major: self.major, minor: self.minor.saturating_sub(steps) }
    }
}

/// The version of this build.
pub const BINARY: Minor = Minor { major: 1, minor: 36 };
/// Emulated and oldest compatible version, where the command line says.
static COMPATIBILITY: OnceLock<(Minor, Minor)> = OnceLock::new();
static OVERRIDE: OnceLock<String> = OnceLock::new();

/// The version that this process behaves as.
pub fn emulated() -> Minor {
    COMPATIBILITY.get().map_or(BINARY, |(emulated, _)| *emulated)
}

/// The oldest version that this process works with.
pub fn compatible() -> Minor {
    COMPATIBILITY.get().map_or(BINARY.back(1), |(_, compatible)| *compatible)
}

/// Decides both for the process; the first decision stays.
pub fn set_compatibility(emulated: Minor, compatible: Minor) {
    if COMPATIBILITY.set((emulated, compatible)).is_err() {
        tracing::debug!("the emulated version was decided before");
    }
}

/// The version that is reported: [`GIT_VERSION`] unless `--version=v…` set another suffix.
pub fn git_version() -> &'static str {
    OVERRIDE.get().map_or(GIT_VERSION, String::as_str)
}

/// Sets the reported version; it must be the real one with a suffix.
pub fn override_git_version(text: &str) -> Result<(), String> {
    let suffix = text.strip_prefix(GIT_VERSION).filter(|s| s.is_empty() || s.starts_with(['-', '+']));
    if suffix.is_none() {
        return Err(format!(
            "invalid argument {text:?} for \"--version\" flag: invalid value {text:?}: must start with {GIT_VERSION:?}"
        ));
    }
    OVERRIDE.set(text.to_owned()).map_err(|_| "the version is set already".to_owned())
}

/// The document of `/version`.
pub fn info() -> Value {
    let (emulated, compatible) = (emulated(), compatible());
    json!({
        "major": BINARY.major.to_string(),
        "minor": BINARY.minor.to_string(),
        "emulationMajor": emulated.major.to_string(),
        "emulationMinor": emulated.minor.to_string(),
        "minCompatibilityMajor": compatible.major.to_string(),
        "minCompatibilityMinor": compatible.minor.to_string(),
        "gitVersion": git_version(),
        "gitCommit": GIT_COMMIT,
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "go1.26.0",
        "compiler": "rustc",
        "platform": platform(),
    })
}

/// `linux/amd64`.
pub fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "linux/arm64",
        "arm" => "linux/arm",
        "powerpc64" => "linux/ppc64le",
        "riscv64" => "linux/riscv64",
        "s390x" => "linux/s390x",
        _ => "linux/amd64",
    }
}

/// What `--version=raw` prints.
pub fn raw() -> String {
    let info = info();
    let part =
        |field: &str, key: &str| format!("{field}:{}", Value::String(info[key].as_str().unwrap_or("").to_owned()));
    let parts = [
        part("Major", "major"),
        part("Minor", "minor"),
        part("EmulationMajor", "emulationMajor"),
        part("EmulationMinor", "emulationMinor"),
        part("MinCompatibilityMajor", "minCompatibilityMajor"),
        part("MinCompatibilityMinor", "minCompatibilityMinor"),
        part("GitVersion", "gitVersion"),
        part("GitCommit", "gitCommit"),
        part("GitTreeState", "gitTreeState"),
        part("BuildDate", "buildDate"),
        part("GoVersion", "goVersion"),
        part("Compiler", "compiler"),
        part("Platform", "platform"),
    ];
    format!("version.Info{{{}}}", parts.join(", "))
}

/// User agent of a component: `name/v1.36.0 (linux/amd64) kubernetes/0000000`.
pub fn user_agent(component: &str) -> String {
    let version = git_version().split('-').next().unwrap_or(GIT_VERSION);
    format!("{component}/{version} ({}) kubernetes/{}", platform(), &GIT_COMMIT[..7])
}
