//! A certificate from the cluster's signers.

use std::net::IpAddr;
use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData, SanType, string::Ia5String};
use sha2::{Digest, Sha512_256};
use tokio_util::sync::CancellationToken;

use super::{CertificateError, Purpose, content};
use crate::api::limited;

/// What is asked for.
pub struct Wanted<'a> {
    /// Node name.
    pub node: &'a str,
    /// What for.
    pub purpose: Purpose,
    /// Names of a serving certificate.
    pub names: Vec<String>,
    /// Addresses of a serving certificate.
    pub addresses: Vec<IpAddr>,
}

impl Wanted<'_> {
    fn common_name(&self) -> String {
        format!("system:node:{}", self.node)
    }

    /// The request, PEM.
    pub fn pem(&self, key: &KeyPair) -> Result<String, CertificateError> {
        let failed = |error: rcgen::Error| content("certificate request", error);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
        params.distinguished_name.push(DnType::CommonName, self.common_name());
        for name in &self.names {
            params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(name.as_str()).map_err(failed)?));
        }
        params.subject_alt_names.extend(self.addresses.iter().copied().map(SanType::IpAddress));
        params.serialize_request(key).and_then(|request| request.pem()).map_err(failed)
    }

    /// A name that a second try with the same key has too.
    pub fn stable_name(&self, key: &KeyPair) -> String {
        let mut hash = Sha512_256::new();
        hash.update(key.subject_public_key_info());
        let mut add = |label: &str, values: &[&str]| {
            for value in values {
                hash.update(format!("|{label}|{value}|"));
            }
        };
        add("CN", &[&self.common_name()]);
        add("O", &["system:nodes"]);
        add("usage", &self.purpose.usages());
        format!("node-csr-{}", URL_SAFE_NO_PAD.encode(hash.finalize()))
    }
}

/// Asks for a certificate and waits until it is signed. `name`: of the request; a generated one if `None`.
pub async fn certificate(
    client: &Client,
    wanted: &Wanted<'_>,
    key: &KeyPair,
    name: Option<String>,
    patience: Duration,
    stop: &CancellationToken,
) -> Result<Vec<u8>, CertificateError> {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let request = CertificateSigningRequest {
        metadata: ObjectMeta {
            generate_name: name.is_none().then(|| "csr-".to_owned()),
            name: name.clone(),
            ..ObjectMeta::default()
        },
        spec: CertificateSigningRequestSpec {
            request: ByteString(wanted.pem(key)?.into_bytes()),
            signer_name: wanted.purpose.signer().to_owned(),
            usages: Some(wanted.purpose.usages().map(str::to_owned).to_vec()),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    };
    let api_error = |error| match error {
        crate::api::CallError::Api(error) => CertificateError::Api(error),
        crate::api::CallError::Timeout => CertificateError::Timeout(name.clone().unwrap_or_default()),
    };
    let created = match limited(api.create(&PostParams::default(), &request)).await {
        Err(error) if error.code() == Some(409) && name.is_some() => {
            let present = limited(api.get(name.as_deref().unwrap_or_default())).await.map_err(api_error)?;
            if !same_key(&present.spec.request.0, key) {
                return Err(content("certificate signing request", "one of this name has another key"));
            }
            present
        }
        other => other.map_err(api_error)?,
    };
    let name = created.metadata.name.unwrap_or_default();
    tokio::select! {
        signed = tokio::time::timeout(patience, signed(api, &name)) => {
            signed.map_err(|_| CertificateError::Timeout(name.clone()))?
        }
        () = stop.cancelled() => Err(CertificateError::Stopped),
    }
}

fn same_key(pem: &[u8], key: &KeyPair) -> bool {
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::prelude::{FromDer, parse_x509_pem};
    let Ok((_, pem)) = parse_x509_pem(pem) else { return false };
    let Ok((_, request)) = X509CertificationRequest::from_der(&pem.contents) else { return false };
    request.certification_request_info.subject_pki.raw == key.subject_public_key_info()
}

/// Waits for the certificate, or for the refusal.
async fn signed(api: Api<CertificateSigningRequest>, name: &str) -> Result<Vec<u8>, CertificateError> {
    let mut states = std::pin::pin!(watcher::watch_object(api, name));
    while let Some(state) = states.next().await {
        let request = match state {
            Ok(Some(request)) => request,
            Ok(None) => return Err(content("certificate signing request", "it was deleted")),
            Err(error) => {
                tracing::debug!(%error, name, "watch of the certificate signing request");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let status = request.status.unwrap_or_default();
        for condition in status.conditions.unwrap_or_default() {
            let condition_name = match condition.type_.as_str() {
                "Denied" => "denied",
                "Failed" => "failed",
                _ => continue,
            };
            let message = condition.message.unwrap_or_default();
            return Err(CertificateError::Refused { name: name.to_owned(), condition: condition_name, message });
        }
        if let Some(certificate) = status.certificate.filter(|certificate| !certificate.0.is_empty()) {
            return Ok(certificate.0);
        }
    }
    Err(content("certificate signing request", "the watch ended"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(purpose: Purpose) -> Wanted<'static> {
        Wanted { node: "n1", purpose, names: vec!["n1".to_owned()], addresses: vec![[10, 0, 0, 1].into()] }
    }

    #[test]
    fn requests_say_who_and_for_what() {
        let key = KeyPair::generate().unwrap();
        let pem = wanted(Purpose::Server).pem(&key).unwrap();
        assert!(same_key(pem.as_bytes(), &key));
        assert!(!same_key(pem.as_bytes(), &KeyPair::generate().unwrap()));
        let (_, pem) = x509_parser::prelude::parse_x509_pem(pem.as_bytes()).unwrap();
        let request = pem.contents;
        let text = |wanted: &[u8]| request.windows(wanted.len()).any(|window| window == wanted);
        assert!(text(b"system:node:n1") && text(b"system:nodes") && text(&[10, 0, 0, 1]));
    }

    #[test]
    fn names_depend_on_key_and_usage() {
        let (one, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let name = wanted(Purpose::Client).stable_name(&one);
        assert_eq!(name, wanted(Purpose::Client).stable_name(&one));
        assert_ne!(name, wanted(Purpose::Client).stable_name(&other));
        assert_ne!(name, wanted(Purpose::Server).stable_name(&one));
        assert_eq!(name.len(), "node-csr-".len() + 43);
    }
}
