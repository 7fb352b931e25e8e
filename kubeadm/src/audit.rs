//! The audit log of the API server: on unless the user says otherwise.

use std::path::Path;

use crate::{
    error::{Context, Result},
    host::Host,
};

/// Name of the policy in the directory of certificates, which the API server sees anyhow.
pub const FILE: &str = "audit-policy.yaml";
/// Directory of the log.
pub const LOG_DIRECTORY: &str = "/var/log/kubernetes/audit";

/// Who did what, and never what was said: no object is recorded, so no Secret is. What the parts of the cluster read
/// all the time, their leases and events are left out.
const POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages:
- RequestReceived
rules:
- level: None
  nonResourceURLs: [/healthz*, /livez*, /readyz*, /version, /openapi/*]
- level: None
  resources:
  - group: coordination.k8s.io
    resources: [leases]
  - group: ''
    resources: [events]
  - group: events.k8s.io
    resources: [events]
- level: None
  userGroups: [system:nodes, 'system:serviceaccounts:kube-system']
  verbs: [get, list, watch]
- level: None
  users: [system:kube-controller-manager, system:kube-scheduler, system:apiserver]
  verbs: [get, list, watch]
- level: None
  userGroups: [system:nodes]
  verbs: [update, patch]
  resources:
  - group: ''
    resources: [nodes/status, pods/status]
- level: Metadata
";

/// Writes the policy, unless there is one.
pub fn ensure(host: &dyn Host, directory: &Path) -> Result<()> {
    let path = directory.join(FILE);
    if host.exists(&path) {
        return Ok(());
    }
    host.put(&path, 0o600, POLICY.as_bytes())
        .with_context(|| format!("unable to write audit policy to file {}", path.display()))
}
