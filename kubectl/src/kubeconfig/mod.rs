//! Kubeconfig files: reading, merging, and what a command line makes of them.

pub mod client;
pub mod document;
pub mod files;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::CommandError;

/// A named cluster, user or context.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Name.
    pub name: String,
    /// Settings, with paths made absolute.
    pub value: Map<String, Value>,
    /// The file that defines it.
    pub origin: PathBuf,
}

impl Entry {
    /// A text setting; empty if absent.
    pub fn text(&self, key: &str) -> &str {
        self.value.get(key).and_then(Value::as_str).unwrap_or("")
    }
}

/// All files merged: the first definition of a name wins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kubeconfig {
    /// Clusters.
    pub clusters: Vec<Entry>,
    /// Users.
    pub users: Vec<Entry>,
    /// Contexts.
    pub contexts: Vec<Entry>,
    /// Current context; empty if none.
    pub current_context: String,
    /// Preferences, if a file has some.
    pub preferences: Map<String, Value>,
    /// Extensions as they stand in the first file that has some.
    pub extensions: Option<Value>,
    /// Files in order of precedence, whether they exist or not.
    pub files: Vec<PathBuf>,
    /// Whether the one file was named on the command line.
    pub explicit: bool,
}

impl Kubeconfig {
    /// Reads the files that the command line or the environment name.
    pub fn load(explicit: Option<&str>) -> Result<Self, CommandError> {
        let (files, explicit) = files::paths(explicit);
        if explicit && let Some(file) = files.first() {
            files::stat(file)?;
        }
        let mut merged = Self { files: files.clone(), explicit, ..Self::default() };
        for file in &files {
            match std::fs::read(file) {
                Ok(bytes) => {
                    let document = files::decode(&bytes).map_err(|e| {
                        CommandError::plain(format!("error loading config file \"{}\": {e}", file.display()))
                    })?;
                    merged.add(&document, file);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(CommandError::plain(format!(
                        "error loading config file \"{0}\": open {0}: {1}",
                        file.display(),
                        files::go_io_text(&error)
                    )));
                }
            }
        }
        Ok(merged)
    }

    /// Reads the files without making paths absolute.
    pub fn load_raw(explicit: Option<&str>) -> Result<Self, CommandError> {
        let (files, explicit) = files::paths(explicit);
        let mut merged = Self { files: files.clone(), explicit, ..Self::default() };
        for file in &files {
            let one = document::read(file)?;
            merged.add_raw(&document::document(&one), file);
        }
        Ok(merged)
    }

    /// The entries of a section.
    pub fn section_mut(&mut self, section: document::Section) -> &mut Vec<Entry> {
        match section {
            document::Section::Clusters => &mut self.clusters,
            document::Section::Users => &mut self.users,
            document::Section::Contexts => &mut self.contexts,
        }
    }

    /// The file that gets what is new: the first that exists, or the last.
    pub fn default_file(&self) -> PathBuf {
        let existing = self.files.iter().find(|f| f.exists());
        existing.or(self.files.last()).cloned().unwrap_or_default()
    }

    fn add(&mut self, document: &Value, file: &Path) {
        let first = self.len();
        self.add_raw(document, file);
        let directory = file.parent().unwrap_or(Path::new(""));
        let resolve = |entries: &mut [Entry], paths: &[&str]| {
            for entry in entries {
                for key in paths {
                    if let Some(Value::String(path)) = entry.value.get_mut(*key) {
                        files::absolute(path, directory);
                    }
                }
                if let Some(Value::String(command)) = entry.value.get_mut("exec").and_then(|e| e.get_mut("command"))
                    && command.contains('/')
                {
                    files::absolute(command, directory);
                }
            }
        };
        resolve(&mut self.clusters[first.0..], &["certificate-authority"]);
        resolve(&mut self.users[first.1..], &["client-certificate", "client-key", "tokenFile"]);
    }

    fn len(&self) -> (usize, usize) {
        (self.clusters.len(), self.users.len())
    }

    fn add_raw(&mut self, document: &Value, file: &Path) {
        let named = |key: &str, inner: &str| -> Vec<Entry> {
            let list = document.get(key).and_then(Value::as_array).map_or(&[] as &[Value], Vec::as_slice);
            list.iter()
                .filter_map(|item| {
                    let name = item.get("name").and_then(Value::as_str)?.to_owned();
                    let value = item.get(inner).and_then(Value::as_object).cloned().unwrap_or_default();
                    Some(Entry { name, value, origin: file.to_path_buf() })
                })
                .collect()
        };
        let first = |all: &mut Vec<Entry>, more: Vec<Entry>| {
            for entry in more {
                if !all.iter().any(|e| e.name == entry.name) {
                    all.push(entry);
                }
            }
        };
        first(&mut self.clusters, named("clusters", "cluster"));
        first(&mut self.users, named("users", "user"));
        first(&mut self.contexts, named("contexts", "context"));
        if self.current_context.is_empty() {
            self.current_context =
                document.get("current-context").and_then(Value::as_str).unwrap_or_default().to_owned();
        }
        if self.preferences.is_empty() {
            self.preferences = document.get("preferences").and_then(Value::as_object).cloned().unwrap_or_default();
        }
        if self.extensions.is_none() {
            self.extensions = document.get("extensions").filter(|e| !e.is_null()).cloned();
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.clusters.is_empty() && self.users.is_empty() && self.contexts.is_empty() && self.current_context.is_empty()
    }

    /// A context by name.
    pub fn context(&self, name: &str) -> Option<&Entry> {
        self.contexts.iter().find(|e| e.name == name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_definition_wins() {
        let mut config = Kubeconfig::default();
        let one = json!({"clusters": [{"name": "a", "cluster": {"server": "https://1", "certificate-authority": "ca"}}],
                         "current-context": ""});
        let two = json!({"clusters": [{"name": "a", "cluster": {"server": "https://2"}}, {"name": "b"}],
                         "current-context": "x"});
        config.add(&one, Path::new("/one/config"));
        config.add(&two, Path::new("/two/config"));
        assert_eq!(config.clusters.len(), 2);
        assert_eq!(config.clusters[0].text("server"), "https://1");
        assert_eq!(config.clusters[0].text("certificate-authority"), "/one/ca");
        assert_eq!(config.current_context, "x");
    }
}
