//! EndpointSlices: how endpoints are packed into them, and how plans for them are carried out. For every controller
//! that keeps slices.

mod pack;
mod write;

use ::controller::{Cached, Index, Viewed};
use k8s_openapi::api::discovery::v1::EndpointSlice;

pub(crate) use pack::{Blueprint, Group, Plan, pack};
pub(crate) use write::Writer;

/// Label: the Service a slice is of.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label: who keeps the slice.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Annotation: when the change happened that the last write shows.
pub(crate) const TRIGGER_TIME: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// A whole EndpointSlice.
#[derive(Clone, Debug)]
pub(crate) struct SliceView(pub(crate) EndpointSlice);

impl std::ops::Deref for SliceView {
    type Target = EndpointSlice;

    fn deref(&self) -> &EndpointSlice {
        &self.0
    }
}

impl SliceView {
    /// Value of a label.
    pub(crate) fn label(&self, key: &str) -> &str {
        self.0.metadata.labels.as_ref().and_then(|l| l.get(key)).map_or("", String::as_str)
    }
}

/// Index by `<namespace>/<service>`.
pub(crate) const BY_SERVICE: &str = "service";

fn by_service(slice: &Cached<SliceView>) -> Vec<String> {
    let service = slice.label(SERVICE_NAME);
    if service.is_empty() { Vec::new() } else { vec![format!("{}/{service}", slice.key.namespace)] }
}

impl Viewed for SliceView {
    type Object = EndpointSlice;

    const INDICES: &'static [Index<Self>] = &[Index { name: BY_SERVICE, keys: by_service }];

    fn project(mut slice: EndpointSlice) -> Self {
        slice.metadata.managed_fields = None;
        Self(slice)
    }
}
