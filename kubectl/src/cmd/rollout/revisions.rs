//! The revisions of a workload: ReplicaSets of a Deployment, ControllerRevisions of others.

use serde_json::Value;

use crate::{
    cluster::{Call, Cluster},
    describe::{self, is_controlled, pod_selector},
    error::CommandError,
    resolve::Info,
};

/// Annotation with the number of a ReplicaSet's revision.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";

/// A state that a workload had.
#[derive(Clone, Debug)]
pub(super) struct Revision {
    pub(super) number: i64,
    /// ReplicaSet or ControllerRevision.
    pub(super) object: Value,
    /// The template of that time.
    pub(super) template: Value,
}

impl Revision {
    pub(super) fn cause(&self) -> &str {
        self.object["metadata"]["annotations"][CHANGE_CAUSE].as_str().unwrap_or("")
    }
}

/// The revisions of a workload, oldest first; `None` for kinds that have none.
pub(super) async fn of(cluster: &Cluster, info: &Info) -> Result<Option<Vec<Revision>>, CommandError> {
    let is_deployment = match (info.resource.group.as_str(), info.resource.kind.as_str()) {
        ("apps", "Deployment") => true,
        ("apps", "DaemonSet" | "StatefulSet") => false,
        _ => return Ok(None),
    };
    let plural = if is_deployment { "replicasets" } else { "controllerrevisions" };
    let path = format!("/apis/apps/v1/namespaces/{}/{plural}", info.namespace);
    let selector = pod_selector(&info.object).unwrap_or_default();
    let found = describe::list(cluster, Call::get(&path).query("labelSelector", selector)).await?;
    let own = found.into_iter().filter(|object| is_controlled(object, &info.object));
    let mut revisions: Vec<Revision> =
        own.filter_map(|object| if is_deployment { of_set(object) } else { of_data(object) }).collect();
    revisions.sort_by_key(|revision| revision.number);
    Ok(Some(revisions))
}

fn of_set(mut object: Value) -> Option<Revision> {
    let number = object["metadata"]["annotations"][REVISION].as_str()?.parse().ok()?;
    object["apiVersion"] = "apps/v1".into();
    object["kind"] = "ReplicaSet".into();
    Some(Revision { number, template: object["spec"]["template"].clone(), object })
}

fn of_data(mut object: Value) -> Option<Revision> {
    let number = object["revision"].as_i64()?;
    object["apiVersion"] = "apps/v1".into();
    object["kind"] = "ControllerRevision".into();
    let mut template = object["data"]["spec"]["template"].clone();
    template.as_object_mut()?.remove("$patch");
    Some(Revision { number, template, object })
}
