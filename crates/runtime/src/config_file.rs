//! Component configuration files: one YAML or JSON document, of a known kind, without unknown fields.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Largest configuration file that is read.
const MAX_SIZE: u64 = 4 << 20;

/// A configuration file that is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("failed to read config file {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is of another kind.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    Kind {
        /// Kind of the document.
        kind: String,
        /// Its apiVersion.
        api_version: String,
    },
    /// Its content is wrong.
    #[error("strict decoding error: {0}")]
    Strict(String),
    /// It is no YAML at all, or holds values of the wrong type.
    #[error("couldn't decode: {0}")]
    Decode(String),
}

/// Reads the text of a configuration file.
pub fn read(path: &Path) -> Result<String, ConfigError> {
    let fail = |source| ConfigError::Read { path: path.into(), source };
    let size = std::fs::metadata(path).map_err(fail)?.len();
    if size > MAX_SIZE {
        return Err(fail(std::io::Error::other(format!("file of {size} bytes is larger than {MAX_SIZE}"))));
    }
    std::fs::read_to_string(path).map_err(fail)
}

/// Decodes a document that must have one of the given apiVersions and the kind. `T` says
/// `#[serde(deny_unknown_fields)]` and has `apiVersion` and `kind` fields taken away before decoding.
pub fn decode<T: DeserializeOwned>(text: &str, api_versions: &[&str], kind: &str) -> Result<T, ConfigError> {
    let (value, problems) =
        machinery::decode::decode_yaml(text.as_bytes()).map_err(|e| ConfigError::Decode(e.to_string()))?;
    if let Some(text) = problems.strict_text() {
        return Err(ConfigError::Strict(text));
    }
    let serde_json::Value::Object(mut fields) = value else {
        return Err(ConfigError::Decode("the document is not a mapping".into()));
    };
    let mut take = |name: &str| match fields.remove(name) {
        Some(serde_json::Value::String(text)) => text,
        _ => String::new(),
    };
    let (found_version, found_kind) = (take("apiVersion"), take("kind"));
    if found_kind != kind || !api_versions.contains(&found_version.as_str()) {
        return Err(ConfigError::Kind { kind: found_kind, api_version: found_version });
    }
    serde_json::from_value(serde_json::Value::Object(fields)).map_err(|e| explain(&e))
}

fn explain(error: &serde_json::Error) -> ConfigError {
    let text = error.to_string();
    match text.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')) {
        Some((field, _)) => ConfigError::Strict(format!("unknown field {field:?}")),
        None => ConfigError::Decode(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(default)]
        size: i32,
    }

    fn decoded(text: &str) -> Result<i32, String> {
        decode::<Sample>(text, &["x.io/v1"], "Sample").map(|s| s.size).map_err(|e| e.to_string())
    }

    #[test]
    fn strict() {
        assert_eq!(decoded("apiVersion: x.io/v1\nkind: Sample\nsize: 3\n"), Ok(3));
        let unknown = decoded("apiVersion: x.io/v1\nkind: Sample\nsiez: 3\n");
        assert_eq!(unknown, Err("strict decoding error: unknown field \"siez\"".into()));
        let other = decoded("apiVersion: x.io/v2\nkind: Sample\n");
        assert_eq!(other, Err("no kind \"Sample\" is registered for version \"x.io/v2\"".into()));
        assert!(decoded("apiVersion: x.io/v1\nkind: Sample\nsize: 1\nsize: 2\n").is_err());
    }
}
