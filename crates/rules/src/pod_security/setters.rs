//! Who sets a forbidden value, in words.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Pod;

pub(super) fn plural(one: &'static str, many: &'static str, count: usize) -> &'static str {
    if count == 1 { one } else { many }
}

/// `"a", "b"`.
pub(super) fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect();
    items.join(", ")
}

/// `container "a"` or `containers "a", "b"`.
pub(super) fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", "containers", names.len()), quoted(names))
}

/// The Pod itself and containers of it that set something forbidden, with the forbidden values.
#[derive(Default)]
pub(super) struct Setters<'a> {
    pub(super) pod: bool,
    pub(super) names: Vec<&'a str>,
    pub(super) values: BTreeSet<String>,
}

impl<'a> Setters<'a> {
    /// Looks at one place below every `securityContext`; `bad` gives the value to show when it is forbidden.
    pub(super) fn find(pod: &Pod<'a>, place: &str, bad: impl Fn(&Value) -> Option<String>) -> Self {
        let mut found = Self::default();
        let place = format!("/securityContext{place}");
        if let Some(value) = pod.spec.pointer(&place).and_then(&bad) {
            found.pod = true;
            found.values.insert(value);
        }
        for (name, container) in pod.containers() {
            if let Some(value) = container.pointer(&place).and_then(&bad) {
                found.names.push(name);
                found.values.insert(value);
            }
        }
        found
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.pod && self.names.is_empty()
    }

    /// `pod and container "a"`.
    pub(super) fn who(&self) -> String {
        let mut parts = Vec::new();
        if self.pod {
            parts.push("pod".to_owned());
        }
        if !self.names.is_empty() {
            parts.push(containers(&self.names));
        }
        parts.join(" and ")
    }
}
