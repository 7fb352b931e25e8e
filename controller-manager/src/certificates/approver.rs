//! Approves client certificates of kubelets when the asker may have them.

use ::controller::{Change, Informer, ObjectKey, Outcome, Reconcile, ReconcileError, Whole};
use client::CallError;
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    certificates::v1::CertificateSigningRequest,
};
use kube::{Api, Client, api::PostParams};

use super::{add_condition, condition, is_issued, key_of, limiting, request::Asked};
use crate::{StartError, context::Context, table::Started};

const CONTROLLER: &str = "certificatesigningrequest-approving-controller";

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let requests: Informer<Whole<CertificateSigningRequest>> = context.informers.get();
    let queue = context.queue_with("certificate", limiting());
    let keys = queue.clone();
    requests.on_change(move |change| {
        if !matches!(change, Change::Deleted { .. }) {
            keys.add(change.object().key.clone());
        }
    });
    let client = context.client("certificate-controller").await?;
    let approver = Approver { client, requests: requests.clone() };
    context.drive(CONTROLLER, queue, 5, approver, &[&requests]);
    Ok(Started::Running)
}

struct Approver {
    client: Client,
    requests: Informer<Whole<CertificateSigningRequest>>,
}

/// A way to be approved: the permission that is needed, and what is said then.
struct Recognizer {
    subresource: &'static str,
    message: &'static str,
}

const SELF: Recognizer = Recognizer {
    subresource: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
const NODE: Recognizer = Recognizer {
    subresource: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};

/// The permissions of which one is enough, most special first.
fn recognizers(request: &CertificateSigningRequest) -> Vec<Recognizer> {
    if request.spec.signer_name != super::KUBELET_CLIENT {
        return Vec::new();
    }
    let Ok(asked) = Asked::parse(&request.spec.request.0) else { return Vec::new() };
    if asked.check(&request.spec.signer_name, request.spec.usages.as_deref().unwrap_or_default()).is_err() {
        return Vec::new();
    }
    match request.spec.username.as_deref() {
        Some(user) if user == asked.common_name => vec![SELF, NODE],
        _ => vec![NODE],
    }
}

impl Reconcile for Approver {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(request) = self.requests.get(&key_of(&key.name)) else { return Ok(Outcome::Done) };
        if is_issued(&request) || ["Approved", "Denied"].iter().any(|kind| condition(&request, kind).is_some()) {
            return Ok(Outcome::Done);
        }
        let recognizers = recognizers(&request);
        let needs_permission = !recognizers.is_empty();
        for recognizer in recognizers {
            if self.is_allowed(&request, recognizer.subresource).await? {
                return self.approve(&request, recognizer.message).await;
            }
        }
        // A permission may still come.
        Ok(if needs_permission { Outcome::Backoff } else { Outcome::Done })
    }
}

impl Approver {
    async fn is_allowed(&self, request: &CertificateSigningRequest, subresource: &str) -> Result<bool, CallError> {
        let spec = &request.spec;
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: spec.username.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    group: Some("certificates.k8s.io".to_owned()),
                    resource: Some("certificatesigningrequests".to_owned()),
                    verb: Some("create".to_owned()),
                    subresource: Some(subresource.to_owned()),
                    version: Some("*".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await;
        let answer = answer.map_err(|error| CallError::new("review access".to_owned(), error))?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    async fn approve(&self, request: &CertificateSigningRequest, message: &str) -> Result<Outcome, ReconcileError> {
        let mut approved = request.clone();
        add_condition(&mut approved, "Approved", "AutoApproved", message.to_owned());
        let name = approved.metadata.name.clone().unwrap_or_default();
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        let written = api.replace_subresource("approval", &name, &PostParams::default(), &approved).await;
        written.map_err(|error| CallError::new(format!("approve {name}"), error))?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{ByteString, api::certificates::v1::CertificateSigningRequestSpec};

    use super::{super::request::tests::pem, *};

    fn asked(user: &str, name: &str, signer: &str) -> Vec<&'static str> {
        let request = CertificateSigningRequest {
            spec: CertificateSigningRequestSpec {
                request: ByteString(pem(name, "system:nodes", &[]).into_bytes()),
                signer_name: signer.to_owned(),
                username: Some(user.to_owned()),
                usages: Some(vec!["digital signature".to_owned(), "client auth".to_owned()]),
                ..CertificateSigningRequestSpec::default()
            },
            ..CertificateSigningRequest::default()
        };
        recognizers(&request).iter().map(|r| r.subresource).collect()
    }

    #[test]
    fn only_kubelets_are_recognized() {
        let signer = super::super::KUBELET_CLIENT;
        assert_eq!(asked("system:bootstrap:abcdef", "system:node:a", signer), ["nodeclient"]);
        assert_eq!(asked("system:node:a", "system:node:a", signer), ["selfnodeclient", "nodeclient"]);
        assert!(asked("system:node:a", "admin", signer).is_empty());
        assert!(asked("system:node:a", "system:node:a", super::super::KUBELET_SERVING).is_empty());
    }
}
