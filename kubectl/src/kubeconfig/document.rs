//! A kubeconfig as a document: reading it without resolving paths, changing it, writing it back.

use std::{
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use super::{Entry, Kubeconfig, files};
use crate::{error::CommandError, print::yaml};

/// Paths in clusters and users.
const PATHS: [&str; 4] = ["certificate-authority", "client-certificate", "client-key", "tokenFile"];

/// The three kinds of entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// `clusters`.
    Clusters,
    /// `users`.
    Users,
    /// `contexts`.
    Contexts,
}

impl Section {
    /// Key of the list, and of what an entry holds.
    pub fn keys(self) -> (&'static str, &'static str) {
        match self {
            Self::Clusters => ("clusters", "cluster"),
            Self::Users => ("users", "user"),
            Self::Contexts => ("contexts", "context"),
        }
    }

    /// The entries of a configuration.
    pub fn of(self, config: &Kubeconfig) -> &Vec<Entry> {
        match self {
            Self::Clusters => &config.clusters,
            Self::Users => &config.users,
            Self::Contexts => &config.contexts,
        }
    }
}

/// The configuration as a document with entries in order of their names.
pub fn document(config: &Kubeconfig) -> Value {
    let mut root = Map::new();
    root.insert("apiVersion".into(), json!("v1"));
    root.insert("kind".into(), json!("Config"));
    root.insert("current-context".into(), json!(config.current_context));
    for section in [Section::Clusters, Section::Users, Section::Contexts] {
        let (list, inner) = section.keys();
        let mut entries: Vec<(&str, Map<String, Value>)> =
            section.of(config).iter().map(|e| (e.name.as_str(), whole(section, &e.value))).collect();
        entries.sort_by(|a, b| a.0.cmp(b.0));
        let items: Vec<Value> = entries.into_iter().map(|(name, value)| json!({"name": name, inner: value})).collect();
        root.insert(list.into(), if items.is_empty() { Value::Null } else { json!(items) });
    }
    if !config.preferences.is_empty() {
        root.insert("preferences".into(), json!(config.preferences));
    }
    if let Some(extensions) = &config.extensions {
        root.insert("extensions".into(), extensions.clone());
    }
    Value::Object(root)
}

/// Settings with those that are always written.
fn whole(section: Section, value: &Map<String, Value>) -> Map<String, Value> {
    let mut value = value.clone();
    let always: &[&str] = match section {
        Section::Clusters => &["server"],
        Section::Contexts => &["cluster", "user"],
        Section::Users => &[],
    };
    for key in always {
        value.entry(*key).or_insert_with(|| json!(""));
    }
    if let Some(Value::Object(exec)) = value.get_mut("exec") {
        exec.entry("provideClusterInfo").or_insert(json!(false));
    }
    value
}

/// Reads one file as it stands; a missing one is empty.
pub fn read(file: &Path) -> Result<Kubeconfig, CommandError> {
    let mut config = Kubeconfig { files: vec![file.to_path_buf()], ..Kubeconfig::default() };
    match std::fs::read(file) {
        Ok(bytes) => {
            let document = files::decode(&bytes)
                .map_err(|e| CommandError::plain(format!("error loading config file \"{}\": {e}", file.display())))?;
            config.add_raw(&document, file);
            Ok(config)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(config),
        Err(error) => Err(CommandError::plain(format!("open {}: {}", file.display(), files::go_io_text(&error)))),
    }
}

/// Writes a file; the lock keeps others out meanwhile.
pub fn write(config: &Kubeconfig, file: &Path) -> Result<(), CommandError> {
    let fail = |e: std::io::Error| CommandError::plain(format!("open {}: {}", file.display(), files::go_io_text(&e)));
    if let Some(directory) = file.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory).map_err(fail)?;
    }
    let mut lock = file.as_os_str().to_owned();
    lock.push(".lock");
    let lock = PathBuf::from(lock);
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&lock)
        .map_err(|e| CommandError::plain(format!("open {}: {}", lock.display(), files::go_io_text(&e))))?;
    let outcome = replace(config, file);
    // A lock that cannot be removed was removed by another.
    let _gone = std::fs::remove_file(&lock).is_err();
    outcome.map_err(fail)
}

fn replace(config: &Kubeconfig, file: &Path) -> std::io::Result<()> {
    // A link stays a link: what it points to is replaced.
    let target = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_path_buf());
    let directory = target.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new().prefix(".kubeconfig-").tempfile_in(directory)?;
    temporary.write_all(yaml::encode(&document(config)).as_bytes())?;
    temporary.as_file().sync_all()?;
    temporary.persist(&target).map(drop).map_err(|e| e.error)
}

/// Makes paths relative to the file where they lead into its directory.
pub fn relative(value: &mut Map<String, Value>, file: &Path) {
    let directory = file.parent().unwrap_or(Path::new(""));
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf());
    for key in PATHS {
        if let Some(Value::String(path)) = value.get_mut(key)
            && let Ok(inside) = Path::new(path.as_str()).strip_prefix(&directory)
        {
            *path = inside.display().to_string();
        }
    }
}
