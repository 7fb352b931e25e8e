//! Who may have policies and bindings read parameters: those who may read them.

use std::sync::Arc;

use async_trait::async_trait;
use generic::{
    admission::{AdmissionRequest, Operation, Plugin},
    authz::{Attributes, Authorizer, Decision},
    projection::Projection,
    user::{MASTERS, User},
};
use machinery::{
    ApiError, ApiResult, GroupVersion, GroupVersionKind,
    field::{ErrorList, Path},
};
use serde_json::Value;

use super::definitions::{MutatingPolicy, Policy, ValidatingPolicy};
use crate::admission::GROUP;

/// Checks the access of whoever writes a policy or binding.
pub(in crate::admission) struct ParamAccess {
    pub(in crate::admission) authorizer: Arc<dyn Authorizer>,
    pub(in crate::admission) validating: Arc<Projection<ValidatingPolicy>>,
    pub(in crate::admission) mutating: Arc<Projection<MutatingPolicy>>,
}

#[async_trait]
impl Plugin for ParamAccess {
    fn name(&self) -> &'static str {
        "ParamAccess"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.resource.group == GROUP
            && request.subresource.is_empty()
            && matches!(request.operation, Operation::Create | Operation::Update)
            && !request.user.in_group(MASTERS)
    }

    async fn validate(&self, request: &AdmissionRequest, object: Option<&Value>, old: Option<&Value>) -> ApiResult<()> {
        let changed = |pointer: &str| {
            let now = object.and_then(|object| object.pointer(pointer)).filter(|value| !value.is_null());
            now.filter(|now| old.and_then(|old| old.pointer(pointer)) != Some(*now))
        };
        let resource = request.resource.resource.as_str();
        let (field, problem) = match resource {
            "validatingadmissionpolicies" | "mutatingadmissionpolicies" => {
                let Some(kind) = changed("/spec/paramKind") else { return Ok(()) };
                ("paramKind", self.may_read_all(request, kind).await)
            }
            "validatingadmissionpolicybindings" | "mutatingadmissionpolicybindings" => {
                let Some(reference) = changed("/spec/paramRef") else { return Ok(()) };
                let name = object.and_then(|object| object.pointer("/spec/policyName")?.as_str()).unwrap_or("");
                let kind = match resource {
                    "validatingadmissionpolicybindings" => kind_of(self.validating.get("", name)),
                    _ => kind_of(self.mutating.get("", name)),
                };
                ("paramRef", self.may_read_one(request, kind, reference).await)
            }
            _ => return Ok(()),
        };
        let Some(problem) = problem else { return Ok(()) };
        let mut errors = ErrorList::default();
        errors.forbidden(&Path::new("spec").child(field), &problem);
        Err(ApiError::invalid(&request.kind.group_kind(), &request.name, errors.into_causes()))
    }
}

fn kind_of<P: AsRef<Policy>>(policy: Option<Arc<P>>) -> Option<GroupVersionKind> {
    (*policy?).as_ref().param_kind.clone()
}

/// A user as the error shows them.
fn shown(user: &User) -> String {
    let extra: Vec<String> = user.extra.iter().map(|(key, values)| format!("{key}:[{}]", values.join(" "))).collect();
    format!("&{{{} {} [{}] map[{}]}}", user.name, user.uid, user.groups.join(" "), extra.join(" "))
}

impl ParamAccess {
    /// What may be read of a kind, as far as it is known.
    fn attributes(request: &AdmissionRequest, kind: Option<&GroupVersionKind>) -> Attributes {
        let any = || "*".to_owned();
        let found = kind.and_then(|kind| request.server.endpoints.of_kind(kind));
        let (group, version, resource) = match found {
            Some(endpoint) => (endpoint.gvr.group.clone(), endpoint.gvr.version.clone(), endpoint.gvr.resource.clone()),
            None => (any(), any(), any()),
        };
        Attributes {
            user: request.user.clone(),
            verb: "get".into(),
            group,
            version,
            resource,
            name: any(),
            namespace: any(),
            is_resource: true,
            ..Attributes::default()
        }
    }

    async fn allows(&self, attributes: &Attributes) -> bool {
        matches!(self.authorizer.authorize(attributes).await, Decision::Allow(_))
    }

    async fn may_read_all(&self, request: &AdmissionRequest, kind: &Value) -> Option<String> {
        let text = |field: &str| kind.get(field).and_then(Value::as_str).unwrap_or("");
        let (version, name) = (text("apiVersion"), text("kind"));
        let of = GroupVersion::parse(version).unwrap_or_default();
        let attributes = Self::attributes(request, Some(&GroupVersionKind::new(of.group, of.version, name)));
        if self.allows(&attributes).await {
            return None;
        }
        Some(format!(
            "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={name}, \
             apiVersion={version})",
            shown(&request.user)
        ))
    }

    async fn may_read_one(
        &self,
        request: &AdmissionRequest,
        kind: Option<GroupVersionKind>,
        reference: &Value,
    ) -> Option<String> {
        let text = |field: &str| reference.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
        let mut attributes = Self::attributes(request, kind.as_ref());
        if let Some(name) = text("name") {
            attributes.name = name.to_owned();
        }
        if let Some(namespace) = text("namespace") {
            attributes.namespace = namespace.to_owned();
        }
        if self.allows(&attributes).await {
            return None;
        }
        Some(format!(
            "user {} does not have \"get\" permission on the object referenced by paramRef",
            shown(&request.user)
        ))
    }
}
