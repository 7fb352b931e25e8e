//! What the server serves, remembered on disk: the files, their places and their lifetime are those that other clients
//! have too.

use std::{
    io::Write,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use runtime::env;
use serde_json::{Value, json};

use crate::{
    discovery::{Group, Served},
    flags::Flags,
};

/// What is older is not believed.
const LIFETIME: Duration = Duration::from_secs(6 * 60 * 60);
const GROUPS: &str = "servergroups.json";
const RESOURCES: &str = "serverresources.json";

/// The files about one server.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    directory: PathBuf,
}

impl Memory {
    /// As the flags say; nothing if there is no place for it.
    pub(super) fn of(flags: &Flags, server: &str) -> Option<Self> {
        let root = match flags.non_empty("cache-dir") {
            Some(directory) => PathBuf::from(directory),
            None => match env::non_empty("KUBECACHEDIR") {
                Some(directory) => PathBuf::from(directory),
                None => PathBuf::from(env::non_empty("HOME")?).join(".kube").join("cache"),
            },
        };
        Some(Self { directory: root.join("discovery").join(place(server)) })
    }

    /// What was remembered, if all of it is young enough.
    pub(super) fn read(&self) -> Option<Served> {
        let groups = young(&self.directory.join(GROUPS))?;
        let mut served = Served::default();
        for group in groups["groups"].as_array()? {
            let name = group["name"].as_str()?;
            let mut versions = Vec::new();
            for version in group["versions"].as_array()? {
                let version = version["version"].as_str()?;
                served.add_list(name, version, &young(&self.directory.join(Self::file(name, version)?))?);
                versions.push(version.to_owned());
            }
            served.groups.push(Group { name: name.to_owned(), versions });
        }
        Some(served)
    }

    /// Remembers lists of group versions. What cannot be written is asked for again the next time.
    pub(super) fn write(&self, groups: &[Group], lists: &[(String, String, Value)]) {
        let _forgotten = self.try_write(groups, lists).is_err();
    }

    fn try_write(&self, groups: &[Group], lists: &[(String, String, Value)]) -> std::io::Result<()> {
        for (group, version, list) in lists {
            if let Some(file) = Self::file(group, version) {
                put(&self.directory.join(file), list)?;
            }
        }
        let groups = groups.iter().map(|group| {
            let version = |version: &String| {
                let both = machinery::GroupVersion::new(&group.name, version).to_string();
                json!({"groupVersion": both, "version": version})
            };
            let versions: Vec<Value> = group.versions.iter().map(version).collect();
            json!({"name": group.name, "preferredVersion": versions.first(), "versions": versions})
        });
        let groups: Vec<Value> = groups.collect();
        put(&self.directory.join(GROUPS), &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
    }

    /// Path of a list; names that would lead elsewhere have none.
    fn file(group: &str, version: &str) -> Option<PathBuf> {
        let fits = |name: &str| !name.contains(['/', '\0']) && name != ".." && name != ".";
        (fits(group) && fits(version) && !version.is_empty()).then(|| Path::new(group).join(version).join(RESOURCES))
    }
}

/// The server's address as a directory.
fn place(server: &str) -> String {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    let kept = |c: char| if c.is_ascii_alphanumeric() || "_/.()".contains(c) { c } else { '_' };
    let name: String = rest.chars().map(kept).collect();
    name.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect::<Vec<_>>().join("/")
}

fn young(file: &Path) -> Option<Value> {
    let age = std::fs::metadata(file).ok()?.modified().ok()?.elapsed().ok()?;
    if age > LIFETIME {
        return None;
    }
    serde_json::from_slice(&std::fs::read(file).ok()?).ok()
}

/// Puts a file in its place at once, so that nobody reads half of it.
fn put(file: &Path, value: &Value) -> std::io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(directory)?;
    let mut new = tempfile::NamedTempFile::new_in(directory)?;
    new.write_all(value.to_string().as_bytes())?;
    new.as_file().set_permissions(std::fs::Permissions::from_mode(0o660))?;
    new.persist(file).map(drop).map_err(|e| e.error)
}

/// The lists of an aggregated document, one per group version.
pub(super) fn lists(document: &Value) -> Vec<(String, String, Value)> {
    let mut lists = Vec::new();
    for group in document["items"].as_array().into_iter().flatten() {
        let name = group["metadata"]["name"].as_str().unwrap_or("");
        for version in group["versions"].as_array().into_iter().flatten().filter(|v| v["freshness"] != "Stale") {
            let number = version["version"].as_str().unwrap_or("");
            let mut rows = Vec::new();
            for resource in version["resources"].as_array().into_iter().flatten() {
                let plural = resource["resource"].as_str().unwrap_or("");
                rows.push(row(plural, resource, resource));
                for below in resource["subresources"].as_array().into_iter().flatten() {
                    let below_name = below["subresource"].as_str().unwrap_or("");
                    rows.push(row(&format!("{plural}/{below_name}"), below, resource));
                }
            }
            let both = machinery::GroupVersion::new(name, number).to_string();
            let list = json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": both, "resources": rows});
            lists.push((name.to_owned(), number.to_owned(), list));
        }
    }
    lists
}

fn row(name: &str, own: &Value, of: &Value) -> Value {
    let mut row = json!({
        "name": name,
        "singularName": of["singularResource"].as_str().unwrap_or(""),
        "namespaced": of["scope"] == "Namespaced",
        "kind": own["responseKind"]["kind"].as_str().unwrap_or(""),
        "verbs": own["verbs"],
    });
    for (key, value) in [
        ("group", &own["responseKind"]["group"]),
        ("version", &own["responseKind"]["version"]),
        ("shortNames", &own["shortNames"]),
        ("categories", &own["categories"]),
    ] {
        if !value.is_null() && value != "" {
            row[key] = value.clone();
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_directories() {
        for (server, expected) in [
            ("https://127.0.0.1:6443", "127.0.0.1_6443"),
            ("https://[::1]:6443/", "___1__6443"),
            ("https://h/k8s/clusters/c-x", "h/k8s/clusters/c_x"),
            ("https://h/../../etc", "h/etc"),
        ] {
            assert_eq!(place(server), expected);
        }
    }

    #[test]
    fn what_is_served_is_remembered() {
        let directory = tempfile::tempdir().expect("a directory");
        let memory = Memory { directory: directory.path().join("discovery/h") };
        assert!(memory.read().is_none());
        let document = json!({"items": [{"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": [
            {"resource": "deployments", "singularResource": "deployment", "shortNames": ["deploy"], "verbs": ["get"],
             "responseKind": {"group": "apps", "version": "v1", "kind": "Deployment"}, "scope": "Namespaced",
             "categories": ["all"], "subresources": [{"subresource": "scale", "verbs": ["get"],
             "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}}]}]}]}]});
        let mut asked = Served::default();
        asked.add(&document);
        memory.write(&asked.groups, &lists(&document));
        assert_eq!(memory.read(), Some(asked));
        let file = memory.directory.join("apps/v1/serverresources.json");
        let list: Value = serde_json::from_slice(&std::fs::read(&file).expect("a file")).expect("JSON");
        assert_eq!(list["resources"][1]["name"], "deployments/scale");
        assert_eq!(list["resources"][1]["kind"], "Scale");
        let old = std::time::SystemTime::now() - LIFETIME - Duration::from_secs(60);
        let opened = std::fs::File::options().write(true).open(&file).expect("a file");
        opened.set_modified(old).expect("a time");
        assert!(memory.read().is_none(), "what is old is not believed");
    }
}
