//! Whom a Pod is spread among by default: those that its Services and its owner select.

use std::sync::Arc;

use controller::{Informer, InformerSet, ObjectKey};
use machinery::selector::{LabelSelector, Requirement};

use crate::{
    objects::{ReplicaSetView, ReplicationControllerView, ServiceView, StatefulSetView, Template},
    plugins::topology_spread::DefaultSelector,
};

struct Sources {
    services: Informer<ServiceView>,
    controllers: Informer<ReplicationControllerView>,
    replica_sets: Informer<ReplicaSetView>,
    stateful_sets: Informer<StatefulSetView>,
}

/// A selector that follows the cluster.
pub(crate) fn following(informers: &InformerSet) -> DefaultSelector {
    let sources = Sources {
        services: informers.get(),
        controllers: informers.get(),
        replica_sets: informers.get(),
        stateful_sets: informers.get(),
    };
    Arc::new(move |template| sources.select(template))
}

impl Sources {
    /// All requirements together; one that everything meets if there are none.
    fn select(&self, template: &Template) -> LabelSelector {
        let mut requirements: Vec<Requirement> = Vec::new();
        for service in self.services.in_namespace(&template.namespace) {
            if let Some(selector) = service.selector.as_ref().filter(|s| template.labels.match_selector(s)) {
                merge(&mut requirements, selector.requirements());
            }
        }
        if let Some(selector) = self.of_owner(template) {
            merge(&mut requirements, selector.requirements());
        }
        LabelSelector::from_requirements(requirements)
    }

    fn of_owner(&self, template: &Template) -> Option<LabelSelector> {
        let owner = template.owner.as_ref()?;
        let key = ObjectKey::new(&*template.namespace, &*owner.name);
        match &*owner.kind {
            "ReplicationController" => self.controllers.get(&key)?.selector.clone(),
            "ReplicaSet" => self.replica_sets.get(&key)?.selector.clone(),
            "StatefulSet" => self.stateful_sets.get(&key)?.selector.clone(),
            _ => None,
        }
    }
}

/// Adds what is not there yet.
fn merge(into: &mut Vec<Requirement>, more: &[Requirement]) {
    for requirement in more {
        if !into.contains(requirement) {
            into.push(requirement.clone());
        }
    }
}
