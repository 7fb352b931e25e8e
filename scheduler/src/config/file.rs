//! `KubeSchedulerConfiguration` as it stands in a file.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::extender::ExtenderFile;

/// apiVersion of the configuration.
pub(super) const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
/// Its kind.
pub(super) const KIND: &str = "KubeSchedulerConfiguration";

/// A duration in Go's syntax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        runtime::flags::duration(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&runtime::flags::format_duration(self.0))
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)]
pub(crate) struct File {
    pub(crate) parallelism: Option<i32>,
    pub(crate) leader_election: Election,
    pub(crate) client_connection: Connection,
    pub(crate) enable_profiling: Option<bool>,
    pub(crate) enable_contention_profiling: Option<bool>,
    pub(crate) percentage_of_nodes_to_score: Option<i32>,
    pub(crate) pod_initial_backoff_seconds: Option<i64>,
    pub(crate) pod_max_backoff_seconds: Option<i64>,
    pub(crate) profiles: Vec<ProfileFile>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) extenders: Vec<ExtenderFile>,
    pub(crate) delay_cache_until_active: Option<bool>,
}

/// Leader election.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Election {
    pub(crate) leader_elect: Option<bool>,
    pub(crate) lease_duration: Option<Span>,
    pub(crate) renew_deadline: Option<Span>,
    pub(crate) retry_period: Option<Span>,
    pub(crate) resource_lock: Option<String>,
    pub(crate) resource_name: Option<String>,
    pub(crate) resource_namespace: Option<String>,
}

/// The way to the API server.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Connection {
    pub(crate) kubeconfig: String,
    pub(crate) accept_content_types: String,
    pub(crate) content_type: String,
    pub(crate) qps: Option<f32>,
    pub(crate) burst: Option<i32>,
}

/// A profile.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct ProfileFile {
    pub(crate) scheduler_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) percentage_of_nodes_to_score: Option<i32>,
    pub(crate) plugins: Option<PluginsFile>,
    pub(crate) plugin_config: Vec<PluginConfigFile>,
}

/// Plugins by extension point.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct PluginsFile {
    pub(crate) pre_enqueue: PointFile,
    pub(crate) queue_sort: PointFile,
    pub(crate) pre_filter: PointFile,
    pub(crate) filter: PointFile,
    pub(crate) post_filter: PointFile,
    pub(crate) pre_score: PointFile,
    pub(crate) score: PointFile,
    pub(crate) reserve: PointFile,
    pub(crate) permit: PointFile,
    pub(crate) pre_bind: PointFile,
    pub(crate) bind: PointFile,
    pub(crate) post_bind: PointFile,
    pub(crate) multi_point: PointFile,
}

/// Plugins of one extension point.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PointFile {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) enabled: Vec<PluginFile>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) disabled: Vec<PluginFile>,
}

/// A plugin.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PluginFile {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) weight: Option<i32>,
}

/// Settings of a plugin.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PluginConfigFile {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) args: Value,
}
