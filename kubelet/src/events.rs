//! Events about Pods, containers and the node.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolumeClaim, Pod};

use crate::pods::{self, Role};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// Information.
    Normal,
    /// Trouble.
    Warning,
}

impl EventType {
    /// The API's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// One event to be.
#[derive(Clone, Debug)]
pub struct Event {
    /// What it is about.
    pub object: ObjectReference,
    /// Kind of event.
    pub type_: EventType,
    /// Reason.
    pub reason: String,
    /// Text.
    pub message: String,
}

/// Where events go. Must not block.
pub trait EventSink: Send + Sync {
    /// Takes one event.
    fn emit(&self, event: Event);
}

/// Writes events to the log only, for a kubelet without an apiserver.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogSink;

impl EventSink for LogSink {
    fn emit(&self, event: Event) {
        tracing::info!(
            kind = event.object.kind,
            namespace = event.object.namespace,
            name = event.object.name,
            field = event.object.field_path,
            r#type = event.type_.as_str(),
            reason = event.reason,
            message = event.message,
            "event"
        );
    }
}

/// Makes events.
#[derive(Clone)]
pub struct Events {
    sink: Arc<dyn EventSink>,
    node: Arc<str>,
}

impl Events {
    /// Events of one node.
    pub fn new(sink: Arc<dyn EventSink>, node: &str) -> Self {
        Self { sink, node: node.into() }
    }

    /// About a Pod.
    pub fn pod(&self, pod: &Pod, type_: EventType, reason: &str, message: impl Into<String>) {
        self.emit(pod_reference(pod), type_, reason, message.into());
    }

    /// About one container of a Pod.
    pub fn container(
        &self,
        pod: &Pod,
        (name, role): (&str, Role),
        type_: EventType,
        reason: &str,
        message: impl Into<String>,
    ) {
        let mut object = pod_reference(pod);
        object.field_path = Some(format!("{}{{{name}}}", role.field()));
        self.emit(object, type_, reason, message.into());
    }

    /// About the node.
    pub fn node(&self, type_: EventType, reason: &str, message: impl Into<String>) {
        let object = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(self.node.to_string()),
            uid: Some(self.node.to_string()),
            ..ObjectReference::default()
        };
        self.emit(object, type_, reason, message.into());
    }

    /// About a claim.
    pub fn claim(&self, claim: &PersistentVolumeClaim, type_: EventType, reason: &str, message: impl Into<String>) {
        let object = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("PersistentVolumeClaim".to_owned()),
            name: claim.metadata.name.clone(),
            namespace: claim.metadata.namespace.clone(),
            uid: claim.metadata.uid.clone(),
            resource_version: claim.metadata.resource_version.clone(),
            field_path: None,
        };
        self.emit(object, type_, reason, message.into());
    }

    fn emit(&self, object: ObjectReference, type_: EventType, reason: &str, message: String) {
        self.sink.emit(Event { object, type_, reason: reason.to_owned(), message });
    }
}

fn pod_reference(pod: &Pod) -> ObjectReference {
    // Events of a static Pod belong to its copy in the API, whose UID users see in the hash annotation.
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pods::name(pod).to_owned()),
        namespace: Some(pods::namespace(pod).to_owned()),
        uid: Some(pods::uid(pod).to_owned()),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: None,
    }
}
