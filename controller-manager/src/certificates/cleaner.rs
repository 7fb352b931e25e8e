//! Removes requests that nobody needs any more.

use std::{sync::Arc, time::Duration};

use ::controller::{Informer, Whole};
use client::ApiErrorExt;
use k8s_openapi::{
    api::certificates::v1::CertificateSigningRequest,
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{condition, is_issued};
use crate::{
    StartError,
    context::{Context, now},
    table::Started,
};

const CONTROLLER: &str = "certificatesigningrequest-cleaner-controller";
const PERIOD: Duration = Duration::from_secs(3600);
const DECIDED: SignedDuration = SignedDuration::from_hours(1);
const WAITING: SignedDuration = SignedDuration::from_hours(24);

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let requests: Informer<Whole<CertificateSigningRequest>> = context.informers.get();
    let client = context.client("certificate-controller").await?;
    let (clock, stop) = (Arc::clone(&context.clock), context.tasks.token().clone());
    let (tasks, informer) = (context.tasks.clone(), requests.clone());
    context.after_sync(CONTROLLER, &[&requests], move || {
        tasks.spawn(CONTROLLER, async move {
            loop {
                clean(&client, &informer, now(&*clock).0).await;
                if stop.run_until_cancelled(clock.sleep(PERIOD)).await.is_none() {
                    return;
                }
            }
        });
    });
    Ok(Started::Running)
}

async fn clean(client: &Client, requests: &Informer<Whole<CertificateSigningRequest>>, now: Timestamp) {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    for request in requests.list().iter().filter(|request| is_over(request, now)) {
        let preconditions = Preconditions { uid: Some(request.uid.clone()), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match api.delete(&request.key.name, &params).await {
            Err(error) if !error.is_not_found() => {
                tracing::warn!(%error, name = request.key.name, "Unable to delete certificate signing request");
            }
            _ => {}
        }
    }
}

/// Whether a request may go.
fn is_over(request: &CertificateSigningRequest, now: Timestamp) -> bool {
    let older =
        |since: Option<Timestamp>, limit: SignedDuration| since.is_some_and(|since| now.duration_since(since) >= limit);
    let decided = |kind: &str| condition(request, kind).map(|c| c.last_update_time.as_ref().map(|time| time.0));
    if is_expired(request, now) {
        return true;
    }
    for kind in ["Denied", "Failed"] {
        if let Some(since) = decided(kind) {
            return older(since, DECIDED);
        }
    }
    match decided("Approved") {
        Some(since) if is_issued(request) => older(since, DECIDED),
        Some(since) => older(since, WAITING),
        None => older(request.metadata.creation_timestamp.as_ref().map(|time| time.0), WAITING),
    }
}

fn is_expired(request: &CertificateSigningRequest, now: Timestamp) -> bool {
    let pem = request.status.as_ref().and_then(|status| status.certificate.as_ref());
    let Some(Ok(chain)) = pem.map(|pem| runtime::tls::certificates(&pem.0)) else { return false };
    let parsed = chain.first().and_then(|der| X509Certificate::from_der(der).ok());
    parsed.is_some_and(|(_, certificate)| certificate.validity().not_after.timestamp() < now.as_second())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        ByteString,
        api::certificates::v1::{CertificateSigningRequestCondition, CertificateSigningRequestStatus},
        apimachinery::pkg::apis::meta::v1::Time,
    };

    use super::*;

    fn at(seconds: i64) -> Time {
        Time(Timestamp::from_second(seconds).unwrap())
    }

    fn request(conditions: &[&str], certificate: bool) -> CertificateSigningRequest {
        let mut request = CertificateSigningRequest::default();
        request.metadata.creation_timestamp = Some(at(0));
        let conditions = conditions.iter().map(|kind| CertificateSigningRequestCondition {
            type_: (*kind).to_owned(),
            last_update_time: Some(at(0)),
            ..CertificateSigningRequestCondition::default()
        });
        request.status = Some(CertificateSigningRequestStatus {
            conditions: Some(conditions.collect()),
            certificate: certificate.then(|| ByteString(b"pem".to_vec())),
        });
        request
    }

    #[test]
    fn requests_end() {
        let hour = 3600;
        for (conditions, certificate, hours) in [
            (&["Approved"][..], true, 1),
            (&["Denied"], false, 1),
            (&["Approved", "Failed"], false, 1),
            (&[], false, 24),
            (&["Approved"], false, 24),
        ] {
            let request = request(conditions, certificate);
            assert!(!is_over(&request, at(hours * hour - 1).0), "{conditions:?}");
            assert!(is_over(&request, at(hours * hour).0), "{conditions:?}");
        }
    }
}
