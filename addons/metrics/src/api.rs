//! `metrics.k8s.io/v1beta1`: nodes and Pods, read only.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Router,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
    routing::get,
};
use controller::{Informer, ObjectKey, Viewed};
use http::{HeaderMap, StatusCode, header};
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::core::PartialObjectMeta;
use machinery::{
    ApiError, ApiResult, GroupResource,
    quantity::{Format, Quantity},
    selector::{FieldSelector, LabelSelector},
};
use parking_lot::RwLock;
use serde_json::{Value, json};

use crate::{
    scrape::NodeView,
    usage::{Book, Containers, Usage},
};

const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "metrics.k8s.io/v1beta1";

/// What is kept of a Pod.
pub(crate) struct PodView {
    labels: BTreeMap<String, String>,
}

impl Viewed for PodView {
    type Object = PartialObjectMeta<Pod>;

    fn project(pod: PartialObjectMeta<Pod>) -> Self {
        Self { labels: pod.metadata.labels.unwrap_or_default() }
    }
}

/// What is served from.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) nodes: Informer<NodeView>,
    pub(crate) pods: Informer<PodView>,
    pub(crate) book: Arc<RwLock<Book>>,
}

/// Parameters of a list.
type Parameters = Query<BTreeMap<String, String>>;

/// An object with what selectors look at.
struct Row {
    object: Value,
    /// Total usage, for tables.
    total: Usage,
}

/// The routes.
pub(crate) fn router(served: Served) -> Router {
    Router::new()
        .route("/apis", get(|| async { answer(&groups()) }))
        .route("/apis/metrics.k8s.io", get(|| async { answer(&group(true)) }))
        .route("/apis/metrics.k8s.io/v1beta1", get(|| async { answer(&resources()) }))
        .route("/apis/metrics.k8s.io/v1beta1/nodes", get(nodes))
        .route("/apis/metrics.k8s.io/v1beta1/nodes/{name}", get(node))
        .route("/apis/metrics.k8s.io/v1beta1/pods", get(all_pods))
        .route("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods", get(pods))
        .route("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods/{name}", get(pod))
        .with_state(served)
}

fn group(alone: bool) -> Value {
    let version = json!({"groupVersion": VERSION, "version": "v1beta1"});
    let mut group = json!({"name": GROUP, "versions": [version.clone()], "preferredVersion": version});
    if alone {
        group["kind"] = json!("APIGroup");
        group["apiVersion"] = json!("v1");
    }
    group
}

fn groups() -> Value {
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group(false)]})
}

fn resources() -> Value {
    let resource = |name: &str, kind: &str, namespaced: bool| json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"]});
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": VERSION,
        "resources": [resource("nodes", "NodeMetrics", false), resource("pods", "PodMetrics", true)],
    })
}

fn answer(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}

fn shown(outcome: ApiResult<Value>) -> Response {
    match outcome {
        Ok(value) => answer(&value),
        Err(error) => {
            let code = StatusCode::from_u16(error.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let body = serde_json::to_string(error.status()).unwrap_or_default();
            (code, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
    }
}

async fn nodes(State(served): State<Served>, headers: HeaderMap, Query(parameters): Parameters) -> Response {
    let outcome = Selection::of(&parameters).map(|selection| {
        let all = served.nodes.list();
        let selected = all.iter().filter(|node| selection.takes(&node.labels, &node.key));
        let rows: Vec<Row> = selected.filter_map(|node| served.node(&node.key.name, &node.labels)).collect();
        list("NodeMetrics", rows, &headers)
    });
    shown(outcome)
}

async fn node(State(served): State<Served>, headers: HeaderMap, Path(name): Path<String>) -> Response {
    let known = served.nodes.get(&ObjectKey::new("", &name));
    let row = known.and_then(|node| served.node(&name, &node.labels));
    shown(one(row, "nodes", &name, &headers))
}

async fn all_pods(State(served): State<Served>, headers: HeaderMap, Query(parameters): Parameters) -> Response {
    shown(served.pods(None, &headers, &parameters))
}

async fn pods(
    State(served): State<Served>,
    headers: HeaderMap,
    Path(namespace): Path<String>,
    Query(parameters): Parameters,
) -> Response {
    shown(served.pods(Some(&namespace), &headers, &parameters))
}

async fn pod(
    State(served): State<Served>,
    headers: HeaderMap,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    let known = served.pods.get(&ObjectKey::new(&namespace, &name));
    let row = known.and_then(|pod| {
        let containers = served.book.read().pods(Some(&namespace)).remove(&(namespace.clone(), name.clone()))?;
        pod_row(&namespace, &name, &pod.labels, &containers)
    });
    shown(one(row, "pods", &name, &headers))
}

impl Served {
    fn node(&self, name: &str, labels: &BTreeMap<String, String>) -> Option<Row> {
        let usage = self.book.read().node(name)?;
        let object = json!({
            "kind": "NodeMetrics", "apiVersion": VERSION,
            "metadata": metadata(name, None, labels, usage.at),
            "timestamp": time(usage.at), "window": runtime::flags::format_duration(usage.window),
            "usage": amounts(&usage),
        });
        Some(Row { object, total: usage })
    }

    fn pods(
        &self,
        namespace: Option<&str>,
        headers: &HeaderMap,
        parameters: &BTreeMap<String, String>,
    ) -> ApiResult<Value> {
        let selection = Selection::of(parameters)?;
        let measured = self.book.read().pods(namespace);
        let mut rows = Vec::new();
        for ((namespace, name), containers) in &measured {
            let key = ObjectKey::new(namespace, name);
            let Some(pod) = self.pods.get(&key).filter(|pod| selection.takes(&pod.labels, &key)) else { continue };
            rows.extend(pod_row(namespace, name, &pod.labels, containers));
        }
        Ok(list("PodMetrics", rows, headers))
    }
}

fn pod_row(namespace: &str, name: &str, labels: &BTreeMap<String, String>, containers: &Containers) -> Option<Row> {
    let mut all = containers.values();
    // The earliest sample is what all of them are known at.
    let mut total = *all.clone().min_by_key(|usage| usage.at)?;
    (total.cpu, total.memory, total.swap) = all.by_ref().fold((0, 0, None), |(cpu, memory, swap), usage| {
        let swap = match (swap, usage.swap) {
            (None, None) => None,
            (a, b) => Some(a.unwrap_or(0) + b.unwrap_or(0)),
        };
        (cpu + usage.cpu, memory + usage.memory, swap)
    });
    let each: Vec<Value> =
        containers.iter().map(|(name, usage)| json!({"name": name, "usage": amounts(usage)})).collect();
    let object = json!({
        "kind": "PodMetrics", "apiVersion": VERSION,
        "metadata": metadata(name, Some(namespace), labels, total.at),
        "timestamp": time(total.at), "window": runtime::flags::format_duration(total.window), "containers": each,
    });
    Some(Row { object, total })
}

fn metadata(name: &str, namespace: Option<&str>, labels: &BTreeMap<String, String>, at: i64) -> Value {
    let mut metadata = json!({"name": name, "creationTimestamp": time(at)});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    if !labels.is_empty() {
        metadata["labels"] = json!(labels);
    }
    metadata
}

/// Whole seconds, as the API has times.
fn time(at: i64) -> String {
    Timestamp::from_second(at.div_euclid(1000)).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

fn amounts(usage: &Usage) -> Value {
    let mut amounts = json!({"cpu": cpu(usage.cpu), "memory": bytes(usage.memory)});
    if let Some(swap) = usage.swap {
        amounts["swap"] = json!(bytes(swap));
    }
    amounts
}

fn cpu(nanos: u64) -> String {
    Quantity::parse(&format!("{nanos}n")).map_or_else(|_| "0".to_owned(), |quantity| quantity.to_string())
}

/// Whole KiB, as people expect of memory.
fn bytes(count: u64) -> String {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    Quantity::from_units(count / 1024 * 1024, Format::BinarySi).to_string()
}

/// What a list is narrowed to.
struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    fn of(parameters: &BTreeMap<String, String>) -> ApiResult<Self> {
        let text = |name: &str| parameters.get(name).map_or("", String::as_str);
        let labels = LabelSelector::parse(text("labelSelector"));
        let fields = FieldSelector::parse(text("fieldSelector"));
        Ok(Self {
            labels: labels.map_err(|error| ApiError::bad_request(error.full_text()))?,
            fields: fields.map_err(|error| ApiError::bad_request(error.full_text()))?,
        })
    }

    fn takes(&self, labels: &BTreeMap<String, String>, key: &ObjectKey) -> bool {
        let field = |name: &str| match name {
            "metadata.name" => key.name.as_str(),
            "metadata.namespace" => key.namespace.as_str(),
            _ => "",
        };
        self.labels.matches(|name| labels.get(name).map(String::as_str)) && self.fields.matches(field)
    }
}

fn wants_table(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    // The first clause is what the client likes best.
    accept.split(',').next().is_some_and(|clause| clause.split(';').any(|part| part.trim() == "as=Table"))
}

fn list(kind: &str, rows: Vec<Row>, headers: &HeaderMap) -> Value {
    if wants_table(headers) {
        return table(rows);
    }
    let items: Vec<Value> = rows.into_iter().map(|row| row.object).collect();
    json!({"kind": format!("{kind}List"), "apiVersion": VERSION, "metadata": {}, "items": items})
}

fn one(row: Option<Row>, resource: &str, name: &str, headers: &HeaderMap) -> ApiResult<Value> {
    let missing = || ApiError::not_found(&GroupResource { group: GROUP.into(), resource: resource.into() }, name);
    let row = row.ok_or_else(missing)?;
    Ok(if wants_table(headers) { table(vec![row]) } else { row.object })
}

fn table(rows: Vec<Row>) -> Value {
    let column = |name: &str, description: &str| {
        json!({"name": name, "type": "string", "format": if name == "Name" { "name" } else { "" },
            "description": description, "priority": 0})
    };
    let rows: Vec<Value> = rows
        .into_iter()
        .map(|row| {
            let window = runtime::flags::format_duration(row.total.window);
            json!({
                "cells": [row.object["metadata"]["name"], cpu(row.total.cpu), bytes(row.total.memory), window],
                "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": row.object["metadata"]},
            })
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": [
            column("Name", "Name of the resource"), column("cpu", ""), column("memory", ""), column("Window", ""),
        ],
        "rows": rows,
    })
}

#[cfg(test)]
mod tests;
