//! Reading the configuration file, its drop-ins, and command-line overrides.

use std::path::{Path, PathBuf};

use runtime::config_file;
use serde_json::{Map, Value};

use super::validate::validate;
use super::{API_VERSION, KIND, KubeletConfiguration, default_eviction_hard};

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
    let mut merged = Value::Object(Map::new());
    let mut warnings = Vec::new();
    let drop_ins = directory.map(drop_ins).transpose()?.unwrap_or_default();
    for path in file.iter().copied().chain(drop_ins.iter().map(PathBuf::as_path)) {
        let (mut patch, odd) = document(path)?;
        warnings.extend(odd);
        absolute_paths(&mut patch, path);
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
    let problems = validate(&config);
    if !problems.is_empty() {
        return Err(ConfigError::Invalid(problems.join(", ")));
    }
    reserve_cpus(&mut config);
    Ok(Loaded { config, warnings })
}

/// A configuration document, and what is odd about it.
fn document(path: &Path) -> Result<(Value, Vec<String>), ConfigError> {
    let fail = |error: String| ConfigError::Decode { path: path.to_owned(), error };
    let text = config_file::read(path)
        .map_err(|error| ConfigError::Read { path: path.to_owned(), error: util::chain(&error).to_string() })?;
    if text.trim().is_empty() {
        return Err(fail(format!("kubelet config file {:?} was empty", path.display())));
    }
    let (value, problems) = machinery::decode::decode_yaml(text.as_bytes()).map_err(|error| fail(error.to_string()))?;
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    if field("kind") != KIND || field("apiVersion") != API_VERSION {
        let found = format!("no kind {:?} is registered for version {:?}", field("kind"), field("apiVersion"));
        return Err(fail(found));
    }
    let lenient = |problem: String| format!("{problem} in {}, using lenient decoding", path.display());
    let mut odd: Vec<String> = problems.strict_text().map(lenient).into_iter().collect();
    let known = serde_json::to_value(KubeletConfiguration::default()).unwrap_or_default();
    let mut unknown = Vec::new();
    unknown_fields("", &value, &known, &mut unknown);
    odd.extend(unknown.into_iter().map(|field| lenient(format!("unknown field {field:?}"))));
    Ok((value, odd))
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

/// Fields that are absent from the default configuration.
const OPTIONAL: [&str; 4] = ["singleProcessOOMKill", "maxParallelImagePulls", "userNamespaces", "tracing"];
/// Fields whose keys are names of their own.
const OPEN: [&str; 12] = [
    "staticPodURLHeader",
    "cpuManagerPolicyOptions",
    "topologyManagerPolicyOptions",
    "qosReserved",
    "evictionHard",
    "evictionSoft",
    "evictionSoftGracePeriod",
    "evictionMinimumReclaim",
    "featureGates",
    "systemReserved",
    "kubeReserved",
    "logging",
];

fn unknown_fields(prefix: &str, document: &Value, known: &Value, found: &mut Vec<String>) {
    let (Some(document), Some(known)) = (document.as_object(), known.as_object()) else { return };
    for (key, value) in document {
        match known.get(key) {
            Some(_) if OPEN.contains(&key.as_str()) => {}
            Some(inner) => unknown_fields(&format!("{prefix}{key}."), value, inner, found),
            None if prefix.is_empty() && OPTIONAL.contains(&key.as_str()) => {}
            None => found.push(format!("{prefix}{key}")),
        }
    }
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

/// Cpus that are reserved by number are reserved by count, instead of what is reserved otherwise.
fn reserve_cpus(config: &mut KubeletConfiguration) {
    if let Some(count) = super::validate::cpu_count(&config.reserved_system_cpus).filter(|count| *count > 0) {
        config.kube_reserved.remove("cpu");
        config.system_reserved.insert("cpu".to_owned(), count.to_string());
    }
}
