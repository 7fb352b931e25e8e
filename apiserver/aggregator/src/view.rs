//! What is read of APIServices and CustomResourceDefinitions.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Label of the APIServices that this server keeps.
pub(crate) const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Metadata.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) deletion_timestamp: Option<String>,
}

/// An APIService.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct View {
    pub(crate) metadata: Metadata,
    pub(crate) spec: Spec,
    pub(crate) status: Status,
}

/// Its spec.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Spec {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) service: Option<ServiceReference>,
    /// Base64 of PEM.
    pub(crate) ca_bundle: Option<String>,
    #[serde(rename = "insecureSkipTLSVerify")]
    pub(crate) insecure: bool,
    pub(crate) group_priority_minimum: i32,
    pub(crate) version_priority: i32,
}

/// The Service behind it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct ServiceReference {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port: Option<u16>,
}

impl ServiceReference {
    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap_or(443)
    }

    /// The name that the server has to prove.
    pub(crate) fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }
}

/// Its status.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct Status {
    pub(crate) conditions: Vec<Seen>,
}

/// A condition.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct Seen {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) reason: String,
}

/// A CustomResourceDefinition, as far as its group versions are concerned.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct Definition {
    pub(crate) spec: DefinitionSpec,
}

/// Its spec.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct DefinitionSpec {
    pub(crate) group: String,
    pub(crate) versions: Vec<DefinitionVersion>,
}

/// A version.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct DefinitionVersion {
    pub(crate) name: String,
    pub(crate) served: bool,
}
