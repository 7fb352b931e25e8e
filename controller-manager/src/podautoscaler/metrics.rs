//! The three metrics APIs, read: `metrics.k8s.io`, `custom.metrics.k8s.io` and `external.metrics.k8s.io`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use client::{ApiErrorExt, Discovery};
use k8s_openapi::{
    api::autoscaling::v2::CrossVersionObjectReference, apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp,
};
use kube::Client;
use machinery::{quantity::Quantity, selector::LabelSelector};
use serde::{Deserialize, de::DeserializeOwned};

use super::calculator::{Sample, Samples};

const RESOURCE_API: &str = "/apis/metrics.k8s.io/v1beta1";
const CUSTOM_GROUP: &str = "custom.metrics.k8s.io";
const EXTERNAL_API: &str = "/apis/external.metrics.k8s.io/v1beta1";
/// Time for one answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Time over which a value was taken if it does not say.
const WINDOW: Duration = Duration::from_secs(60);

/// Why a metric is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum MetricsError {
    #[error("unable to fetch metrics from {api} metrics API: {text}")]
    Fetch { api: &'static str, text: String },
    #[error("no metrics returned from {0} metrics API")]
    Empty(&'static str),
    #[error("failed to get container metrics: container {container} not present in metrics for pod {namespace}/{pod}")]
    NoContainer { container: String, namespace: String, pod: String },
    #[error("no matches for kind \"{kind}\" in group \"{group}\"")]
    NoKind { kind: String, group: String },
}

/// Reads metrics.
pub(super) struct MetricsApi {
    client: Client,
    discovery: Arc<Discovery>,
}

impl MetricsApi {
    pub(super) fn new(client: Client, discovery: Arc<Discovery>) -> Self {
        Self { client, discovery }
    }

    /// Usage of a resource by the selected Pods, or by one container of each.
    pub(super) async fn resource(
        &self,
        namespace: &str,
        selector: &LabelSelector,
        resource: &str,
        container: Option<&str>,
    ) -> Result<Samples, MetricsError> {
        const API: &str = "resource";
        let path = format!("{RESOURCE_API}/namespaces/{namespace}/pods?labelSelector={}", encoded(selector));
        let what = "get pods.metrics.k8s.io";
        let list: List<PodMetrics> = self.get(API, &path, what).await?;
        if list.items.is_empty() {
            return Err(MetricsError::Empty(API));
        }
        let mut samples = Samples::new();
        for item in list.items {
            let value = match container {
                Some(name) => Some(item.of_container(namespace, name, resource)?),
                None => item.total(resource),
            };
            if let Some(value) = value {
                let window = item.window.as_deref().and_then(|text| runtime::flags::duration(text).ok());
                let sample = Sample { value, at: at(item.timestamp.as_ref()), window: window.unwrap_or(WINDOW) };
                samples.insert(item.metadata.name, sample);
            }
        }
        Ok(samples)
    }

    /// A custom metric of each of the selected Pods.
    pub(super) async fn of_pods(
        &self,
        namespace: &str,
        selector: &LabelSelector,
        metric: &str,
        metric_selector: &LabelSelector,
    ) -> Result<Samples, MetricsError> {
        const API: &str = "custom";
        let path = format!(
            "/namespaces/{namespace}/pods/%2A/{}?labelSelector={}{}",
            util::percent_encode(metric),
            encoded(selector),
            and_metric(metric_selector),
        );
        let list: List<CustomValue> = self.custom(&path, &format!("get pods.{CUSTOM_GROUP} *")).await?;
        if list.items.is_empty() {
            return Err(MetricsError::Empty(API));
        }
        let sample = |item: &CustomValue| Sample {
            value: item.value.milli(),
            at: at(item.timestamp.as_ref()),
            window: item.window_seconds.and_then(|s| u64::try_from(s).ok()).map_or(WINDOW, Duration::from_secs),
        };
        Ok(list.items.into_iter().map(|item| (item.described_object.name.clone(), sample(&item))).collect())
    }

    /// A custom metric of one object.
    pub(super) async fn of_object(
        &self,
        namespace: &str,
        object: &CrossVersionObjectReference,
        metric: &str,
        metric_selector: &LabelSelector,
    ) -> Result<i64, MetricsError> {
        const API: &str = "custom";
        let (name, metric) = (util::percent_encode(&object.name), util::percent_encode(metric));
        let version = object.api_version.as_deref().unwrap_or_default();
        let (path, shown) = if object.kind == "Namespace" && matches!(version, "" | "v1") {
            (format!("/namespaces/{name}/metrics/{metric}"), "namespaces".to_owned())
        } else {
            let (resource, namespaced) = self.resource_of(version, &object.kind).await?;
            let place = if namespaced { format!("/namespaces/{namespace}") } else { String::new() };
            (format!("{place}/{resource}/{name}/{metric}"), resource)
        };
        let query = and_metric(metric_selector);
        let query = if query.is_empty() { query } else { format!("?{}", &query[1..]) };
        let what = format!("get {shown}.{CUSTOM_GROUP} {}", object.name);
        let list: List<CustomValue> = self.custom(&format!("{path}{query}"), &what).await?;
        list.items.first().map(|item| item.value.milli()).ok_or(MetricsError::Empty(API))
    }

    /// Values of a metric of something outside of the cluster.
    pub(super) async fn external(
        &self,
        namespace: &str,
        metric: &str,
        selector: &LabelSelector,
    ) -> Result<Vec<i64>, MetricsError> {
        const API: &str = "external";
        let name = util::percent_encode(metric);
        let path = format!("{EXTERNAL_API}/namespaces/{namespace}/{name}?labelSelector={}", encoded(selector));
        let list: List<ExternalValue> = self.get(API, &path, &format!("get {metric}.external.metrics.k8s.io")).await?;
        if list.items.is_empty() {
            return Err(MetricsError::Empty(API));
        }
        Ok(list.items.iter().map(|item| item.value.milli()).collect())
    }

    async fn custom<T: DeserializeOwned>(&self, path: &str, what: &str) -> Result<T, MetricsError> {
        let snapshot = self.discovery.snapshot().await;
        let newer = |version: &str| {
            let served = |s: &client::Snapshot| {
                s.resources.iter().any(|r| r.gvr.group == CUSTOM_GROUP && r.gvr.version == version)
            };
            snapshot.as_ref().is_ok_and(|s| served(s))
        };
        let version = if newer("v1beta1") && !newer("v1beta2") { "v1beta1" } else { "v1beta2" };
        self.get("custom", &format!("/apis/{CUSTOM_GROUP}/{version}{path}"), what).await
    }

    /// The name that the custom metrics API has for a kind, and whether its objects live in namespaces.
    async fn resource_of(&self, api_version: &str, kind: &str) -> Result<(String, bool), MetricsError> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let failed = |error: kube::Error| MetricsError::Fetch { api: "custom", text: error.text() };
        let found = self.discovery.kind(group, version, kind).await.map_err(failed)?;
        let found = found.ok_or_else(|| MetricsError::NoKind { kind: kind.to_owned(), group: group.to_owned() })?;
        let plural = found.gvr.resource;
        Ok((if group.is_empty() { plural } else { format!("{plural}.{group}") }, found.namespaced))
    }

    async fn get<T: DeserializeOwned>(&self, api: &'static str, path: &str, what: &str) -> Result<T, MetricsError> {
        let failed = |text| MetricsError::Fetch { api, text };
        let request = http::Request::get(path).body(Vec::new()).map_err(|error| failed(error.to_string()))?;
        // The client tries again while a server is unavailable; the next look is soon enough.
        match tokio::time::timeout(DEADLINE, self.client.request(request)).await {
            Ok(answer) => answer.map_err(|error| failed(text_of(&error, what))),
            Err(_) => Err(failed(unavailable(what))),
        }
    }
}

/// The text of an error; a path that nobody serves answers without a reason.
fn text_of(error: &kube::Error, what: &str) -> String {
    if error.is_not_found() && !error.has_reason("NotFound") {
        return format!("the server could not find the requested resource ({what})");
    }
    if error.status().is_some_and(|status| status.code == 503) {
        return unavailable(what);
    }
    error.text()
}

fn unavailable(what: &str) -> String {
    format!("the server is currently unable to handle the request ({what})")
}

fn encoded(selector: &LabelSelector) -> String {
    util::percent_encode(&selector.to_string())
}

fn and_metric(selector: &LabelSelector) -> String {
    if selector.is_everything() { String::new() } else { format!("&metricLabelSelector={}", encoded(selector)) }
}

fn at(time: Option<&Time>) -> Timestamp {
    time.map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

#[derive(Deserialize)]
struct List<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: Named,
    timestamp: Option<Time>,
    window: Option<String>,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    #[serde(default)]
    name: String,
    #[serde(default)]
    usage: BTreeMap<String, Amount>,
}

/// A quantity as text.
#[derive(Deserialize)]
struct Amount(String);

impl Amount {
    fn milli(&self) -> i64 {
        Quantity::parse(&self.0).map_or(0, |quantity| quantity.milli_value())
    }
}

impl PodMetrics {
    /// The sum over containers; `None` if one of them does not tell.
    fn total(&self, resource: &str) -> Option<i64> {
        let values = self.containers.iter().map(|container| container.usage.get(resource).map(Amount::milli));
        values.collect::<Option<Vec<i64>>>().map(|all| all.into_iter().fold(0, i64::saturating_add))
    }

    fn of_container(&self, namespace: &str, name: &str, resource: &str) -> Result<i64, MetricsError> {
        let found = self.containers.iter().find(|container| container.name == name);
        found.and_then(|container| container.usage.get(resource)).map(Amount::milli).ok_or_else(|| {
            MetricsError::NoContainer {
                container: name.to_owned(),
                namespace: namespace.to_owned(),
                pod: self.metadata.name.clone(),
            }
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CustomValue {
    described_object: Named,
    timestamp: Option<Time>,
    window_seconds: Option<i64>,
    value: Amount,
}

#[derive(Deserialize)]
struct ExternalValue {
    value: Amount,
}
