//! Extenders as they stand in a file.

use serde::{Deserialize, Serialize};

use super::file::Span;

/// An extender.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct ExtenderFile {
    pub(crate) url_prefix: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) filter_verb: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) preempt_verb: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) prioritize_verb: String,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) weight: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) bind_verb: String,
    #[serde(rename = "enableHTTPS")]
    pub(crate) enable_https: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_config: Option<TlsFile>,
    pub(crate) http_timeout: Option<Span>,
    pub(crate) node_cache_capable: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) managed_resources: Vec<ManagedFile>,
    pub(crate) ignorable: bool,
}

fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// How an extender is known, and how this process is known to it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct TlsFile {
    pub(crate) insecure: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) server_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) cert_file: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) key_file: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) ca_file: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) cert_data: String,
    /// The private key: never shown.
    #[serde(skip_serializing)]
    pub(crate) key_data: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) ca_data: String,
}

/// A resource that an extender manages.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct ManagedFile {
    pub(crate) name: String,
    pub(crate) ignored_by_scheduler: bool,
}

/// All that is wrong with a list of extenders.
pub(super) fn problems(extenders: &[ExtenderFile]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut managed: Vec<&str> = Vec::new();
    for (at, extender) in extenders.iter().enumerate() {
        let path = format!("extenders[{at}]");
        if !extender.prioritize_verb.is_empty() && extender.weight <= 0 {
            let weight = extender.weight;
            problems.push(format!("{path}.weight: Invalid value: {weight}: must have a positive weight applied to it"));
        }
        let is_url = extender.url_prefix.parse::<http::Uri>().is_ok_and(|url| url.scheme().is_some());
        if !is_url {
            problems.push(format!("{path}.urlPrefix: Invalid value: {:?}: must be a URL", extender.url_prefix));
        }
        for (at, resource) in extender.managed_resources.iter().enumerate() {
            let path = format!("{path}.managedResources[{at}].name");
            if !resource.name.contains('/') {
                let text = "name is an invalid extended resource name";
                problems.push(format!("{path}: Invalid value: {:?}: {text}", resource.name));
            } else if managed.contains(&resource.name.as_str()) {
                problems.push(format!(
                    "{path}: Invalid value: {:?}: duplicate extender managed resource name",
                    resource.name
                ));
            } else {
                managed.push(&resource.name);
            }
        }
    }
    let binders = extenders.iter().filter(|extender| !extender.bind_verb.is_empty()).count();
    if binders > 1 {
        problems.push(format!("extenders: Invalid value: \"found {binders} extenders implementing bind\": only one extender can implement bind"));
    }
    problems
}
