//! Sets of field paths, in the shape of `fieldsV1`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A set of field paths: a tree whose keys are the path elements of `fieldsV1` (`f:name`, `k:{"name":"x"}`, `v:1`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Set {
    /// Whether the path that leads here belongs to the set.
    pub member: bool,
    /// Longer paths.
    pub children: BTreeMap<String, Set>,
}

impl Set {
    /// A set of just this path.
    pub fn leaf() -> Self {
        Self { member: true, children: BTreeMap::new() }
    }

    /// Whether no path belongs to it.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    /// Reads `fieldsV1`; `None` when it is not of that form.
    pub fn parse(value: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (key, inner) in value.as_object()? {
            if key == "." {
                set.member = true;
                continue;
            }
            let mut child = Self::parse(inner)?;
            child.member |= inner.as_object().is_some_and(Map::is_empty);
            let is_element = match key.split_at_checked(2)? {
                ("f:", _) => true,
                ("k:", keys) => serde_json::from_str::<Map<String, Value>>(keys).is_ok(),
                ("v:", value) => serde_json::from_str::<Value>(value).is_ok(),
                ("i:", index) => index.parse::<i64>().is_ok(),
                _ => false,
            };
            if !is_element {
                return None;
            }
            set.children.insert(key.clone(), child);
        }
        Some(set)
    }

    /// Writes `fieldsV1`.
    pub fn to_fields(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for (key, child) in &self.children {
            if !child.is_empty() {
                map.insert(key.clone(), child.to_fields());
            }
        }
        Value::Object(map)
    }

    /// Paths in either.
    pub fn union(mut self, other: &Self) -> Self {
        self.member |= other.member;
        for (key, child) in &other.children {
            let own = self.children.remove(key).unwrap_or_default();
            self.children.insert(key.clone(), own.union(child));
        }
        self
    }

    /// Paths in both.
    pub fn intersection(&self, other: &Self) -> Self {
        let children = self
            .children
            .iter()
            .filter_map(|(key, child)| {
                let both = child.intersection(other.children.get(key)?);
                (!both.is_empty()).then(|| (key.clone(), both))
            })
            .collect();
        Self { member: self.member && other.member, children }
    }

    /// Paths of this one that are not in the other.
    pub fn difference(&self, other: &Self) -> Self {
        let children = self
            .children
            .iter()
            .filter_map(|(key, child)| {
                let rest = match other.children.get(key) {
                    Some(gone) => child.difference(gone),
                    None => child.clone(),
                };
                (!rest.is_empty()).then(|| (key.clone(), rest))
            })
            .collect();
        Self { member: self.member && !other.member, children }
    }

    /// Paths of this one that are neither in the other nor below a path of it.
    pub fn recursive_difference(&self, other: &Self) -> Self {
        if other.member {
            return Self::default();
        }
        let children = self
            .children
            .iter()
            .filter_map(|(key, child)| {
                let rest = match other.children.get(key) {
                    Some(gone) => child.recursive_difference(gone),
                    None => child.clone(),
                };
                (!rest.is_empty()).then(|| (key.clone(), rest))
            })
            .collect();
        Self { member: self.member, children }
    }

    /// All paths as readable text (`.spec.containers[name="a"].image`), sorted.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.collect(&mut String::new(), &mut out);
        out.sort_unstable();
        out
    }

    fn collect(&self, path: &mut String, out: &mut Vec<String>) {
        if self.member && !path.is_empty() {
            out.push(path.clone());
        }
        for (key, child) in &self.children {
            let length = path.len();
            path.push_str(&readable(key));
            child.collect(path, out);
            path.truncate(length);
        }
    }
}

/// A path element as text: `.name`, `[name="a"]`, `[="v"]`, `[0]`.
pub(super) fn readable(element: &str) -> String {
    match element.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("k:", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let terms: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", terms.join(","))
        }
        Some(("v:", value)) => format!("[={value}]"),
        Some((_, index)) => format!("[{index}]"),
        None => String::new(),
    }
}
