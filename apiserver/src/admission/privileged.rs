//! `--allow-privileged=false`: no Pod, and no template of one, asks for a privileged container.

use async_trait::async_trait;
use generic::admission::{AdmissionRequest, Operation, Plugin};
use machinery::{
    ApiError, ApiResult,
    field::{ErrorList, Path},
};
use serde_json::Value;

/// The check. It is no plugin that can be named: upstream has it in validation.
pub(super) struct NoPrivileged;

/// Where a kind keeps a Pod spec.
pub(super) fn pod_spec_place(group: &str, resource: &str) -> Option<&'static [&'static str]> {
    Some(match (group, resource) {
        ("", "pods") => &["spec"],
        ("", "podtemplates") => &["template", "spec"],
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "replicasets" | "daemonsets" | "statefulsets")
        | ("batch", "jobs") => &["spec", "template", "spec"],
        ("batch", "cronjobs") => &["spec", "jobTemplate", "spec", "template", "spec"],
        _ => return None,
    })
}

#[async_trait]
impl Plugin for NoPrivileged {
    fn name(&self) -> &'static str {
        "AllowPrivileged"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        matches!(request.operation, Operation::Create | Operation::Update)
            && pod_spec_place(&request.resource.group, &request.resource.resource).is_some()
    }

    async fn validate(
        &self,
        request: &AdmissionRequest,
        object: Option<&Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let place = pod_spec_place(&request.resource.group, &request.resource.resource);
        let (Some(object), Some(place)) = (object, place) else { return Ok(()) };
        let errors = check(object, place);
        if errors.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid(&request.kind.group_kind(), &request.name, errors.into_causes()))
    }
}

fn check(object: &Value, place: &[&str]) -> ErrorList {
    let mut errors = ErrorList::default();
    let (mut spec, mut path) = (object, Path::default());
    for step in place {
        spec = &spec[*step];
        path = path.child(step);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (at, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            if container.pointer("/securityContext/privileged") == Some(&Value::Bool(true)) {
                let path = path.child(list).index(at).child("securityContext").child("privileged");
                errors.forbidden(&path, "disallowed by cluster policy");
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_are_looked_into() {
        let deployment = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "a"}, {"name": "b", "securityContext": {"privileged": true}}]}}}});
        let errors = check(&deployment, pod_spec_place("apps", "deployments").unwrap()).into_causes();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].field, "spec.template.spec.containers[1].securityContext.privileged");
        assert_eq!(errors[0].message, "Forbidden: disallowed by cluster policy");
        assert!(check(&deployment, &["spec"]).is_empty());
    }
}
