//! What the manifests on this host say.

use serde_json::Value;

use crate::{
    error::{Context, Result},
    host::Host,
    manifests, yaml,
};

/// A static Pod as its manifest on this host has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Present {
    /// The Pod.
    pub pod: Value,
}

impl Present {
    /// Reads the manifest of a component.
    pub fn read(host: &dyn Host, name: &str) -> Result<Self> {
        let text =
            host.read_text(&manifests::path(name)).with_context(|| format!("failed to read manifest for {name:?}"))?;
        Ok(Self { pod: yaml::parse(&text)? })
    }

    /// Last value of a flag of its command, `--flag=value` or `--flag value`.
    pub fn flag(&self, name: &str) -> Option<&str> {
        let container = self.pod.pointer("/spec/containers/0")?;
        let list = |field: &str| container.get(field).and_then(Value::as_array).into_iter().flatten();
        let words: Vec<&str> = list("command").chain(list("args")).filter_map(Value::as_str).collect();
        let joined = |word: &'_ str| word.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
        let at = (0..words.len()).rev().find(|i| words[*i] == name || joined(words[*i]))?;
        match words[at].strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            Some(value) => Some(value),
            None => words.get(at + 1).copied(),
        }
    }

    /// Gives a flag of its command another value.
    pub fn set_flag(&mut self, name: &str, value: &str) {
        let words = self.pod.pointer_mut("/spec/containers/0/command").and_then(Value::as_array_mut);
        let start = format!("{name}=");
        for word in words.into_iter().flatten().filter(|w| w.as_str().is_some_and(|w| w.starts_with(&start))) {
            *word = format!("{start}{value}").into();
        }
    }

    /// Takes a flag out of its command.
    pub fn remove_flag(&mut self, name: &str) {
        let start = format!("{name}=");
        if let Some(words) = self.pod.pointer_mut("/spec/containers/0/command").and_then(Value::as_array_mut) {
            words.retain(|word| word.as_str().is_none_or(|word| !word.starts_with(&start)));
        }
    }

    /// Gives it an annotation.
    pub fn annotate(&mut self, name: &str, value: &str) {
        self.pod["metadata"]["annotations"][name] = value.into();
    }

    /// Text of the manifest.
    pub fn to_yaml(&self) -> Result<String> {
        yaml::to_yaml(&self.pod)
    }
}
