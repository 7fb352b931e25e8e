//! What the server serves, and what users' words for it mean.

use machinery::GroupVersion;
use serde_json::Value;

use crate::error::CommandError;

/// A resource as discovery lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// Group; empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural.
    pub plural: String,
    /// Singular.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories.
    pub categories: Vec<String>,
    /// Verbs.
    pub verbs: Vec<String>,
    /// Subresources.
    pub subresources: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
}

impl Resource {
    /// `plural.group`, or `plural` in the core group.
    pub fn title(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `kind.group` in lower case, as results are reported.
    pub fn kind_title(&self) -> String {
        let kind = self.kind.to_lowercase();
        if self.group.is_empty() { kind } else { format!("{kind}.{}", self.group) }
    }

    /// `apiVersion` of objects.
    pub fn api_version(&self) -> String {
        GroupVersion::new(&self.group, &self.version).to_string()
    }

    /// Path of a collection; of all namespaces when `namespace` is empty.
    pub fn path(&self, namespace: &str) -> String {
        let root = if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        let scope = match namespace {
            "" => String::new(),
            _ if !self.namespaced => String::new(),
            namespace => format!("/namespaces/{namespace}"),
        };
        format!("{root}/{}{scope}/{}", self.version, self.plural)
    }

    /// Whether a verb is served.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    fn of(group: &str, version: &str, row: &Value) -> Self {
        let text = |key: &str| row[key].as_str().unwrap_or("").to_owned();
        let list = |key: &str| -> Vec<String> {
            row[key].as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
        };
        let below = row["subresources"].as_array().into_iter().flatten();
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: text("resource"),
            singular: text("singularResource"),
            kind: row["responseKind"]["kind"].as_str().unwrap_or("").to_owned(),
            short_names: list("shortNames"),
            categories: list("categories"),
            verbs: list("verbs"),
            subresources: below.filter_map(|s| s["subresource"].as_str().map(str::to_owned)).collect(),
            namespaced: row["scope"] == "Namespaced",
        }
    }
}

/// A group with its versions, the preferred one first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Name; empty for the core group.
    pub name: String,
    /// Versions.
    pub versions: Vec<String>,
}

/// Everything that is served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Groups in the server's order, the core group first.
    pub groups: Vec<Group>,
    /// Resources in the order of groups and versions.
    pub resources: Vec<Resource>,
    /// Group versions whose server did not answer.
    pub failed: Vec<String>,
}

impl Served {
    /// Adds the groups of an aggregated discovery document.
    pub fn add(&mut self, document: &Value) {
        for group in document["items"].as_array().into_iter().flatten() {
            let name = group["metadata"]["name"].as_str().unwrap_or("");
            let mut versions = Vec::new();
            for version in group["versions"].as_array().into_iter().flatten() {
                let number = version["version"].as_str().unwrap_or("");
                versions.push(number.to_owned());
                if version["freshness"] == "Stale" {
                    self.failed.push(GroupVersion::new(name, number).to_string());
                }
                let resources = version["resources"].as_array().into_iter().flatten();
                self.resources.extend(resources.map(|r| Resource::of(name, number, r)));
            }
            self.groups.push(Group { name: name.to_owned(), versions });
        }
    }

    /// Adds one version of a group from the older form of discovery.
    pub fn add_list(&mut self, group: &str, version: &str, document: &Value) {
        let rows = || document["resources"].as_array().into_iter().flatten();
        for row in rows() {
            let name = row["name"].as_str().unwrap_or("");
            if name.contains('/') {
                continue;
            }
            let mut resource = Resource::of(group, version, row);
            resource.plural = name.to_owned();
            resource.singular = row["singularName"].as_str().unwrap_or("").to_owned();
            resource.kind = row["kind"].as_str().unwrap_or("").to_owned();
            resource.namespaced = row["namespaced"] == true;
            let prefix = format!("{name}/");
            resource.subresources =
                rows().filter_map(|r| r["name"].as_str()?.strip_prefix(&prefix).map(str::to_owned)).collect();
            self.resources.push(resource);
        }
    }

    /// Each resource once, in the preferred version of its group that has it.
    pub fn preferred(&self) -> Vec<&Resource> {
        let mut chosen: Vec<&Resource> = Vec::new();
        for resource in &self.resources {
            if !chosen.iter().any(|r| r.group == resource.group && r.plural == resource.plural) {
                chosen.push(resource);
            }
        }
        chosen
    }

    /// The resource that a word stands for: plural, singular, short name or kind, perhaps with `.group` or
    /// `.version.group`.
    pub fn find(&self, word: &str) -> Option<&Resource> {
        let (name, rest) = word.split_once('.').unwrap_or((word, ""));
        let lower = name.to_lowercase();
        let in_group = |r: &Resource| {
            rest.is_empty()
                || r.group == rest
                || format!("{}.{}", r.version, r.group) == rest
                || (r.group.is_empty() && rest == format!("{}.", r.version))
        };
        let by = |fits: &dyn Fn(&Resource) -> bool| self.resources.iter().find(|r| fits(r) && in_group(r));
        by(&|r| r.plural == lower || r.singular == lower)
            .or_else(|| by(&|r| r.kind.to_lowercase() == lower))
            .or_else(|| by(&|r| r.short_names.contains(&lower)))
            // Groups are also known by how they begin: `deploy.apps` and `ing.networking` are the same kind of word.
            .or_else(|| {
                let prefixed = |r: &&Resource| {
                    !rest.is_empty()
                        && r.group.starts_with(rest)
                        && (r.plural == lower || r.singular == lower || r.short_names.contains(&lower))
                };
                self.resources.iter().find(prefixed)
            })
    }

    /// Resources of other groups that have a word as a short name too, when it is one of `found`.
    pub fn of_lower_priority(&self, word: &str, found: &Resource) -> Vec<&Resource> {
        let short = word.to_lowercase();
        if !found.short_names.contains(&short) || found.plural == short {
            return Vec::new();
        }
        let others = self.preferred().into_iter();
        others
            .filter(|r| (&r.group, &r.plural) != (&found.group, &found.plural) && r.short_names.contains(&short))
            .collect()
    }

    /// The members of a category, each in its preferred version.
    pub fn category(&self, name: &str) -> Vec<&Resource> {
        self.preferred().into_iter().filter(|r| r.categories.iter().any(|c| c == name)).collect()
    }

    /// The resource of a kind.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        self.resources.iter().find(|r| r.kind == kind && r.api_version() == api_version)
    }
}

/// No resource is called so.
pub fn unknown_type(word: &str) -> CommandError {
    CommandError::plain(format!("the server doesn't have a resource type {word:?}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_find_resources() {
        let mut served = Served::default();
        served.add(&json!({"items": [{"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": [
            {"resource": "deployments", "singularResource": "deployment", "shortNames": ["deploy"],
             "responseKind": {"kind": "Deployment"}, "scope": "Namespaced", "categories": ["all"],
             "subresources": [{"subresource": "scale"}]}]}]}]}));
        for word in ["deploy", "deployment", "deployments", "Deployment", "deployments.apps", "deploy.v1.apps"] {
            assert!(served.find(word).is_some(), "{word}");
        }
        assert!(served.find("deploy.batch").is_none() && served.find("pods").is_none());
        let deploy = &served.resources[0];
        assert_eq!(deploy.path("n"), "/apis/apps/v1/namespaces/n/deployments");
        assert_eq!(deploy.path(""), "/apis/apps/v1/deployments");
        assert_eq!((deploy.title().as_str(), deploy.kind_title().as_str()), ("deployments.apps", "deployment.apps"));
        assert_eq!(served.category("all").len(), 1);
        assert_eq!(deploy.subresources, ["scale"]);
    }
}
