//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: what expressions say to a request.
//!
//! ```text
//!  policies, bindings --> [definitions] read and compiled once for each version, followed in the watch cache
//!  request            --> [super::matching] the constraints of the policy, then those of the binding
//!                     --> [params]      the objects that the binding names; one evaluation for each
//!                     --> [super::expressions] conditions, then what the policy says
//!                     --> [validating]  refusals, warnings, notes in the audit log
//!                     --> [mutating]    configurations merged over the object, patches
//! ```
//!
//! A server without bindings does nothing here.

mod access;
mod definitions;
mod metrics;
mod mutating;
mod params;
#[cfg(test)]
mod tests;
mod validating;

use std::sync::Arc;

use generic::{
    admission::AdmissionRequest,
    projection::Projection,
    resource::{Resource, decode_cached},
};
use machinery::{ApiResult, GroupResource};
use serde_json::Value;

use super::{
    expressions::Subject,
    matching::{Matched, is_reviewed, matched},
};
pub(super) use access::ParamAccess;
pub(crate) use definitions::{Binding, MutatingPolicy, ValidatingPolicy};
use definitions::{MatchResources, Policy};
pub(crate) use metrics::PolicyMetrics;
pub(super) use mutating::MutatingPolicies;
pub(super) use validating::ValidatingPolicies;

/// Resources whose objects ask about access: policies do not see them, for they cannot be created otherwise.
const UNSEEN: [(&str, &str); 6] = [
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
];

/// Whether policies see a request at all.
fn sees(request: &AdmissionRequest) -> bool {
    let GroupResource { group, resource } = request.resource.group_resource();
    is_reviewed(request) && !UNSEEN.contains(&(group.as_str(), resource.as_str()))
}

/// Policies of one kind with their bindings.
pub(crate) struct Policies<P> {
    pub(crate) policies: Arc<Projection<P>>,
    pub(crate) bindings: Arc<Projection<Binding>>,
    pub(crate) namespaces: Arc<Resource>,
    pub(crate) metrics: Arc<PolicyMetrics>,
}

impl<P> Clone for Policies<P> {
    fn clone(&self) -> Self {
        Self {
            policies: Arc::clone(&self.policies),
            bindings: Arc::clone(&self.bindings),
            namespaces: Arc::clone(&self.namespaces),
            metrics: Arc::clone(&self.metrics),
        }
    }
}

/// A policy with its bindings.
type Bound<P> = (Arc<P>, Vec<Arc<Binding>>);

impl<P: AsRef<Policy>> Policies<P> {
    /// The policies that are bound, by name, each with its bindings by name.
    fn bound(&self, request: &AdmissionRequest, object: Option<&Value>) -> ApiResult<Vec<Bound<P>>> {
        if !(self.policies.is_synced() && self.bindings.is_synced()) {
            return Err(request.reject(object, "not yet ready to handle request"));
        }
        let bindings = self.bindings.snapshot();
        if bindings.is_empty() {
            return Ok(Vec::new());
        }
        let of = |policy: Arc<P>| {
            let Policy { name, compiled, .. } = (*policy).as_ref();
            self.metrics.compiled(&std::mem::take(&mut *compiled.lock()));
            let own = bindings.values().filter(|binding| binding.spec.policy_name == *name);
            let own: Vec<_> = own.cloned().collect();
            (!own.is_empty()).then_some((policy, own))
        };
        Ok(self.policies.all().into_iter().filter_map(of).collect())
    }

    async fn matches(
        &self,
        resources: &MatchResources,
        request: &AdmissionRequest,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> ApiResult<Option<Matched>> {
        matched(&resources.criteria(), &self.namespaces, request, object, old).await
    }

    /// What the expressions of a policy are evaluated over.
    async fn subject(
        &self,
        matched: &Matched,
        request: &AdmissionRequest,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> ApiResult<Subject> {
        let namespace = match request.namespace.as_str() {
            "" => Value::Null,
            _ if request.is("", "namespaces") => Value::Null,
            name => decode_cached(&*self.namespaces.get_settled("", name).await?)?.object,
        };
        Ok(Subject {
            object: matched.sent(object, request).await?,
            old: matched.sent(old, request).await?,
            about: matched.about(request),
            namespace,
        })
    }
}

impl AsRef<Policy> for ValidatingPolicy {
    fn as_ref(&self) -> &Policy {
        &self.policy
    }
}

impl AsRef<Policy> for MutatingPolicy {
    fn as_ref(&self) -> &Policy {
        &self.policy
    }
}
