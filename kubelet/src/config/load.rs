//! Reading the configuration file, its drop-ins, and command-line overrides.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{API_VERSION, KIND, KubeletConfiguration, Span, default_eviction_hard};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that cannot be read.
    #[error("failed to load kubelet config file, path: {path}, error: {error}")]
    Read {
        /// Path.
        path: PathBuf,
        /// Cause.
        error: String,
    },
    /// A document that is not a configuration.
    #[error("failed to load kubelet config file, path: {path}, error: {error}")]
    Decode {
        /// Path.
        path: PathBuf,
        /// Cause.
        error: String,
    },
    /// Values that do not go together.
    #[error("invalid configuration: {0}")]
    Invalid(String),
}

/// A configuration with remarks for the log.
#[derive(Debug)]
pub struct Loaded {
    /// The effective configuration.
    pub config: KubeletConfiguration,
    /// Unknown fields and the like.
    pub warnings: Vec<String>,
}

/// Merges file, drop-ins and overrides (values of explicit flags), in that order.
pub fn load(file: Option<&Path>, directory: Option<&Path>, overrides: Value) -> Result<Loaded, ConfigError> {
    let mut merged = match file {
        Some(path) => document(path)?,
        None => Value::Object(Map::new()),
    };
    let mut warnings = Vec::new();
    if let Some(path) = file {
        warnings.extend(unknown_fields(&merged, path));
        absolute_paths(&mut merged, path);
    }
    for path in directory.map(drop_ins).transpose()?.unwrap_or_default() {
        let patch = document(&path)?;
        warnings.extend(unknown_fields(&patch, &path));
        merge(&mut merged, patch);
    }
    merge(&mut merged, overrides);
    let explicit_report = merged.get("nodeStatusReportFrequency").is_some();
    let explicit_update = merged.get("nodeStatusUpdateFrequency").is_some();
    let mut config: KubeletConfiguration =
        serde_json::from_value(merged).map_err(|error| ConfigError::Invalid(error.to_string()))?;
    if explicit_update && !explicit_report {
        config.node_status_report_frequency = config.node_status_update_frequency;
    }
    if config.merge_default_eviction_settings {
        for (signal, value) in default_eviction_hard() {
            config.eviction_hard.entry(signal).or_insert(value);
        }
    }
    validate(&config)?;
    Ok(Loaded { config, warnings })
}

fn document(path: &Path) -> Result<Value, ConfigError> {
    let fail = |error: String| ConfigError::Decode { path: path.to_owned(), error };
    let text = fs::read_to_string(path)
        .map_err(|error| ConfigError::Read { path: path.to_owned(), error: error.to_string() })?;
    if text.trim().is_empty() {
        return Err(fail(format!("kubelet config file {:?} was empty", path.display())));
    }
    let value: Value = serde_yaml::from_str(&text).map_err(|error| fail(error.to_string()))?;
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    if field("kind") != KIND || field("apiVersion") != API_VERSION {
        let found = format!("no kind {:?} is registered for version {:?}", field("kind"), field("apiVersion"));
        return Err(fail(found));
    }
    Ok(value)
}

/// `*.conf` below a directory in the order of their paths.
fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(directory).sort_by_file_name() {
        let entry =
            entry.map_err(|error| ConfigError::Read { path: directory.to_owned(), error: error.to_string() })?;
        if entry.file_type().is_file() && entry.path().extension().is_some_and(|extension| extension == "conf") {
            found.push(entry.into_path());
        }
    }
    Ok(found)
}

/// JSON merge patch: maps merge, everything else replaces, null removes.
fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(&key);
                } else {
                    merge(target.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => *target = patch,
    }
}

fn unknown_fields(document: &Value, path: &Path) -> Vec<String> {
    let known = serde_json::to_value(KubeletConfiguration::default()).unwrap_or_default();
    let optional = ["singleProcessOOMKill", "maxParallelImagePulls", "userNamespaces"];
    let known: BTreeSet<&str> =
        known.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).chain(optional).collect();
    let found = document.as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    found
        .filter(|key| !known.contains(key))
        .map(|key| format!("unknown field {key:?} in {}, using lenient decoding", path.display()))
        .collect()
}

const PATH_FIELDS: [&str; 4] = ["staticPodPath", "tlsCertFile", "tlsPrivateKeyFile", "resolvConf"];

/// Relative paths count from the file's directory.
fn absolute_paths(document: &mut Value, file: &Path) {
    let base = file.parent().unwrap_or(Path::new("/"));
    let fix = |value: &mut Value| {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty() && !text.starts_with('/')) {
            *value = Value::String(base.join(text).display().to_string());
        }
    };
    for name in PATH_FIELDS {
        if let Some(value) = document.get_mut(name) {
            fix(value);
        }
    }
    if let Some(value) = document.pointer_mut("/authentication/x509/clientCAFile") {
        fix(value);
    }
}

fn validate(config: &KubeletConfiguration) -> Result<(), ConfigError> {
    let mut problems = Vec::new();
    let mut check = |ok: bool, text: String| {
        if !ok {
            problems.push(text);
        }
    };
    let percent = |value: i32| (0..=100).contains(&value);
    let (high, low) = (config.image_gc_high_threshold_percent, config.image_gc_low_threshold_percent);
    check(
        percent(high),
        format!("imageGCHighThresholdPercent (--image-gc-high-threshold) {high} must be between 0 and 100, inclusive"),
    );
    check(
        percent(low) && low < high,
        format!(
            "imageGCLowThresholdPercent (--image-gc-low-threshold) {low} must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) {high}"
        ),
    );
    check(config.max_pods >= 0, format!("maxPods (--max-pods) {} must not be a negative number", config.max_pods));
    check(config.node_lease_duration_seconds > 0, "nodeLeaseDurationSeconds must be greater than 0".to_owned());
    check(
        matches!(config.cgroup_driver.as_str(), "cgroupfs" | "systemd"),
        format!("cgroupDriver (--cgroup-driver) {:?} must be cgroupfs or systemd", config.cgroup_driver),
    );
    check(
        matches!(config.authorization.mode.as_str(), "AlwaysAllow" | "Webhook"),
        format!("authorization.mode {:?} must be AlwaysAllow or Webhook", config.authorization.mode),
    );
    check(
        config.container_log_max_files >= 2,
        format!("containerLogMaxFiles must be greater than 1, got {}", config.container_log_max_files),
    );
    let restart = config.crash_loop_back_off.max_container_restart_period;
    check(
        (Span::seconds(1)..=Span::seconds(300)).contains(&restart),
        "crashLoopBackOff.maxContainerRestartPeriod must be between 1s and 300s".to_owned(),
    );
    check(
        config.max_parallel_image_pulls.is_none_or(|n| n >= 1 && (n == 1 || !config.serialize_image_pulls)),
        "maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls (--serialize-image-pulls) is false"
            .to_owned(),
    );
    if problems.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(problems.join(", "))) }
}
