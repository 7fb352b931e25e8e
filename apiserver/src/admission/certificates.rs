//! CertificateApproval, CertificateSigning and CertificateSubjectRestriction: who may have which certificates made; and
//! ClusterTrustBundleAttest: who may say which to trust.

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use generic::{
    admission::{AdmissionRequest, Operation, Plugin},
    authz::{Attributes, Authorizer, Decision},
};
use machinery::ApiResult;
use serde_json::Value;
use x509_parser::{certification_request::X509CertificationRequest, pem::parse_x509_pem, prelude::FromDer};

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

fn is_request(request: &AdmissionRequest, subresource: &str, operation: Operation) -> bool {
    request.is(GROUP, "certificatesigningrequests")
        && request.subresource == subresource
        && request.operation == operation
}

fn signer(csr: &Value) -> &str {
    csr.pointer("/spec/signerName").and_then(Value::as_str).unwrap_or("")
}

/// Whether the user may `verb` for the signer, by its name or by all of its domain.
async fn may(authorizer: &dyn Authorizer, request: &AdmissionRequest, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or(signer);
    for name in [signer.to_owned(), format!("{domain}/*")] {
        let attributes = Attributes {
            user: request.user.clone(),
            verb: verb.to_owned(),
            group: GROUP.to_owned(),
            version: "*".to_owned(),
            resource: "signers".to_owned(),
            name,
            is_resource: true,
            ..Attributes::default()
        };
        if matches!(authorizer.authorize(&attributes).await, Decision::Allow(_)) {
            return true;
        }
    }
    false
}

/// Approvals are for those who may `approve` for the signer.
pub(super) struct CertificateApproval {
    pub(super) authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        is_request(request, "approval", Operation::Update)
    }

    async fn validate(&self, request: &AdmissionRequest, object: Option<&Value>, old: Option<&Value>) -> ApiResult<()> {
        let Some(csr) = old.or(object) else { return Ok(()) };
        if may(&*self.authorizer, request, "approve", signer(csr)).await {
            return Ok(());
        }
        let why = format!("user not permitted to approve requests with signerName {:?}", signer(csr));
        Err(request.reject(object, &why))
    }
}

/// Certificates and conditions are for those who may `sign` for the signer.
pub(super) struct CertificateSigning {
    pub(super) authorizer: Arc<dyn Authorizer>,
}

#[async_trait]
impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        is_request(request, "status", Operation::Update)
    }

    async fn validate(&self, request: &AdmissionRequest, object: Option<&Value>, old: Option<&Value>) -> ApiResult<()> {
        let (Some(new), Some(old)) = (object, old) else { return Ok(()) };
        let same = |field: &str| new["status"].get(field) == old["status"].get(field);
        if (same("certificate") && same("conditions")) || may(&*self.authorizer, request, "sign", signer(old)).await {
            return Ok(());
        }
        let why = format!("user not permitted to sign requests with signerName {:?}", signer(old));
        Err(request.reject(object, &why))
    }
}

/// What a signer's certificates are verified with is for those to say who may `attest` for the signer.
pub(super) struct ClusterTrustBundleAttest {
    pub(super) authorizer: Arc<dyn Authorizer>,
}

/// An object without what the garbage collector writes.
fn uncollected(object: &Value) -> Value {
    let mut object = object.clone();
    for field in ["ownerReferences", "finalizers", "managedFields"] {
        machinery::meta::metadata_mut(&mut object).remove(field);
    }
    object
}

#[async_trait]
impl Plugin for ClusterTrustBundleAttest {
    fn name(&self) -> &'static str {
        "ClusterTrustBundleAttest"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        request.is(GROUP, "clustertrustbundles") && matches!(request.operation, Operation::Create | Operation::Update)
    }

    async fn validate(&self, request: &AdmissionRequest, object: Option<&Value>, old: Option<&Value>) -> ApiResult<()> {
        let Some(bundle) = object.filter(|bundle| !signer(bundle).is_empty()) else { return Ok(()) };
        let unchanged = old.is_some_and(|old| uncollected(bundle) == uncollected(old));
        if unchanged || may(&*self.authorizer, request, "attest", signer(bundle)).await {
            return Ok(());
        }
        let why = format!("user not permitted to attest for signerName {:?}", signer(bundle));
        Err(request.reject(object, &why))
    }
}

/// Nobody gets a client certificate of `system:masters`.
pub(super) struct CertificateSubjectRestriction;

#[async_trait]
impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, request: &AdmissionRequest) -> bool {
        is_request(request, "", Operation::Create)
    }

    async fn validate(
        &self,
        request: &AdmissionRequest,
        object: Option<&Value>,
        _old: Option<&Value>,
    ) -> ApiResult<()> {
        let Some(csr) = object.filter(|csr| signer(csr) == CLIENT_SIGNER) else { return Ok(()) };
        let organizations = csr.pointer("/spec/request").and_then(Value::as_str).and_then(organizations);
        if organizations.is_none_or(|all| all.iter().any(|name| name == generic::user::MASTERS)) {
            let why = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
            return Err(request.reject(object, why));
        }
        Ok(())
    }
}

/// Organizations of the subject of a request, base64 of PEM.
fn organizations(request: &str) -> Option<Vec<String>> {
    let pem = STANDARD.decode(request).ok()?;
    let (_, pem) = parse_x509_pem(&pem).ok()?;
    let (_, csr) = X509CertificationRequest::from_der(&pem.contents).ok()?;
    let subject = &csr.certification_request_info.subject;
    subject.iter_organization().map(|name| name.as_str().ok().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_garbage_collector_writes_says_nothing_of_trust() {
        let bundle = |finalizers: Value, pem: &str| {
            json!({"metadata": {"name": "b", "finalizers": finalizers, "ownerReferences": []},
                "spec": {"signerName": "a/b", "trustBundle": pem}})
        };
        let old = bundle(json!(["x"]), "one");
        assert_eq!(uncollected(&bundle(json!([]), "one")), uncollected(&old));
        assert_ne!(uncollected(&bundle(json!(["x"]), "two")), uncollected(&old));
    }
}
