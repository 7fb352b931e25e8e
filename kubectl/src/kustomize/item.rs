//! Objects on their way through the layers, with the names that they had.

use machinery::meta;
use serde_json::{Map, Value};

use super::{KustomizeError, file::Selector};

/// An object and what is known of it.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) object: Value,
    /// Names and namespaces that it had, the first one first.
    pub(super) before: Vec<(String, String)>,
    /// Whether a hash of the content goes into the name.
    pub(super) hashed: bool,
    /// Prefixes and suffixes of the layers that it came through.
    pub(super) affixes: Vec<String>,
}

impl Item {
    pub(super) fn new(object: Value) -> Self {
        let id = (meta::name(&object).to_owned(), meta::namespace(&object).to_owned());
        Self { object, before: vec![id], hashed: false, affixes: Vec::new() }
    }

    fn text(&self, field: &str) -> &str {
        self.object.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn kind(&self) -> &str {
        self.text("kind")
    }

    pub(super) fn group(&self) -> &str {
        self.text("apiVersion").split_once('/').map_or("", |(group, _)| group)
    }

    pub(super) fn version(&self) -> &str {
        let text = self.text("apiVersion");
        text.split_once('/').map_or(text, |(_, version)| version)
    }

    pub(super) fn name(&self) -> &str {
        meta::name(&self.object)
    }

    pub(super) fn namespace(&self) -> &str {
        meta::namespace(&self.object)
    }

    /// Whether its kind lives in namespaces; what nobody knows does.
    pub(super) fn is_namespaced(&self) -> bool {
        let (group, kind) = (self.group(), self.kind());
        let known = api::api().kinds().iter().find(|known| known.gvk.group == group && known.gvk.kind == kind);
        known.is_none_or(|known| known.namespaced)
    }

    /// Notes the present name before it changes.
    pub(super) fn remember(&mut self) {
        let id = (self.name().to_owned(), self.namespace().to_owned());
        if self.before.last() != Some(&id) {
            self.before.push(id);
        }
    }

    pub(super) fn rename(&mut self, name: String) {
        self.remember();
        meta::metadata_mut(&mut self.object).insert("name".into(), name.into());
    }

    /// Whether it has or had a name.
    pub(super) fn was_named(&self, name: &str) -> bool {
        self.name() == name || self.before.iter().any(|(before, _)| before == name)
    }

    /// Whether it is what another object is.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.is_of_kind(other) && same(self.name(), self.namespace(), other)
    }

    /// Whether it is, or was, what another object is now.
    pub(super) fn was(&self, other: &Self) -> bool {
        self.is(other) || self.is_of_kind(other) && self.before.iter().any(|(n, ns)| same(n, ns, other))
    }

    fn is_of_kind(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.group() == other.group()
    }

    /// `Kind.version.group/name.namespace`, as messages show it.
    pub(super) fn id(&self) -> String {
        let group = if self.group().is_empty() { "[noGrp]".to_owned() } else { self.group().to_owned() };
        let namespace = if self.namespace().is_empty() { "[noNs]" } else { self.namespace() };
        format!("{}.{}.{group}/{}.{namespace}", self.kind(), self.version(), self.name())
    }
}

fn same(name: &str, namespace: &str, other: &Item) -> bool {
    name == other.name() && effective(namespace) == effective(other.namespace())
}

pub(super) fn effective(namespace: &str) -> &str {
    if namespace.is_empty() { "default" } else { namespace }
}

/// A selector that can be applied.
pub(super) struct Choice {
    selector: Selector,
    group: Option<regex::Regex>,
    version: Option<regex::Regex>,
    kind: Option<regex::Regex>,
    name: Option<regex::Regex>,
    namespace: Option<regex::Regex>,
}

impl Choice {
    pub(super) fn new(selector: &Selector) -> Result<Self, KustomizeError> {
        let anchored = |text: &str| -> Result<Option<regex::Regex>, KustomizeError> {
            if text.is_empty() {
                return Ok(None);
            }
            let full = format!("^(?:{})$", text.trim_start_matches('^').trim_end_matches('$'));
            regex::Regex::new(&full).map(Some).map_err(|e| KustomizeError::plain(e.to_string()))
        };
        Ok(Self {
            selector: selector.clone(),
            group: anchored(&selector.group)?,
            version: anchored(&selector.version)?,
            kind: anchored(&selector.kind)?,
            name: anchored(&selector.name)?,
            namespace: anchored(&selector.namespace)?,
        })
    }

    pub(super) fn fits(&self, item: &Item) -> Result<bool, KustomizeError> {
        let wanted = &self.selector;
        let is = |wanted: &Option<regex::Regex>, found: &str| wanted.as_ref().is_none_or(|e| e.is_match(found));
        let ids =
            || item.before.iter().map(|(n, ns)| (n.as_str(), ns.as_str())).chain([(item.name(), item.namespace())]);
        let named = ids().any(|(name, namespace)| is(&self.name, name) && is(&self.namespace, effective(namespace)));
        Ok(is(&self.group, item.group())
            && is(&self.version, item.version())
            && is(&self.kind, item.kind())
            && named
            && carries(&wanted.label_selector, item, "labels")?
            && carries(&wanted.annotation_selector, item, "annotations")?)
    }
}

fn carries(selector: &str, item: &Item, field: &str) -> Result<bool, KustomizeError> {
    if selector.is_empty() {
        return Ok(true);
    }
    let parsed =
        machinery::selector::LabelSelector::parse(selector).map_err(|e| KustomizeError::plain(e.to_string()))?;
    let empty = Map::new();
    let values = item.object.pointer(&format!("/metadata/{field}")).and_then(Value::as_object).unwrap_or(&empty);
    Ok(parsed.matches(|key| values.get(key).and_then(Value::as_str)))
}
