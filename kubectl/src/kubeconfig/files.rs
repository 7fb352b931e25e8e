//! Where kubeconfig files are, and their encoding.

use std::path::{Path, PathBuf};

use machinery::decode::decode_yaml;
use runtime::env;
use serde_json::Value;

use crate::error::CommandError;

/// Files in order of precedence, and whether the command line named the one.
pub fn paths(explicit: Option<&str>) -> (Vec<PathBuf>, bool) {
    if let Some(path) = explicit.filter(|p| !p.is_empty()) {
        return (vec![PathBuf::from(path)], true);
    }
    if let Some(list) = env::non_empty("KUBECONFIG") {
        let mut files: Vec<PathBuf> = Vec::new();
        for path in list.split(':').filter(|p| !p.is_empty()).map(PathBuf::from) {
            if !files.contains(&path) {
                files.push(path);
            }
        }
        return (files, false);
    }
    (env::home().map(|home| home.join(".kube/config")).into_iter().collect(), false)
}

/// Fails if the file is not there.
pub fn stat(file: &Path) -> Result<(), CommandError> {
    std::fs::metadata(file)
        .map(drop)
        .map_err(|e| CommandError::plain(format!("stat {}: {}", file.display(), go_io_text(&e))))
}

/// The text of a failed system call as Go has it.
pub fn go_io_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |c| c.to_lowercase().chain(letters).collect())
}

/// Decodes a file; an empty one is an empty configuration.
pub fn decode(bytes: &[u8]) -> Result<Value, String> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Object(serde_json::Map::new()));
    }
    let (document, _) = decode_yaml(bytes).map_err(|e| e.to_string())?;
    match document {
        Value::Object(_) => Ok(document),
        Value::Null => Ok(Value::Object(serde_json::Map::new())),
        _ => Err("couldn't get version/kind; json parse error: json: cannot unmarshal string into Go value of type \
                  struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
                  \"json:\\\"kind,omitempty\\\"\" }"
            .to_owned()),
    }
}

/// Makes a path that is relative to `directory` absolute.
pub fn absolute(path: &mut String, directory: &Path) {
    if !path.is_empty() && !Path::new(path.as_str()).is_absolute() {
        *path = normal(&directory.join(path.as_str())).display().to_string();
    }
}

/// Without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}
