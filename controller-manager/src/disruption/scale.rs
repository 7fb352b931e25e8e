//! How many Pods the controllers of some Pods are to have.

use std::{collections::HashMap, sync::Arc};

use ::controller::{Cached, Informer, ObjectKey, Whole, claim::controller_of};
use client::{ApiErrorExt, CallError, Discovery, api_for};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet, StatefulSet},
        core::v1::ReplicationController,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Api, Client, api::DynamicObject};

use crate::{replicaset::SetView, views::PodView};

/// Why the scale is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScaleError {
    /// No controller that a Pod names is there.
    #[error("found no controllers for pod \"{0}\"")]
    NoController(String),
    /// The controller cannot be scaled.
    #[error("{0} does not implement the scale subresource")]
    NoScale(String),
    /// The server does not say what it serves.
    #[error("cannot find out what is served: {}", .0.text())]
    Discovery(#[from] kube::Error),
    /// The server does not give the scale.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// What is known of a set of Pods.
#[derive(Debug, Default)]
pub(super) struct Count {
    /// The scales of their controllers.
    pub(super) expected: i32,
    /// Pods without a controller.
    pub(super) unmanaged: Vec<String>,
}

/// The kinds whose scale is known without asking.
pub(super) struct Scales {
    pub(super) client: Client,
    pub(super) discovery: Discovery,
    pub(super) deployments: Informer<Whole<Deployment>>,
    pub(super) sets: Informer<SetView<ReplicaSet>>,
    pub(super) controllers: Informer<SetView<ReplicationController>>,
    pub(super) stateful: Informer<Whole<StatefulSet>>,
}

/// UID and scale of what decides how many Pods there are.
type Scale = (String, i32);

impl Scales {
    /// The scales of the distinct controllers of `pods`.
    pub(super) async fn count(&self, pods: &[Arc<Cached<PodView>>]) -> Result<Count, ScaleError> {
        let mut count = Count::default();
        // By the UID of the Pods' controller, which may be scaled by another one.
        let mut known: HashMap<&str, Scale> = HashMap::new();
        for pod in pods {
            let Some(owner) = pod.controller() else {
                count.unmanaged.push(pod.key.name.clone());
                continue;
            };
            if known.contains_key(owner.uid.as_str()) {
                continue;
            }
            let scale = match self.cached(&pod.key.namespace, owner) {
                Some(scale) => Some(scale),
                None => self.asked(&pod.key.namespace, owner).await?,
            };
            let scale = scale.ok_or_else(|| ScaleError::NoController(pod.key.name.clone()))?;
            known.insert(&owner.uid, scale);
        }
        let distinct: HashMap<String, i32> = known.into_values().collect();
        count.expected = distinct.values().fold(0, |sum, scale| sum.saturating_add(*scale));
        Ok(count)
    }

    fn cached(&self, namespace: &str, owner: &OwnerReference) -> Option<Scale> {
        let key = ObjectKey::new(namespace, &owner.name);
        let scale =
            |uid: &str, replicas: Option<i32>| (uid == owner.uid).then(|| (uid.to_owned(), replicas.unwrap_or(1)));
        match (group_of(owner), owner.kind.as_str()) {
            ("", "ReplicationController") => {
                let found = self.controllers.get(&key)?;
                scale(&found.uid, found.0.spec.as_ref()?.replicas)
            }
            ("apps" | "extensions", "ReplicaSet") => {
                let found = self.sets.get(&key).filter(|set| set.uid == owner.uid)?;
                match controller_of(found.0.metadata.owner_references.as_deref()) {
                    Some(above) if is_deployment(above) => self.deployment(namespace, above),
                    _ => scale(&found.uid, found.0.spec.as_ref()?.replicas),
                }
            }
            ("apps", "StatefulSet") => {
                let found = self.stateful.get(&key)?;
                scale(&found.uid, found.spec.as_ref()?.replicas)
            }
            _ => None,
        }
    }

    fn deployment(&self, namespace: &str, owner: &OwnerReference) -> Option<Scale> {
        let found = self.deployments.get(&ObjectKey::new(namespace, &owner.name)).filter(|d| d.uid == owner.uid)?;
        Some((found.uid.clone(), found.spec.as_ref()?.replicas.unwrap_or(1)))
    }

    /// The scale as the server has it; `None` if the controller, or its kind, is not there.
    async fn asked(&self, namespace: &str, owner: &OwnerReference) -> Result<Option<Scale>, ScaleError> {
        let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let Some(resource) = self.discovery.kind(group, version, &owner.kind).await? else { return Ok(None) };
        if !resource.subresources.iter().any(|s| s == "scale") {
            let gvr = &resource.gvr;
            let shown = if group.is_empty() { gvr.resource.clone() } else { format!("{}.{}", gvr.resource, gvr.group) };
            return Err(ScaleError::NoScale(shown));
        }
        let namespace = resource.namespaced.then_some(namespace);
        let api: Api<DynamicObject> = api_for(self.client.clone(), &resource.api_resource(), namespace);
        match api.get_scale(&owner.name).await {
            Ok(scale) if scale.metadata.uid.as_ref() == Some(&owner.uid) => {
                let replicas = scale.spec.and_then(|spec| spec.replicas).unwrap_or(0);
                Ok(Some((owner.uid.clone(), replicas)))
            }
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(CallError::new(format!("get the scale of {} {}", owner.kind, owner.name), error).into()),
        }
    }
}

fn group_of(owner: &OwnerReference) -> &str {
    owner.api_version.split_once('/').map_or("", |(group, _)| group)
}

fn is_deployment(owner: &OwnerReference) -> bool {
    matches!(group_of(owner), "apps" | "extensions") && owner.kind == "Deployment"
}
