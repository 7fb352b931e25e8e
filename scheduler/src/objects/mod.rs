//! What the scheduler reads of the API: small forms of the objects, so that a hundred thousand Pods stay affordable.

mod devices;
mod meta;
mod node;
mod others;
mod pod;
mod pod_object;
mod requests;
mod spec;
mod storage;

pub(crate) use devices::{
    CLAIM_FINALIZER, CapacityOf, DeviceClaimView, DeviceClassView, DeviceId, DeviceView, EXTENDED_CLAIM, EXTENDED_OF,
    Reach, SliceView, amount,
};
pub(crate) use meta::{Labels, Owner, controller_of};
pub(crate) use node::{NodeView, Taint, TaintEffect};
pub(crate) use others::{
    DisruptionBudgetView, NamespaceView, ReplicaSetView, ReplicationControllerView, ServiceView, StatefulSetView,
};
pub(crate) use pod::{DeviceClaimSource, OF_CLASS, PodView, SharedPod, Template};
pub(crate) use requests::{HostPort, Requests};
pub(crate) use spec::{
    AffinityTerm, InclusionPolicy, NodeSelector, NodeSelectorTerm, SpreadConstraint, Toleration, Weighted,
};
pub(crate) use storage::{
    AttachmentView, CapacityView, ClaimRef, ClaimView, ClassView, CsiDriverView, CsiNodeView, SELECTED_NODE, VolumeView,
};
#[cfg(test)]
pub(crate) use {node::NodeObject, pod_object::PodObject};

/// Makes a small object one that informers can watch.
macro_rules! watched {
    ($object:ident, $group:literal, $version:literal, $api:literal, $kind:literal, $plural:literal, $scope:ty) => {
        impl k8s_openapi::Resource for $object {
            const API_VERSION: &'static str = $api;
            const GROUP: &'static str = $group;
            const KIND: &'static str = $kind;
            const VERSION: &'static str = $version;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = $scope;
        }

        impl k8s_openapi::Metadata for $object {
            type Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

            fn metadata(&self) -> &Self::Ty {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut Self::Ty {
                &mut self.metadata
            }
        }
    };
}
pub(crate) use watched;

#[cfg(test)]
mod tests;
