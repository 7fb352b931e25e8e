//! The RBAC authorizer over projections of the four RBAC resources.

use std::sync::Arc;

use async_trait::async_trait;
use rules::rbac::{PolicyRule, Request};
use serde::Deserialize;

use super::{Attributes, Authorizer, Decision};
use crate::{projection::Projection, user::User};

/// A Role or ClusterRole.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Role {
    /// Its rules.
    pub rules: Option<Vec<PolicyRule>>,
}

/// A RoleBinding or ClusterRoleBinding.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    metadata: Metadata,
    /// Who is bound.
    #[serde(default)]
    pub subjects: Option<Vec<Subject>>,
    /// What they may do.
    pub role_ref: RoleRef,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
}

/// Subject of a binding.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

/// Role of a binding.
#[derive(Debug, Deserialize)]
pub struct RoleRef {
    /// `Role` or `ClusterRole`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

impl Subject {
    fn covers(&self, user: &User, binding_namespace: &str) -> bool {
        match self.kind.as_str() {
            "User" => self.name == user.name,
            "Group" => user.in_group(&self.name),
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() { binding_namespace } else { &self.namespace };
                user.name
                    .strip_prefix("system:serviceaccount:")
                    .and_then(|rest| rest.split_once(':'))
                    .is_some_and(|(ns, name)| ns == namespace && name == self.name)
            }
            _ => false,
        }
    }

    fn describe(&self, binding_namespace: &str) -> String {
        match self.kind.as_str() {
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() { binding_namespace } else { &self.namespace };
                format!("ServiceAccount \"{}/{namespace}\"", self.name)
            }
            kind => format!("{kind} \"{}\"", self.name),
        }
    }
}

/// The RBAC authorizer.
pub struct Rbac {
    /// Roles.
    pub roles: Arc<Projection<Role>>,
    /// RoleBindings.
    pub role_bindings: Arc<Projection<Binding>>,
    /// ClusterRoles.
    pub cluster_roles: Arc<Projection<Role>>,
    /// ClusterRoleBindings.
    pub cluster_role_bindings: Arc<Projection<Binding>>,
}

impl Rbac {
    /// Visits the rules that hold for a user in a namespace (cluster-wide ones included), with where they come from,
    /// until `visit` answers true.
    pub fn visit_rules(
        &self,
        user: &User,
        namespace: &str,
        mut visit: impl FnMut(&PolicyRule, &dyn Fn() -> String) -> bool,
    ) -> bool {
        let mut in_binding = |binding: &Binding, is_cluster: bool| {
            let subjects = binding.subjects.as_deref().unwrap_or_default();
            let own = &binding.metadata.namespace;
            let Some(subject) = subjects.iter().find(|s| s.covers(user, own)) else { return false };
            let role = match (is_cluster, binding.role_ref.kind.as_str()) {
                (_, "ClusterRole") => self.cluster_roles.get("", &binding.role_ref.name),
                (false, "Role") => self.roles.get(own, &binding.role_ref.name),
                _ => None,
            };
            let Some(role) = role else { return false };
            let why = || describe(binding, subject, is_cluster);
            role.rules.iter().flatten().any(|rule| visit(rule, &why))
        };
        self.cluster_role_bindings.any_in("", |b| in_binding(b, true))
            || (!namespace.is_empty() && self.role_bindings.any_in(namespace, |b| in_binding(b, false)))
    }

    /// All rules that hold for a user in a namespace.
    pub fn rules_for(&self, user: &User, namespace: &str) -> Vec<PolicyRule> {
        let mut rules = Vec::new();
        self.visit_rules(user, namespace, |rule, _| {
            rules.push(rule.clone());
            false
        });
        rules
    }

    /// The rules of a role, if it exists.
    pub fn role_rules(&self, kind: &str, namespace: &str, name: &str) -> Option<Vec<PolicyRule>> {
        let role = match kind {
            "ClusterRole" => self.cluster_roles.get("", name),
            _ => self.roles.get(namespace, name),
        };
        role.map(|r| r.rules.clone().unwrap_or_default())
    }

    /// Waits until all four projections hold a state.
    pub async fn synced(&self) {
        self.roles.synced().await;
        self.role_bindings.synced().await;
        self.cluster_roles.synced().await;
        self.cluster_role_bindings.synced().await;
    }
}

fn describe(binding: &Binding, subject: &Subject, is_cluster: bool) -> String {
    let (kind, name) = if is_cluster {
        ("ClusterRoleBinding", binding.metadata.name.clone())
    } else {
        ("RoleBinding", format!("{}/{}", binding.metadata.name, binding.metadata.namespace))
    };
    format!(
        "RBAC: allowed by {kind} \"{name}\" of {} \"{}\" to {}",
        binding.role_ref.kind,
        binding.role_ref.name,
        subject.describe(&binding.metadata.namespace)
    )
}

#[async_trait]
impl Authorizer for Rbac {
    async fn authorize(&self, attributes: &Attributes) -> Decision {
        let request = Request {
            verb: &attributes.verb,
            group: &attributes.group,
            resource: &attributes.resource,
            subresource: &attributes.subresource,
            name: &attributes.name,
            path: &attributes.path,
            is_resource: attributes.is_resource,
        };
        let mut reason = String::new();
        let allowed = self.visit_rules(&attributes.user, &attributes.namespace, |rule, why| {
            let allows = rule.allows(&request);
            if allows {
                reason = why();
            }
            allows
        });
        if allowed { Decision::Allow(reason) } else { Decision::NoOpinion(String::new()) }
    }

    fn rules_of(&self, user: &User, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        (self.rules_for(user, namespace), Vec::new())
    }
}
