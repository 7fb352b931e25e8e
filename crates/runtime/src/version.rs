//! The version this build answers with.

use serde_json::{Value, json};

/// Version of Kubernetes that is implemented.
pub const GIT_VERSION: &str = "v1.36.0";
/// Commit the version stands for in user agents and version documents.
pub const GIT_COMMIT: &str = "0000000000000000000000000000000000000000";

/// The document of `/version`.
pub fn info() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": GIT_COMMIT,
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "go1.26.0",
        "compiler": "rustc",
        "platform": "linux/amd64",
    })
}

/// User agent of a component: `name/v1.36.0 (linux/amd64) kubernetes/0000000`.
pub fn user_agent(component: &str) -> String {
    format!("{component}/{GIT_VERSION} (linux/amd64) kubernetes/{}", &GIT_COMMIT[..7])
}
