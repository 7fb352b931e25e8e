//! The endpoints of the built-in API, made from the kinds table.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api::Kind;
use generic::{
    endpoint::{Endpoint, Handler, Hooks, Nature, ScalePaths, ScaleSelector, Subresource},
    print::DefaultPrinter,
    resource::{Keeping, Resource, StrategyRef},
    server::Endpoints,
};
use storage::{
    contract::Store,
    metered::{MeteredStore, StoreMetrics},
};

use crate::{conversion, services::ServiceHooks, tables};

/// Handlers of subresources and of kinds that are not stored, by group and `resource[/subresource]`.
pub type Handlers = BTreeMap<(&'static str, &'static str), Arc<dyn Handler>>;

/// Settings of the storage of all resources.
pub struct StorageSettings {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Stores of single resources.
    pub overrides: BTreeMap<machinery::GroupResource, Arc<dyn Store>>,
    /// Key prefix of everything, `/registry` unless told otherwise; no trailing slash.
    pub prefix: String,
    /// Life of events.
    pub event_ttl: Duration,
    /// How resources are kept.
    pub keeping: Keeping,
    /// Metrics of what resources ask of the store.
    pub store_metrics: StoreMetrics,
}

/// Stored resources by group and plural, one for all the versions it is served in.
pub fn resources(settings: &StorageSettings) -> BTreeMap<(String, String), Arc<Resource>> {
    let mut resources = BTreeMap::new();
    for kind in api::api().kinds().iter().filter(|k| k.is_stored()) {
        let stored = api::storage_kind(&kind.gvk);
        let Some(strategy) = rules::strategy::for_kind(&stored) else { continue };
        let group = if stored.group == kind.gvk.group { &kind.gvk.group } else { &stored.group };
        let key = (group.clone(), kind.plural.clone());
        if resources.contains_key(&key) {
            continue;
        }
        let group_resource = machinery::GroupResource::new(group.clone(), kind.plural.clone());
        let prefix = format!("{}/{}", settings.prefix, api::storage_prefix(group, &kind.plural));
        let store = MeteredStore::new(
            Arc::clone(settings.overrides.get(&group_resource).unwrap_or(&settings.store)),
            settings.store_metrics.clone(),
            group.clone(),
            kind.plural.clone(),
        );
        let mut resource = Resource::new(
            stored,
            group_resource,
            kind.namespaced,
            StrategyRef::Static(strategy),
            prefix,
            Arc::new(store),
            &settings.keeping,
        );
        if kind.gvk.kind == "Event" {
            resource.ttl = Some(settings.event_ttl);
        }
        resources.insert(key, Arc::new(resource));
    }
    resources
}

/// All endpoints over the given resources and handlers.
pub fn endpoints(
    resources: &BTreeMap<(String, String), Arc<Resource>>,
    handlers: &Handlers,
    services: &Arc<ServiceHooks>,
    serves: &dyn Fn(&Kind) -> bool,
) -> Endpoints {
    let mut endpoints = Endpoints::default();
    for kind in api::api().kinds().iter().filter(|kind| serves(kind)) {
        if let Some(mut endpoint) = endpoint(kind, resources, handlers) {
            if kind.gvk.kind == "Service" {
                endpoint.hooks = Some(Arc::clone(services) as Arc<dyn Hooks>);
            }
            endpoints.add(endpoint);
        }
    }
    endpoints
}

fn endpoint(
    kind: &'static Kind,
    resources: &BTreeMap<(String, String), Arc<Resource>>,
    handlers: &Handlers,
) -> Option<Endpoint> {
    let stored = api::storage_kind(&kind.gvk);
    let resource = resources.get(&(stored.group.clone(), kind.plural.clone())).cloned();
    let schema = api::api().schema(&kind.gvk)?;
    let mut subresources = BTreeMap::new();
    if let Some(handler) = handlers.get(&(kind.gvk.group.as_str(), kind.plural.as_str())) {
        subresources.insert("", Subresource::Handler(Arc::clone(handler)));
    }
    for sub in &kind.subresources {
        let path = format!("{}/{}", kind.plural, sub.name);
        let handler = handlers.get(&(kind.gvk.group.as_str(), path.as_str()));
        let served = match (sub.name.as_str(), handler) {
            (_, Some(handler)) => Subresource::Handler(Arc::clone(handler)),
            ("scale", None) if kind.gvk.group.is_empty() => {
                Subresource::Scale(ScalePaths::built_in(ScaleSelector::Plain))
            }
            ("scale", None) => Subresource::Scale(ScalePaths::built_in(ScaleSelector::Structured)),
            ("status" | "approval" | "finalize" | "resize" | "ephemeralcontainers", None) => Subresource::Part,
            (_, None) => continue,
        };
        subresources.insert(sub.name.as_str(), served);
    }
    Some(Endpoint {
        gvr: machinery::GroupVersionResource::new(&kind.gvk.group, &kind.gvk.version, &kind.plural),
        gvk: kind.gvk.clone(),
        list_kind: kind.list_kind(),
        namespaced: kind.namespaced,
        verbs: kind.verbs.clone(),
        nature: Nature::BuiltIn(schema),
        resource,
        conversion: conversion::between(&kind.gvk, &stored),
        printer: tables::printer(&kind.gvk).unwrap_or_else(|| Box::new(DefaultPrinter)),
        hooks: None,
        subresources,
    })
}
