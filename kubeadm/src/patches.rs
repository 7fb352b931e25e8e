//! Patches that users put beside the configuration.

use std::path::{Path, PathBuf};

use machinery::{gvk::GroupVersionKind, patch};
use serde_json::Value;

use crate::{
    error::{Context, Result, fail},
    host::{Host, PathKind},
    yaml,
};

const TARGETS: [&str; 6] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubeletconfiguration",
    "corednsdeployment",
];

/// Form of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Strategic,
    Merge,
    Json,
}

impl Form {
    fn media_type(self) -> &'static str {
        match self {
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Json => "application/json-patch+json",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Patch {
    target: &'static str,
    form: Form,
    content: Value,
}

/// The patches of a directory, in the order they apply.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patches(Vec<Patch>);

impl Patches {
    /// Reads a directory.
    pub fn read(host: &dyn Host, directory: &Path) -> Result<Self> {
        host.line(&format!("[patches] Reading patches from path {:?}", directory.display().to_string()));
        let (mut patches, mut found, mut ignored) = (Vec::new(), Vec::new(), Vec::new());
        for file in files(host, directory)? {
            let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let Some((target, form)) = parse_name(host, &name)? else {
                ignored.push(name);
                continue;
            };
            let text = host.read_text(&file).with_context(|| format!("could not read {}", file.display()))?;
            for document in yaml::split(&text) {
                patches.push(Patch { target, form, content: yaml::parse(document)? });
            }
            found.push(name);
        }
        if !found.is_empty() {
            host.line(&format!("[patches] Found the following patch files: [{}]", found.join(" ")));
        }
        if !ignored.is_empty() {
            host.line(&format!("[patches] Ignored the following files: [{}]", ignored.join(" ")));
        }
        Ok(Self(patches))
    }

    /// Applies the patches of a target.
    pub fn apply(&self, host: &dyn Host, target: &str, mut value: Value) -> Result<Value> {
        for one in self.0.iter().filter(|patch| patch.target == target) {
            value = match one.form {
                Form::Merge => patch::merge::apply(&value, &one.content),
                Form::Json => patch::json::apply(&value, &one.content),
                Form::Strategic => strategic(target, &value, &one.content),
            }
            .with_context(|| {
                format!("could not apply patch of type {:?} to target {target:?}", one.form.media_type())
            })?;
            host.line(&format!("[patches] Applied patch of type {:?} to target {target:?}", one.form.media_type()));
        }
        Ok(value)
    }
}

/// The kubelet's configuration has no merge keys: there a strategic patch is a merge patch.
fn strategic(target: &str, value: &Value, content: &Value) -> machinery::status::ApiResult<Value> {
    let kind = match target {
        "kubeletconfiguration" => return patch::merge::apply(value, content),
        "corednsdeployment" => GroupVersionKind::new("apps", "v1", "Deployment"),
        _ => GroupVersionKind::new("", "v1", "Pod"),
    };
    match api::api().schema(&kind) {
        Some(schema) => patch::strategic::apply(value, content, schema),
        None => patch::merge::apply(value, content),
    }
}

/// All files below a directory in lexical order.
fn files(host: &dyn Host, directory: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    let entries = host
        .list(directory)
        .with_context(|| format!("could not list patch files for path {:?}", directory.display().to_string()))?;
    for entry in entries {
        match host.kind(&entry) {
            Some(PathKind::Directory) => all.extend(files(host, &entry)?),
            Some(PathKind::File) => all.push(entry),
            _ => {}
        }
    }
    Ok(all)
}

/// `TARGET[SUFFIX][+TYPE].EXTENSION`; `None` for other names.
fn parse_name(host: &dyn Host, name: &str) -> Result<Option<(&'static str, Form)>> {
    let Some((stem, extension)) = name.rsplit_once('.') else { return Ok(None) };
    if !["json", "yaml"].contains(&extension) {
        return Ok(None);
    }
    let (stem, form) = match stem.split_once('+') {
        None => (stem, Form::Strategic),
        Some((stem, "strategic")) => (stem, Form::Strategic),
        Some((stem, "merge")) => (stem, Form::Merge),
        Some((stem, "json")) => (stem, Form::Json),
        Some(_) => return fail!("unknown or missing patch type after '+', must be one of [json merge strategic]"),
    };
    match TARGETS.iter().find(|target| stem.starts_with(**target)) {
        Some(target) => Ok(Some((target, form))),
        None => {
            host.warn(&format!(
                "[patches] Ignoring file {name:?}: unknown target, must be one of [{}]\n",
                TARGETS.join(" ")
            ));
            Ok(None)
        }
    }
}
