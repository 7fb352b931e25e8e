//! Documents of a configuration file: sorted by kind, converted to the current version, decoded.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    API_VERSION,
    component::{KUBELET_API_VERSION, PROXY_API_VERSION},
    convert,
};
use crate::{
    error::{Context, Error, Result, fail},
    host::Host,
    yaml,
};

/// What happens to fields that nobody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// They are reported and dropped.
    Warn,
    /// They are an error.
    Fail,
}

/// A document of the current version.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its kind.
    pub kind: String,
    /// Its fields without `apiVersion` and `kind`, but with them for components' configurations.
    pub value: Value,
}

/// The documents of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Documents(Vec<Document>);

const OLD: [(&str, &str); 5] = [
    ("kubeadm.k8s.io/v1alpha1", "v1.11"),
    ("kubeadm.k8s.io/v1alpha2", "v1.12"),
    ("kubeadm.k8s.io/v1alpha3", "v1.14"),
    ("kubeadm.k8s.io/v1beta1", "v1.15"),
    ("kubeadm.k8s.io/v1beta2", "v1.22"),
];
const KINDS: [&str; 5] =
    ["InitConfiguration", "ClusterConfiguration", "JoinConfiguration", "ResetConfiguration", "UpgradeConfiguration"];
const COMPONENTS: [(&str, &str); 2] =
    [("KubeletConfiguration", KUBELET_API_VERSION), ("KubeProxyConfiguration", PROXY_API_VERSION)];

impl Documents {
    /// Reads the text of a file.
    pub fn read(host: &dyn Host, text: &str, strictness: Strictness) -> Result<Self> {
        let mut found = Vec::<Document>::new();
        for part in yaml::split(text) {
            let (value, problems) =
                machinery::decode::decode_yaml(part.as_bytes()).context("error converting YAML to JSON")?;
            let Value::Object(fields) = value else {
                return fail!("invalid configuration: the document is not a mapping");
            };
            let (api_version, kind) = type_of(&fields);
            if api_version.is_empty() || kind.is_empty() {
                return fail!(
                    "invalid configuration for GroupVersionKind {}: kind and apiVersion is mandatory information that \
                     must be specified",
                    gvk(&api_version, &kind)
                );
            }
            if found.iter().any(|document| document.kind == kind) {
                return fail!("invalid configuration: kind {kind:?} is specified twice in YAML file");
            }
            if let Some(text) = problems.strict_text() {
                report(host, strictness, &api_version, &kind, &text)?;
            }
            found.extend(accept(host, fields, &api_version, &kind, strictness)?);
        }
        let mut documents = Self(found);
        convert::spread(&mut documents);
        Ok(documents)
    }

    /// The kinds that are there.
    pub fn kinds(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|document| document.kind.as_str())
    }

    /// Takes the document of a kind.
    pub fn take(&mut self, kind: &str) -> Option<Value> {
        let at = self.0.iter().position(|document| document.kind == kind)?;
        Some(self.0.remove(at).value)
    }

    /// The document of a kind, made when absent.
    pub(super) fn entry(&mut self, kind: &str) -> &mut Value {
        if !self.0.iter().any(|document| document.kind == kind) {
            self.0.push(Document { kind: kind.to_owned(), value: Value::Object(Map::new()) });
        }
        let at = self.0.iter().position(|document| document.kind == kind).unwrap_or(0);
        &mut self.0[at].value
    }

    /// Takes and decodes the document of a kind.
    pub fn decode<T: DeserializeOwned>(
        &mut self,
        host: &dyn Host,
        kind: &str,
        strictness: Strictness,
    ) -> Result<Option<T>> {
        let Some(value) = self.take(kind) else { return Ok(None) };
        decode(host, value, kind, strictness).map(Some)
    }

    /// Warns about what a command does not use.
    pub fn report_unused(&self, host: &dyn Host) {
        for document in &self.0 {
            let api_version =
                COMPONENTS.iter().find(|(kind, _)| *kind == document.kind).map_or(API_VERSION, |(_, version)| *version);
            let gvk = gvk(api_version, &document.kind);
            host.warn(&format!("[config] WARNING: Ignored configuration document with GroupVersionKind {gvk}\n"));
        }
    }
}

/// Checks apiVersion and kind of a document and converts old versions. `None` when it is ignored.
fn accept(
    host: &dyn Host,
    mut fields: Map<String, Value>,
    api_version: &str,
    kind: &str,
    strictness: Strictness,
) -> Result<Option<Document>> {
    if let Some((_, version)) = COMPONENTS.iter().find(|(known, _)| *known == kind) {
        if api_version != *version {
            return fail!(
                "unsupported apiVersion {api_version:?}, you may have to do manual conversion to {version:?} and run \
                 kubeadm again"
            );
        }
        return Ok(Some(Document { kind: kind.to_owned(), value: Value::Object(fields) }));
    }
    if let Some((_, release)) = OLD.iter().find(|(old, _)| *old == api_version) {
        return fail!(
            "your configuration file uses an old API spec: {api_version:?} (kind: {kind:?}). Please use kubeadm {release} \
             instead and run 'kubeadm config migrate --old-config old-config-file --new-config new-config-file', which \
             will write the new, similar spec using a newer API version."
        );
    }
    let ours = [API_VERSION, "kubeadm.k8s.io/v1beta3"].contains(&api_version);
    if !ours || !KINDS.contains(&kind) {
        if strictness == Strictness::Fail {
            return fail!("unknown configuration APIs: [{}]", gvk(api_version, kind));
        }
        host.warn(&format!(
            "[config] WARNING: Ignored configuration document with GroupVersionKind {}\n",
            gvk(api_version, kind)
        ));
        return Ok(None);
    }
    fields.remove("apiVersion");
    fields.remove("kind");
    if api_version != API_VERSION {
        host.warn(&format!(
            "your configuration file uses a deprecated API spec: {api_version:?} (kind: {kind:?}). Please use 'kubeadm \
             config migrate --old-config old-config-file --new-config new-config-file', which will write the new, \
             similar spec using a newer API version.\n"
        ));
        convert::from_v1beta3(&mut fields);
    }
    Ok(Some(Document { kind: kind.to_owned(), value: Value::Object(fields) }))
}

/// Decodes a value; unknown fields are dropped after a warning, or are an error.
pub fn decode<T: DeserializeOwned>(host: &dyn Host, mut value: Value, kind: &str, strictness: Strictness) -> Result<T> {
    loop {
        let error = match serde_json::from_value::<T>(value.clone()) {
            Ok(decoded) => return Ok(decoded),
            Err(error) => error.to_string(),
        };
        let Some(name) = unknown_field(&error) else {
            return fail!("error unmarshaling configuration {}: {error}", go_gvk(API_VERSION, kind));
        };
        let path = locate::<T>(&value, name)
            .ok_or_else(|| Error::new(format!("error unmarshaling configuration: {error}")))?;
        remove(&mut value, &path);
        report(host, strictness, API_VERSION, kind, &format!("unknown field {:?}", dotted(&path)))?;
    }
}

fn unknown_field(error: &str) -> Option<&str> {
    Some(error.strip_prefix("unknown field `")?.split_once('`')?.0)
}

#[derive(Clone)]
enum Step {
    Field(String),
    Item(usize),
}

/// The place of an unknown field: the one whose removal changes the complaint.
fn locate<T: DeserializeOwned>(value: &Value, name: &str) -> Option<Vec<Step>> {
    let mut candidates = Vec::new();
    collect(value, name, &mut Vec::new(), &mut candidates);
    let complaint = serde_json::from_value::<T>(value.clone()).err()?.to_string();
    let changes = |path: &&Vec<Step>| {
        let mut without = value.clone();
        remove(&mut without, path);
        serde_json::from_value::<T>(without).err().is_none_or(|e| e.to_string() != complaint)
    };
    candidates.iter().find(changes).or(candidates.first()).cloned()
}

fn collect(value: &Value, name: &str, at: &mut Vec<Step>, found: &mut Vec<Vec<Step>>) {
    let mut visit = |step: Step, child: &Value| {
        at.push(step);
        if matches!(at.last(), Some(Step::Field(field)) if field == name) {
            found.push(at.clone());
        }
        collect(child, name, at, found);
        at.pop();
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(field, child)| visit(Step::Field(field.clone()), child)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, child)| visit(Step::Item(i), child)),
        _ => {}
    }
}

fn remove(value: &mut Value, path: &[Step]) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut at = value;
    for step in parents {
        let next = match step {
            Step::Field(field) => at.get_mut(field.as_str()),
            Step::Item(index) => at.get_mut(*index),
        };
        let Some(next) = next else { return };
        at = next;
    }
    if let (Step::Field(field), Value::Object(fields)) = (last, at) {
        fields.remove(field);
    }
}

fn dotted(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Field(field) if text.is_empty() => text.push_str(field),
            Step::Field(field) => text.push_str(&format!(".{field}")),
            Step::Item(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

fn report(host: &dyn Host, strictness: Strictness, api_version: &str, kind: &str, problem: &str) -> Result<()> {
    let text =
        format!("error unmarshaling configuration {}: strict decoding error: {problem}", go_gvk(api_version, kind));
    match strictness {
        Strictness::Fail => Err(Error::new(text)),
        Strictness::Warn => {
            host.warn(&format!("{text}\n"));
            Ok(())
        }
    }
}

fn type_of(fields: &Map<String, Value>) -> (String, String) {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("apiVersion"), text("kind"))
}

/// `group/version, Kind=kind`.
fn gvk(api_version: &str, kind: &str) -> String {
    let full = if api_version.contains('/') { api_version.to_owned() } else { format!("/{api_version}") };
    format!("{full}, Kind={kind}")
}

/// As Go prints the structure.
fn go_gvk(api_version: &str, kind: &str) -> String {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    format!("schema.GroupVersionKind{{Group:{group:?}, Version:{version:?}, Kind:{kind:?}}}")
}
