//! OwnerReferencesPermissionEnforcement: who says that an object belongs to others must be allowed to delete it, and to
//! hold up their deletion.

use std::sync::Arc;

use async_trait::async_trait;
use generic::{
    admission::{AdmissionRequest, Operation, Plugin},
    authz::{Attributes, Authorizer, Decision},
    endpoint::Endpoint,
};
use machinery::ApiResult;
use serde_json::Value;

/// The plugin.
pub(super) struct OwnerReferences {
    pub(super) authorizer: Arc<dyn Authorizer>,
}

fn owners(object: Option<&Value>) -> &[Value] {
    object.and_then(|object| object.pointer("/metadata/ownerReferences")).and_then(Value::as_array).map_or(&[], |v| v)
}

fn blocks(owner: &Value) -> bool {
    owner["blockOwnerDeletion"] == true
}

/// The owners whose deletion the new object holds up and the old one did not.
fn newly_blocked<'a>(new: Option<&'a Value>, old: Option<&Value>) -> Vec<&'a Value> {
    let blocked = |owner: &Value| owners(old).iter().any(|other| other["uid"] == owner["uid"] && blocks(other));
    owners(new).iter().filter(|owner| blocks(owner) && !blocked(owner)).collect()
}

fn text<'a>(owner: &'a Value, field: &str) -> &'a str {
    owner[field].as_str().unwrap_or_default()
}

/// The request to hold up the deletion of an owner.
fn finalize(request: &AdmissionRequest, owner: &Value, endpoint: &Endpoint) -> Attributes {
    let gvr = &endpoint.gvr;
    Attributes {
        user: request.user.clone(),
        verb: "update".into(),
        group: gvr.group.clone(),
        version: gvr.version.clone(),
        resource: gvr.resource.clone(),
        subresource: "finalizers".into(),
        name: text(owner, "name").to_owned(),
        namespace: if endpoint.namespaced { request.namespace.clone() } else { String::new() },
        is_resource: true,
        ..Attributes::default()
    }
}

impl OwnerReferences {
    /// Why something is not allowed.
    async fn refusal(&self, attributes: &Attributes) -> Option<String> {
        match self.authorizer.authorize(attributes).await {
            Decision::Allow(_) => None,
            Decision::Deny(why) | Decision::NoOpinion(why) => Some(why),
        }
    }
}

#[async_trait]
impl Plugin for OwnerReferences {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        // Writes of a Pod's status change no owners.
        matches!(request.operation, Operation::Create | Operation::Update)
            && !(request.is("", "pods") && request.subresource == "status")
    }

    async fn validate(&self, request: &AdmissionRequest, object: Option<&Value>, old: Option<&Value>) -> ApiResult<()> {
        if owners(object) == owners(old) {
            return Ok(());
        }
        // Who creates an object may say whose it is.
        if request.operation == Operation::Update {
            let attributes = Attributes {
                user: request.user.clone(),
                verb: "delete".into(),
                group: request.resource.group.clone(),
                version: request.resource.version.clone(),
                resource: request.resource.resource.clone(),
                subresource: request.subresource.clone(),
                name: request.name.clone(),
                namespace: request.namespace.clone(),
                is_resource: true,
                ..Attributes::default()
            };
            if let Some(why) = self.refusal(&attributes).await {
                let why = format!("cannot set an ownerRef on a resource you can't delete: {why}, <nil>");
                return Err(request.reject(object, &why));
            }
        }
        for owner in newly_blocked(object, old) {
            let (api_version, kind) = (text(owner, "apiVersion"), text(owner, "kind"));
            let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
            let found = request.server.endpoints.serving_kind(group, version, kind);
            if found.is_empty() {
                let why = format!(
                    "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion \
                     {api_version} Kind {kind}: no matches for kind {kind:?} in version {api_version:?}"
                );
                return Err(request.reject(object, &why));
            }
            for endpoint in found {
                if let Some(why) = self.refusal(&finalize(request, owner, &endpoint)).await {
                    let why = format!(
                        "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set \
                         finalizers on: {why}, <nil>"
                    );
                    return Err(request.reject(object, &why));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_owners_that_are_held_up_anew_count() {
        let object = |list: &[(&str, Option<bool>)]| {
            let owners: Vec<Value> =
                list.iter().map(|(uid, blocks)| json!({"uid": uid, "blockOwnerDeletion": blocks})).collect();
            json!({"metadata": {"ownerReferences": owners}})
        };
        let new = object(&[("a", Some(true)), ("b", Some(true)), ("c", Some(false)), ("d", None), ("e", Some(true))]);
        let old = object(&[("a", Some(true)), ("b", Some(false)), ("e", None)]);
        let uids =
            |old: Option<&Value>| newly_blocked(Some(&new), old).iter().map(|o| text(o, "uid").to_owned()).collect();
        let found: Vec<String> = uids(Some(&old));
        assert_eq!(found, ["b", "e"]);
        let found: Vec<String> = uids(None);
        assert_eq!(found, ["a", "b", "e"]);
    }
}
