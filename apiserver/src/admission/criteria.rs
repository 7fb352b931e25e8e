//! What webhooks and policies say about the requests that they want to see.

use machinery::selector::LabelSelector;
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

/// The name of a configuration, policy or binding.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Metadata {
    pub(crate) name: String,
}

/// Operations on resources.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Rule {
    #[serde(deserialize_with = "or_empty")]
    pub(crate) operations: Vec<String>,
    #[serde(deserialize_with = "or_empty")]
    pub(crate) api_groups: Vec<String>,
    #[serde(deserialize_with = "or_empty")]
    pub(crate) api_versions: Vec<String>,
    #[serde(deserialize_with = "or_empty")]
    pub(crate) resources: Vec<String>,
    /// Names of objects; every object if empty. Only policies have them.
    #[serde(deserialize_with = "or_empty")]
    pub(crate) resource_names: Vec<String>,
    pub(crate) scope: Option<String>,
}

/// A label selector; everything if absent.
#[derive(Debug, Default)]
pub(crate) struct Selector(pub(crate) Option<LabelSelector>);

impl<'de> Deserialize<'de> for Selector {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Option::<Value>::deserialize(deserializer)?;
        let parsed = value.filter(|value| !value.is_null()).map(|value| LabelSelector::from_object(&value));
        parsed.transpose().map(Self).map_err(D::Error::custom)
    }
}

impl Selector {
    pub(crate) fn is_everything(&self) -> bool {
        self.0.as_ref().is_none_or(LabelSelector::is_everything)
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.matches_labels(|key| object.pointer("/metadata/labels").and_then(|labels| labels.get(key)?.as_str()))
    }

    pub(crate) fn matches_labels<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.as_ref().is_none_or(|selector| selector.matches(label))
    }
}

/// The whole of what is asked about.
pub(crate) struct Criteria<'a> {
    /// `None`: everything.
    pub(crate) rules: Option<&'a [Rule]>,
    pub(crate) excluded: &'a [Rule],
    pub(crate) match_policy: Option<&'a str>,
    pub(crate) namespaces: &'a Selector,
    pub(crate) objects: &'a Selector,
}

/// A list that may be null.
pub(crate) fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
