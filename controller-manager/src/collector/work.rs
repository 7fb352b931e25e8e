//! Decisions about single objects, checked against the server and carried out.

use client::{ApiErrorExt, CallError};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{
    Api,
    api::{DeleteParams, DynamicObject, PartialObjectMeta, Patch, PatchParams, Preconditions, PropagationPolicy},
};
use serde_json::{Value, json};

use super::{
    Collector,
    graph::{self, FOREGROUND, Node, ORPHAN, Owners, Place, Verdict},
};

/// Attempts to write against others.
const ATTEMPTS: usize = 5;

/// Why an object could not be decided about.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkError {
    /// The server.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Discovery.
    #[error("cannot discover resources: {}", .0.text())]
    Discovery(kube::Error),
    /// No resource has the kind.
    #[error("no matches for kind {kind:?} in version {api_version:?}")]
    NoKind {
        /// The kind.
        kind: String,
        /// Its group and version.
        api_version: String,
    },
    /// An owner in a namespace cannot own what is in none.
    #[error("cluster-scoped objects cannot refer to namespaced owners")]
    NamespacedOwner,
    /// Dependents that could not be orphaned.
    #[error("orphaning {failed} dependents of {place:?} failed")]
    Orphaning {
        /// How many.
        failed: usize,
        /// The owner.
        place: Place,
    },
}

type Metas = Api<PartialObjectMeta<DynamicObject>>;

impl Collector {
    /// The API of a place, whose namespace is that of a dependent. The place comes back with the namespace it has.
    async fn api(&self, place: &Place) -> Result<(Metas, Place), WorkError> {
        let (group, version) = place.api_version.split_once('/').unwrap_or(("", &place.api_version));
        let found = self.discovery.kind(group, version, &place.kind).await.map_err(WorkError::Discovery)?;
        let Some(resource) = found else {
            return Err(WorkError::NoKind { kind: place.kind.clone(), api_version: place.api_version.clone() });
        };
        let described = resource.api_resource();
        let mut place = place.clone();
        if !resource.namespaced {
            place.namespace.clear();
            return Ok((Api::all_with(self.client.clone(), &described), place));
        }
        if place.namespace.is_empty() {
            return Err(WorkError::NamespacedOwner);
        }
        Ok((Api::namespaced_with(self.client.clone(), &place.namespace, &described), place))
    }

    /// The metadata the server has for a node; `None`, and the node forgotten, if it is gone.
    async fn live(&self, uid: &str, node: &Node) -> Result<Option<(Metas, ObjectMeta)>, WorkError> {
        let (api, place) = self.api(&node.place).await?;
        match api.get_metadata_opt(&place.name).await {
            Ok(Some(found)) if found.metadata.uid.as_deref() == Some(uid) => Ok(Some((api, found.metadata))),
            Ok(_) => {
                self.gone(uid);
                Ok(None)
            }
            Err(error) => Err(CallError::new(format!("get {} {}", place.kind, place.name), error).into()),
        }
    }

    /// Decides about an object that may have lost its owners.
    pub(super) async fn attempt_to_delete(&self, uid: &str) -> Result<(), WorkError> {
        let (node, dependents) = {
            let graph = self.graph.lock();
            let Some(node) = graph.get(uid).cloned() else { return Ok(()) };
            // Nothing is to be done for what has an owner for certain.
            let namespace = &node.place.namespace;
            let kept = !node.owners.is_empty() && node.owners.iter().all(|o| graph.is_solid(o, namespace));
            if kept && !node.foreground {
                return Ok(());
            }
            (node, graph.dependents(uid))
        };
        if node.deleting && !node.foreground {
            return Ok(());
        }
        let Some((api, latest)) = self.live(uid, &node).await? else { return Ok(()) };
        if node.foreground {
            return self.release_foreground(uid, &node, &api, &dependents).await;
        }
        let references = latest.owner_references.clone().unwrap_or_default();
        if references.is_empty() {
            return Ok(());
        }
        let owners = match self.classify(&node, &references).await {
            // It is left alone, as long as its references are what they are.
            Err(WorkError::NamespacedOwner) => return Ok(()),
            owners => owners?,
        };
        let dependents = if self.graph.lock().has_dependents(uid) { dependents } else { Vec::new() };
        match graph::judge(&owners, &dependents) {
            Verdict::Keep => Ok(()),
            Verdict::Detach => self.detach(&api, &latest, &owners).await,
            Verdict::DeleteForeground { unblock } => {
                if unblock {
                    self.unblock(&api, &latest).await?;
                }
                // The version has changed by the unblocking: only the object itself is insisted on then.
                let version = latest.resource_version.clone().filter(|_| !unblock);
                self.delete(uid, &api, &latest, version, PropagationPolicy::Foreground).await
            }
            Verdict::Delete => {
                let has = |f: &str| latest.finalizers.iter().flatten().any(|x| x == f);
                let policy = if has(ORPHAN) {
                    PropagationPolicy::Orphan
                } else if has(FOREGROUND) {
                    PropagationPolicy::Foreground
                } else {
                    PropagationPolicy::Background
                };
                self.delete(uid, &api, &latest, latest.resource_version.clone(), policy).await
            }
        }
    }

    async fn classify(&self, node: &Node, references: &[OwnerReference]) -> Result<Owners, WorkError> {
        let mut owners = Owners::default();
        for reference in references {
            let list = match self.owner(node, reference).await? {
                None => &mut owners.dangling,
                Some(meta) => {
                    let foreground = meta.finalizers.iter().flatten().any(|f| f == FOREGROUND);
                    let waits = meta.deletion_timestamp.is_some() && foreground;
                    if waits { &mut owners.waiting } else { &mut owners.solid }
                }
            };
            list.push(reference.clone());
        }
        Ok(owners)
    }

    /// The owner a reference names, as the server has it now.
    async fn owner(&self, node: &Node, reference: &OwnerReference) -> Result<Option<ObjectMeta>, WorkError> {
        let named = Place::of(reference, &node.place.namespace);
        let bare = Place { namespace: String::new(), ..named.clone() };
        {
            let graph = self.graph.lock();
            if graph.is_absent(&reference.uid, &named) || graph.is_absent(&reference.uid, &bare) {
                return Ok(None);
            }
        }
        let (api, place) = self.api(&named).await?;
        let found = api.get_metadata_opt(&place.name).await;
        let found = found.map_err(|e| CallError::new(format!("get owner {} {}", place.kind, place.name), e))?;
        match found.filter(|o| o.metadata.uid.as_ref() == Some(&reference.uid)) {
            Some(owner) => Ok(Some(owner.metadata)),
            None => {
                self.graph.lock().note_absent(&reference.uid, place);
                Ok(None)
            }
        }
    }

    /// Takes away references to owners that are gone or going.
    async fn detach(&self, api: &Metas, latest: &ObjectMeta, owners: &Owners) -> Result<(), WorkError> {
        let keep = serde_json::to_value(&owners.solid).unwrap_or_default();
        self.patch(api, latest, json!({"ownerReferences": keep})).await
    }

    /// References stop blocking their owners.
    async fn unblock(&self, api: &Metas, latest: &ObjectMeta) -> Result<(), WorkError> {
        let mut owners = latest.owner_references.clone().unwrap_or_default();
        owners.iter_mut().for_each(|o| o.block_owner_deletion = Some(false));
        let owners = serde_json::to_value(&owners).unwrap_or_default();
        let changed = json!({"metadata": {"ownerReferences": owners, "uid": latest.uid}});
        self.write(api, latest, &changed).await
    }

    /// Merges metadata into the very version that was read.
    async fn patch(&self, api: &Metas, latest: &ObjectMeta, mut metadata: Value) -> Result<(), WorkError> {
        metadata["uid"] = json!(latest.uid);
        metadata["resourceVersion"] = json!(latest.resource_version);
        self.write(api, latest, &json!({"metadata": metadata})).await
    }

    async fn write(&self, api: &Metas, latest: &ObjectMeta, patch: &Value) -> Result<(), WorkError> {
        let name = latest.name.clone().unwrap_or_default();
        match api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if !error.is_not_found() => Err(CallError::new(format!("patch {name}"), error).into()),
            _ => Ok(()),
        }
    }

    async fn delete(
        &self,
        uid: &str,
        api: &Metas,
        latest: &ObjectMeta,
        mut version: Option<String>,
        policy: PropagationPolicy,
    ) -> Result<(), WorkError> {
        let name = latest.name.clone().unwrap_or_default();
        tracing::info!(v = 2, object = %name, uid, policy = ?policy, "Deleting item");
        loop {
            let preconditions = Preconditions { uid: latest.uid.clone(), resource_version: version.clone() };
            let params = DeleteParams {
                preconditions: Some(preconditions),
                propagation_policy: Some(policy.clone()),
                ..DeleteParams::default()
            };
            match api.delete(&name, &params).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_not_found() => {
                    self.gone(uid);
                    return Ok(());
                }
                Err(error) if error.is_conflict() && version.is_some() => {
                    let found = api.get_metadata_opt(&name).await;
                    let found = found.map_err(|e| CallError::new(format!("get {name}"), e))?;
                    if !found.is_some_and(|found| graph::has_same_owners(&found.metadata, latest)) {
                        return Err(CallError::new(format!("delete {name}"), error).into());
                    }
                    // It changes often, but not in what was decided by.
                    version = None;
                }
                Err(error) => return Err(CallError::new(format!("delete {name}"), error).into()),
            }
        }
    }

    /// An object that waits for its dependents goes once none blocks it.
    async fn release_foreground(
        &self,
        uid: &str,
        node: &Node,
        api: &Metas,
        dependents: &[(String, Node)],
    ) -> Result<(), WorkError> {
        let blocks = |d: &Node| d.owners.iter().any(|o| o.uid == uid && o.block_owner_deletion == Some(true));
        let blocking: Vec<&(String, Node)> = dependents.iter().filter(|(_, d)| blocks(d)).collect();
        if blocking.is_empty() {
            return self.remove_finalizer(api, uid, &node.place, FOREGROUND).await;
        }
        for (dependent, waiting) in blocking {
            if !waiting.foreground {
                self.delete.add(dependent.clone());
            }
        }
        Ok(())
    }

    async fn remove_finalizer(&self, api: &Metas, uid: &str, place: &Place, finalizer: &str) -> Result<(), WorkError> {
        for attempt in 1.. {
            let found = api.get_metadata_opt(&place.name).await;
            let found = found.map_err(|e| CallError::new(format!("get {} {}", place.kind, place.name), e))?;
            let Some(latest) = found.map(|f| f.metadata).filter(|m| m.uid.as_deref() == Some(uid)) else {
                self.gone(uid);
                return Ok(());
            };
            let present = latest.finalizers.clone().unwrap_or_default();
            let left: Vec<&String> = present.iter().filter(|f| *f != finalizer).collect();
            if left.len() == present.len() {
                return Ok(());
            }
            match self.patch(api, &latest, json!({"finalizers": left})).await {
                Err(WorkError::Call(error)) if error.is_conflict() && attempt < ATTEMPTS => {}
                outcome => return outcome,
            }
        }
        Ok(())
    }

    /// Takes the references to an owner off all its dependents, then lets the owner go.
    pub(super) async fn attempt_to_orphan(&self, uid: &str) -> Result<(), WorkError> {
        let (node, dependents) = {
            let graph = self.graph.lock();
            let Some(node) = graph.get(uid).cloned() else { return Ok(()) };
            (node, graph.dependents(uid))
        };
        if !node.orphaning {
            return Ok(());
        }
        let mut failed = 0;
        for (dependent, child) in &dependents {
            if let Err(error) = self.orphan_one(uid, dependent, child).await {
                tracing::debug!(err = %util::chain(&error), uid = dependent, "orphaning failed");
                failed += 1;
            }
        }
        if failed > 0 {
            return Err(WorkError::Orphaning { failed, place: node.place });
        }
        let (api, place) = self.api(&node.place).await?;
        self.remove_finalizer(&api, uid, &place, ORPHAN).await
    }

    async fn orphan_one(&self, owner: &str, uid: &str, node: &Node) -> Result<(), WorkError> {
        for attempt in 1.. {
            let Some((api, latest)) = self.live(uid, node).await? else { return Ok(()) };
            let references = latest.owner_references.clone().unwrap_or_default();
            let keep: Vec<&OwnerReference> = references.iter().filter(|o| o.uid != owner).collect();
            if keep.len() == references.len() {
                return Ok(());
            }
            let keep = serde_json::to_value(keep).unwrap_or_default();
            match self.patch(&api, &latest, json!({"ownerReferences": keep})).await {
                Err(WorkError::Call(error)) if error.is_conflict() && attempt < ATTEMPTS => {}
                outcome => return outcome,
            }
        }
        Ok(())
    }
}
