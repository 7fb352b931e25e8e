//! Devices for tests.

use std::sync::Arc;

use controller::{Cached, ObjectKey, Viewed};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use serde_json::{Value, json};

use super::Devices;
use crate::objects::{DeviceClaimView, DeviceClassView, DeviceView, SliceView};

/// The driver of all devices.
const DRIVER: &str = "gpu.example.com";

/// A slice, from what its spec says besides driver and pool.
pub(crate) fn slice(name: &str, pool: &str, spec: Value) -> Arc<Cached<SliceView>> {
    let mut all = json!({"driver": DRIVER, "pool": {"name": pool, "generation": 1, "resourceSliceCount": 1}});
    all.as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap());
    let slice: ResourceSlice = serde_json::from_value(json!({"metadata": {"name": name}, "spec": all})).unwrap();
    Arc::new(Cached {
        key: ObjectKey::cluster(name),
        uid: name.into(),
        resource_version: "1".into(),
        view: SliceView::project(slice),
    })
}

/// A class.
pub(crate) fn class(name: &str, spec: Value, created: &str) -> Arc<Cached<DeviceClassView>> {
    let metadata = json!({"name": name, "creationTimestamp": created});
    let class: DeviceClass = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
    Arc::new(Cached {
        key: ObjectKey::cluster(name),
        uid: name.into(),
        resource_version: "1".into(),
        view: DeviceClassView::project(class),
    })
}

/// A device.
pub(crate) fn device(device: Value) -> DeviceView {
    let slice = slice("s", "pool", json!({"allNodes": true, "devices": [device]}));
    (*slice.devices[0]).clone()
}

impl Devices {
    /// A slice comes.
    pub(crate) fn offer(&self, name: &str, pool: &str, spec: Value) {
        let slice = Arc::into_inner(slice(name, pool, spec)).unwrap();
        self.slices.apply(slice);
    }

    /// A class comes.
    pub(crate) fn class(&self, name: &str, spec: Value) {
        self.classes.apply(Arc::into_inner(class(name, spec, "2026-01-01T00:00:00Z")).unwrap());
    }

    /// A claim comes or changes.
    pub(crate) fn claim(&self, name: &str, devices: Value, status: Value) {
        let claim: ResourceClaim = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")},
            "spec": {"devices": devices}, "status": status,
        }))
        .unwrap();
        self.put(name, claim);
    }

    /// A claim that was made for extended resources of a Pod.
    pub(crate) fn extended_claim(&self, name: &str, pod: &str, devices: Value, status: Value) {
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod, "controller": true});
        let claim: ResourceClaim = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "ownerReferences": [owner],
                "annotations": {"resource.kubernetes.io/extended-resource-claim": "true"}},
            "spec": {"devices": devices}, "status": status,
        }))
        .unwrap();
        self.put(name, claim);
    }

    fn put(&self, name: &str, claim: ResourceClaim) {
        self.claims.apply(Cached {
            key: ObjectKey::new("default", name),
            uid: format!("uid-{name}"),
            resource_version: "1".into(),
            view: DeviceClaimView::project(claim),
        });
    }
}
