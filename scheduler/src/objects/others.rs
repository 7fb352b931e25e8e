//! Kinds of which only a selector or the labels matter.

use std::collections::BTreeMap;

use controller::Viewed;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use machinery::selector::LabelSelector;
use serde::Deserialize;

use super::{Labels, meta::metadata, spec::selector, watched};

/// A namespace from the API.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct NamespaceObject {
    #[serde(deserialize_with = "metadata", default)]
    metadata: ObjectMeta,
}
watched!(NamespaceObject, "", "v1", "v1", "Namespace", "namespaces", ClusterResourceScope);

/// Labels of a namespace.
#[derive(Debug)]
pub(crate) struct NamespaceView {
    pub(crate) labels: Labels,
}

impl Viewed for NamespaceView {
    type Object = NamespaceObject;

    fn project(mut object: NamespaceObject) -> Self {
        Self { labels: Labels::new(object.metadata.labels.take()) }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
struct MapSpec {
    selector: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct SelectorSpec {
    #[serde(default, deserialize_with = "selector")]
    selector: Option<LabelSelector>,
}

fn of_map(map: Option<BTreeMap<String, String>>) -> Option<LabelSelector> {
    let map = map.filter(|m| !m.is_empty())?;
    Some(LabelSelector::from_map(map.iter().map(|(k, v)| (k.as_str(), v.as_str()))))
}

/// Defines an object with a selector in its spec, and the view that holds only the selector.
macro_rules! selecting {
    ($object:ident, $view:ident, $doc:literal, $spec:ty, $of:expr, $group:literal, $api:literal, $kind:literal, $plural:literal) => {
        #[doc = $doc]
        #[derive(Clone, Debug, Default, Deserialize)]
        pub(crate) struct $object {
            #[serde(deserialize_with = "metadata", default)]
            metadata: ObjectMeta,
            #[serde(default)]
            spec: $spec,
        }
        watched!($object, $group, "v1", $api, $kind, $plural, NamespaceResourceScope);

        #[doc = $doc]
        #[derive(Debug)]
        pub(crate) struct $view {
            /// What it selects; `None` for nothing.
            pub(crate) selector: Option<LabelSelector>,
        }

        impl Viewed for $view {
            type Object = $object;

            fn project(object: $object) -> Self {
                Self { selector: $of(object.spec.selector) }
            }
        }
    };
}

selecting!(ServiceObject, ServiceView, "A Service.", MapSpec, of_map, "", "v1", "Service", "services");
selecting!(
    ReplicationControllerObject,
    ReplicationControllerView,
    "A ReplicationController.",
    MapSpec,
    of_map,
    "",
    "v1",
    "ReplicationController",
    "replicationcontrollers"
);
selecting!(
    ReplicaSetObject,
    ReplicaSetView,
    "A ReplicaSet.",
    SelectorSpec,
    std::convert::identity,
    "apps",
    "apps/v1",
    "ReplicaSet",
    "replicasets"
);
selecting!(
    StatefulSetObject,
    StatefulSetView,
    "A StatefulSet.",
    SelectorSpec,
    std::convert::identity,
    "apps",
    "apps/v1",
    "StatefulSet",
    "statefulsets"
);

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BudgetStatus {
    disruptions_allowed: i32,
    disrupted_pods: BTreeMap<Box<str>, serde::de::IgnoredAny>,
}

/// A PodDisruptionBudget from the API.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct DisruptionBudgetObject {
    #[serde(deserialize_with = "metadata", default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SelectorSpec,
    #[serde(default)]
    status: BudgetStatus,
}
watched!(
    DisruptionBudgetObject,
    "policy",
    "v1",
    "policy/v1",
    "PodDisruptionBudget",
    "poddisruptionbudgets",
    NamespaceResourceScope
);

/// How many Pods may go.
#[derive(Clone, Debug)]
pub(crate) struct DisruptionBudgetView {
    pub(crate) namespace: Box<str>,
    pub(crate) selector: LabelSelector,
    pub(crate) allowed: i32,
    /// Names of Pods whose disruption was granted already.
    pub(crate) disrupted: Vec<Box<str>>,
}

impl Viewed for DisruptionBudgetView {
    type Object = DisruptionBudgetObject;

    fn project(object: DisruptionBudgetObject) -> Self {
        Self {
            namespace: object.metadata.namespace.unwrap_or_default().into(),
            selector: object.spec.selector.unwrap_or_else(LabelSelector::nothing),
            allowed: object.status.disruptions_allowed,
            disrupted: object.status.disrupted_pods.into_keys().collect(),
        }
    }
}
