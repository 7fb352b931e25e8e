//! Carries out plans for slices.

use std::collections::HashMap;

use ::controller::{Informer, ObjectKey, OwnWrites};
use client::{ApiErrorExt, CallError};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams},
};
use parking_lot::Mutex;
use prometheus::IntCounterVec;

use super::{Plan, SliceView};

const SLICES: &str = "endpointslices";

/// Writes slices, and knows its own writes again when they come back.
pub(crate) struct Writer {
    client: Client,
    own: OwnWrites<ObjectKey>,
    /// Revision of the last own write of a slice.
    written: Mutex<HashMap<ObjectKey, String>>,
    /// Counts writes by operation.
    changes: Option<IntCounterVec>,
}

impl Writer {
    pub(crate) fn new(client: Client, changes: Option<IntCounterVec>) -> Self {
        Self { client, own: OwnWrites::default(), written: Mutex::default(), changes }
    }

    fn changed(&self, operation: &str) {
        if let Some(changes) = &self.changes {
            changes.with_label_values(&[operation]).inc();
        }
    }

    /// Whether the cache does not show yet what was written for `key`.
    pub(crate) fn lags(&self, key: &ObjectKey, slices: &Informer<SliceView>) -> bool {
        !self.own.lagging(key, |_| slices.last_revision()).is_empty()
    }

    /// Whether a slice is just as it was written here.
    pub(crate) fn is_echo(&self, slice: &ObjectKey, resource_version: &str) -> bool {
        self.written.lock().get(slice).is_some_and(|v| v == resource_version)
    }

    /// A slice is gone.
    pub(crate) fn forget(&self, slice: &ObjectKey) {
        self.written.lock().remove(slice);
    }

    /// Whether the deletion of a slice was asked for here.
    fn wrote(&self, key: &ObjectKey, slice: &EndpointSlice) {
        let version = slice.resource_version().unwrap_or_default();
        self.own.wrote(key, SLICES, &version);
        let own = ObjectKey::new(key.namespace.clone(), slice.name_any());
        self.written.lock().insert(own, version);
    }

    /// Creates, updates and deletes for the object of `key`. In a namespace that goes away nothing is created.
    pub(crate) async fn carry_out(&self, key: &ObjectKey, plan: Plan) -> Result<(), CallError> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &key.namespace);
        for slice in &plan.create {
            match api.create(&PostParams::default(), slice).await {
                Ok(created) => {
                    self.changed("create");
                    self.wrote(key, &created);
                }
                Err(error) if error.is_namespace_terminating() => return Ok(()),
                Err(error) => {
                    return Err(CallError::new(format!("failed to create EndpointSlice for Service {key}"), error));
                }
            }
        }
        for slice in &plan.update {
            let name = slice.name_any();
            let updated = api.replace(&name, &PostParams::default(), slice).await;
            let updated = updated
                .map_err(|e| CallError::new(format!("failed to update {name} EndpointSlice for Service {key}"), e))?;
            self.changed("update");
            self.wrote(key, &updated);
        }
        for slice in &plan.delete {
            let name = slice.name_any();
            match api.delete(&name, &DeleteParams::default()).await {
                Err(error) if !error.is_not_found() => {
                    let attempt = format!("failed to delete {name} EndpointSlice for Service {key}");
                    return Err(CallError::new(attempt, error));
                }
                _ => {
                    self.changed("delete");
                    self.forget(&ObjectKey::new(key.namespace.clone(), name));
                }
            }
        }
        Ok(())
    }
}
