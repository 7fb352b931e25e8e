//! What controllers with children share: selectors, owner references, Pods from templates, adoption and release.

use std::{collections::BTreeMap, fmt::Debug};

use ::controller::{
    EventRecorder, EventType,
    claim::{self, Child, Claim, Parent},
};
use client::{ApiErrorExt, CallError, Scope};
use k8s_openapi::{
    api::core::v1::{ObjectReference, Pod, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::{self as meta, ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, PostParams, Preconditions},
    core::NamespaceResourceScope,
};
use machinery::selector::LabelSelector;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::OnceCell;

/// Longest name an object can have.
const MAX_NAME: usize = 253;

/// A kind whose objects live in namespaces, as far as children are concerned.
pub(crate) trait Namespaced:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<K> Namespaced for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
        + Send
        + Sync
        + 'static
{
}

/// A selector that is not valid, which the API server should have refused.
#[derive(Debug, thiserror::Error)]
#[error("invalid label selector: {0}")]
pub(crate) struct SelectorError(String);

/// The selector of an object.
pub(crate) fn selector_of(selector: &meta::LabelSelector) -> Result<LabelSelector, SelectorError> {
    let value = serde_json::to_value(selector).map_err(|e| SelectorError(e.to_string()))?;
    LabelSelector::from_object(&value).map_err(|e| SelectorError(e.full_text()))
}

/// Whether a selector matches labels.
pub(crate) fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    selector.matches(|key| labels.get(key).map(String::as_str))
}

/// Whether a selector that has to select something matches labels.
pub(crate) fn selects(selector: &meta::LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    selector_of(selector).is_ok_and(|s| !s.is_everything() && matches(&s, labels))
}

/// The reference that makes `owner` the controller of a child.
pub(crate) fn owner_reference<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Prefix of the names of a parent's Pods.
pub(crate) fn name_prefix(parent: &str) -> String {
    if parent.len() < MAX_NAME { format!("{parent}-") } else { parent.to_owned() }
}

/// A template without labels makes Pods that nobody finds.
#[derive(Debug, thiserror::Error)]
#[error("unable to create pods, no labels")]
pub(crate) struct NoLabels;

/// A Pod of a template, without a name.
pub(crate) fn pod_of(template: &PodTemplateSpec, prefix: &str, owner: &OwnerReference) -> Result<Pod, NoLabels> {
    let from = template.metadata.as_ref();
    let labels = from.and_then(|m| m.labels.clone()).filter(|l| !l.is_empty()).ok_or(NoLabels)?;
    Ok(Pod {
        metadata: ObjectMeta {
            generate_name: Some(prefix.to_owned()),
            labels: Some(labels),
            annotations: from.and_then(|m| m.annotations.clone()),
            finalizers: from.and_then(|m| m.finalizers.clone()),
            owner_references: Some(vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    })
}

/// Why a Pod was not made or deleted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PodError {
    /// Its template is of no use.
    #[error(transparent)]
    Template(#[from] NoLabels),
    /// The server refused.
    #[error("{}", .0.text())]
    Api(#[from] kube::Error),
}

impl PodError {
    /// The object is gone already.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(e) if e.is_not_found())
    }

    /// The namespace takes no new objects.
    pub(crate) fn is_namespace_terminating(&self) -> bool {
        matches!(self, Self::Api(e) if e.is_namespace_terminating())
    }
}

/// Creates and deletes Pods, and tells about it on their parent.
#[derive(Clone)]
pub(crate) struct PodControl {
    client: Client,
    recorder: EventRecorder,
}

impl PodControl {
    pub(crate) fn new(client: Client, recorder: EventRecorder) -> Self {
        Self { client, recorder }
    }

    /// Creates a Pod. Nothing is told when the namespace goes away.
    pub(crate) async fn create(&self, namespace: &str, pod: &Pod, parent: &ObjectReference) -> Result<Pod, PodError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        match api.create(&PostParams::default(), pod).await {
            Ok(created) => {
                let message = format!("Created pod: {}", created.name_any());
                self.recorder.event(parent, EventType::Normal, "SuccessfulCreate", message);
                Ok(created)
            }
            Err(error) => {
                if !error.is_namespace_terminating() {
                    let message = format!("Error creating: {}", error.text());
                    self.recorder.event(parent, EventType::Warning, "FailedCreate", message);
                }
                Err(error.into())
            }
        }
    }

    /// Deletes a Pod.
    pub(crate) async fn delete(&self, namespace: &str, name: &str, parent: &ObjectReference) -> Result<(), PodError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        match api.delete(name, &DeleteParams::background()).await {
            Ok(_) => {
                let message = format!("Deleted pod: {name}");
                self.recorder.event(parent, EventType::Normal, "SuccessfulDelete", message);
                Ok(())
            }
            Err(error) => {
                if !error.is_not_found() {
                    let message = format!("Error deleting: {}", error.text());
                    self.recorder.event(parent, EventType::Warning, "FailedDelete", message);
                }
                Err(error.into())
            }
        }
    }
}

/// Options to delete an object only if it still is the one with `uid`.
pub(crate) fn delete_exactly(uid: &str) -> DeleteParams {
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() }
}

/// Why a child could not be claimed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    /// The parent may not adopt any more.
    #[error("can't adopt {child}: {cause}")]
    CannotAdopt {
        /// `Pod ns/name (uid)`.
        child: String,
        /// Why.
        cause: String,
    },
    /// The server refused the patch.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// A child that may be claimed.
pub(crate) struct Candidate<'a> {
    pub(crate) name: &'a str,
    pub(crate) uid: &'a str,
    pub(crate) controller: Option<&'a str>,
    pub(crate) deleting: bool,
    pub(crate) matches: bool,
}

/// Adopts and releases the children of one parent during one reconciliation.
pub(crate) struct Claimer<'a, P: Namespaced> {
    client: &'a Client,
    parent: &'a P,
    owner: OwnerReference,
    namespace: String,
    finalizers: &'a [&'a str],
    /// The one uncached look at the parent.
    checked: OnceCell<Result<(), String>>,
}

impl<'a, P: Namespaced> Claimer<'a, P> {
    /// `finalizers` are set on adoption and taken away on release.
    pub(crate) fn new(client: &'a Client, parent: &'a P, finalizers: &'a [&'a str]) -> Self {
        let namespace = parent.namespace().unwrap_or_default();
        Self { client, parent, owner: owner_reference(parent), namespace, finalizers, checked: OnceCell::new() }
    }

    /// Whether the child is ours now.
    pub(crate) async fn claim<C: Namespaced>(&self, child: &Candidate<'_>) -> Result<bool, ClaimError> {
        let parent = Parent {
            uid: &self.owner.uid,
            namespace: &self.namespace,
            deleting: self.parent.meta().deletion_timestamp.is_some(),
        };
        let view = Child {
            namespace: &self.namespace,
            controller: child.controller,
            deleting: child.deleting,
            matches: child.matches,
        };
        match claim::claim(&parent, &view) {
            Claim::Keep => Ok(true),
            Claim::Ignore => Ok(false),
            Claim::Adopt => self.adopt::<C>(child).await,
            Claim::Release => self.release::<C>(child).await.map(|()| false),
        }
    }

    async fn adopt<C: Namespaced>(&self, child: &Candidate<'_>) -> Result<bool, ClaimError> {
        if let Err(cause) = self.checked.get_or_init(|| self.check()).await {
            let child = format!("{} {}/{} ({})", C::kind(&()), self.namespace, child.name, child.uid);
            return Err(ClaimError::CannotAdopt { child, cause: cause.clone() });
        }
        let patch = claim::adoption_patch(&self.owner, child.uid, self.finalizers);
        let api: Api<C> = Api::namespaced(self.client.clone(), &self.namespace);
        match client::strategic_patch(&api, child.name, Scope::Object, &patch).await {
            Ok(_) => Ok(true),
            // Gone, or another one by now.
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn release<C: Namespaced>(&self, child: &Candidate<'_>) -> Result<(), ClaimError> {
        let patch = claim::release_patch(&self.owner.uid, child.uid, self.finalizers);
        let api: Api<C> = Api::namespaced(self.client.clone(), &self.namespace);
        match client::strategic_patch(&api, child.name, Scope::Object, &patch).await {
            Ok(_) => Ok(()),
            // Gone, recreated, or without owners already.
            Err(error) if error.is_not_found() || error.is_invalid() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The cache may be old: before it takes children, the parent is read from the server.
    async fn check(&self) -> Result<(), String> {
        let kind = P::kind(&());
        let name = format!("{}/{}", self.namespace, self.owner.name);
        let api: Api<P> = Api::namespaced(self.client.clone(), &self.namespace);
        let fresh = api.get(&self.owner.name).await.map_err(|e| e.text())?;
        let uid = fresh.uid().unwrap_or_default();
        if uid != self.owner.uid {
            return Err(format!("original {kind} {name} is gone: got uid {uid}, wanted {}", self.owner.uid));
        }
        match &fresh.meta().deletion_timestamp {
            Some(at) => Err(format!("{name} has just been deleted at {}", at.0)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_children() {
        assert_eq!(name_prefix("web"), "web-");
        assert_eq!(name_prefix(&"x".repeat(252)).len(), 253);
        assert_eq!(name_prefix(&"x".repeat(253)).len(), 253);
    }

    #[test]
    fn templates_need_labels() {
        let owner = OwnerReference::default();
        assert!(pod_of(&PodTemplateSpec::default(), "a-", &owner).is_err());
        let labels = Some(BTreeMap::from([("a".to_owned(), "b".to_owned())]));
        let metadata = ObjectMeta { labels: labels.clone(), name: Some("ignored".into()), ..ObjectMeta::default() };
        let template = PodTemplateSpec { metadata: Some(metadata), spec: None };
        let pod = pod_of(&template, "a-", &owner).expect("it has labels");
        assert_eq!((pod.metadata.labels, pod.metadata.name), (labels, None));
    }
}
