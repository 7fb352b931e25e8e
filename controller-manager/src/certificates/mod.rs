//! CertificateSigningRequests: automatic approval of kubelets, signing, clean-up.

mod approver;
mod cleaner;
pub(crate) mod options;
mod request;
mod signer;

pub(crate) use approver::start as start_approver;
pub(crate) use cleaner::start as start_cleaner;
pub(crate) use signer::start as start_signer;

use ::controller::{ObjectKey, RateLimiting};
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use util::Backoff;

/// Client certificates of anybody.
pub(crate) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Client certificates of kubelets.
pub(crate) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Whatever was asked for before there were signers; requests of the present API cannot name it.
pub(crate) const LEGACY: &str = "kubernetes.io/legacy-unknown";
/// Serving certificates of kubelets.
pub(crate) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

/// Back-off of requests that fail, slower than that of workloads.
fn limiting() -> RateLimiting {
    use std::time::Duration;
    let per_key =
        Backoff { base: Duration::from_millis(200), max: Duration::from_secs(1000), ..RateLimiting::DEFAULT.per_key };
    RateLimiting { per_key, ..RateLimiting::DEFAULT }
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn condition<'a>(request: &'a CertificateSigningRequest, kind: &str) -> Option<&'a CertificateSigningRequestCondition> {
    conditions(request).iter().find(|condition| condition.type_ == kind)
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    request.status.as_ref().and_then(|status| status.certificate.as_ref()).is_some_and(|pem| !pem.0.is_empty())
}

fn key_of(name: &str) -> ObjectKey {
    ObjectKey::new(String::new(), name.to_owned())
}

fn add_condition(request: &mut CertificateSigningRequest, kind: &str, reason: &str, message: String) {
    let status = request.status.get_or_insert_with(CertificateSigningRequestStatus::default);
    status.conditions.get_or_insert_with(Vec::new).push(CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        ..CertificateSigningRequestCondition::default()
    });
}
