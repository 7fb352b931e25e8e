//! What containers and their Pod are given: amounts apart from the Pod that asks for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use serde::{Deserialize, Serialize};

use crate::pods::{self, resources};

/// What a resize may change, in the order in which it is changed.
pub(crate) const RESIZABLE: [&str; 2] = ["memory", "cpu"];

/// Resources of the containers of one Pod, and of the Pod as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Given {
    /// By container name, init containers included.
    #[serde(rename = "ContainerResources", default)]
    pub containers: BTreeMap<String, ResourceRequirements>,
    /// Of the Pod, if it has any.
    #[serde(rename = "PodLevelResources", default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<ResourceRequirements>,
}

impl Given {
    /// What a Pod asks for.
    pub fn of(pod: &Pod) -> Self {
        let containers = resizable(pods::spec(pod))
            .map(|container| (container.name.clone(), container.resources.clone().unwrap_or_default()));
        Self { containers: containers.collect(), pod: pods::spec(pod).resources.clone() }
    }

    /// The Pod with these amounts in the place of its own.
    pub fn in_pod(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        self.changed(pod).map_or_else(|| Arc::clone(pod), Arc::new)
    }

    /// The Pod with these amounts, if they are not its own.
    pub fn changed(&self, pod: &Pod) -> Option<Pod> {
        if *self == Self::of(pod) {
            return None;
        }
        let mut changed = pod.clone();
        if let Some(spec) = changed.spec.as_mut() {
            spec.resources.clone_from(&self.pod);
            for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
                if let Some(resources) = self.containers.get(&container.name) {
                    container.resources = Some(resources.clone());
                }
            }
        }
        Some(changed)
    }

    /// Whether two Pods are given the same, for all that a resize may change.
    pub fn is_same(&self, other: &Self) -> bool {
        let of = |given: &Self, name: &String| given.containers.get(name).cloned();
        let names = self.containers.keys().chain(other.containers.keys());
        RESIZABLE.iter().all(|resource| same(self.pod.as_ref(), other.pod.as_ref(), resource))
            && names.into_iter().all(|name| {
                let (a, b) = (of(self, name), of(other, name));
                RESIZABLE.iter().all(|resource| same(a.as_ref(), b.as_ref(), resource))
            })
    }
}

/// Init containers and regular ones.
fn resizable(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// Whether request and limit of one resource are the same.
pub(crate) fn same(a: Option<&ResourceRequirements>, b: Option<&ResourceRequirements>, resource: &str) -> bool {
    let of = |from: Option<&ResourceRequirements>| {
        let number = |map: &Option<resources::Amounts>| {
            resources::amount(map.as_ref(), resource).map(|amount| resources::number(resource, amount))
        };
        from.map_or((None, None), |from| (number(&from.requests), number(&from.limits)))
    };
    of(a) == of(b)
}

/// `from` with one resource's request and limit taken from `to`.
pub(crate) fn with_resource(
    from: Option<&ResourceRequirements>,
    to: Option<&ResourceRequirements>,
    resource: &str,
) -> ResourceRequirements {
    let mut out = from.cloned().unwrap_or_default();
    let set = |map: &mut Option<resources::Amounts>, amount: Option<_>| match amount {
        Some(amount) => drop(map.get_or_insert_default().insert(resource.to_owned(), amount)),
        None => drop(map.as_mut().and_then(|map| map.remove(resource))),
    };
    set(&mut out.requests, to.and_then(|to| resources::amount(to.requests.as_ref(), resource)).cloned());
    set(&mut out.limits, to.and_then(|to| resources::amount(to.limits.as_ref(), resource)).cloned());
    out
}
