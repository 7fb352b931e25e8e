//! Signs what was approved.

use std::{path::Path, sync::Arc};

use ::controller::{Change, Informer, ObjectKey, Outcome, Reconcile, ReconcileError, Whole};
use client::CallError;
use k8s_openapi::{
    ByteString,
    api::certificates::v1::CertificateSigningRequest,
    jiff::{SignedDuration, Timestamp},
};
use kube::{Api, Client, api::PostParams};
use rand::Rng;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber};
use runtime::{clock::Clock, tls::pkcs8};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::options::SigningOptions;
use super::{
    CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY, add_condition, condition, is_issued, key_of, limiting,
    request::Asked,
};
use crate::{StartError, context::Context, table::Started};

const CONTROLLER: &str = "certificatesigningrequest-signing-controller";
/// Clocks of others may be late by this.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// Certificates that live for less are not shortened by the back-date.
const SHORT: SignedDuration = SignedDuration::from_hours(8);
const LEAST: SignedDuration = SignedDuration::from_mins(10);

/// A CA with its key.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    not_after: Timestamp,
}

/// Starts one controller for each signer that has a CA.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let options = &context.options.signing;
    let client = context.client("certificate-controller").await?;
    let mut started = Started::Skipped;
    for (name, signer) in [
        ("csrsigning-kubelet-serving", KUBELET_SERVING),
        ("csrsigning-kubelet-client", KUBELET_CLIENT),
        ("csrsigning-kube-apiserver-client", CLIENT),
        ("csrsigning-legacy-unknown", LEGACY),
    ] {
        let Some((certificate, key)) = options.pair(signer) else { continue };
        let authority = Authority::read(certificate, key)?;
        start_one(context, name, signer, authority, &client, options);
        started = Started::Running;
    }
    Ok(started)
}

fn start_one(
    context: &Context,
    name: &'static str,
    signer: &'static str,
    authority: Authority,
    client: &Client,
    options: &SigningOptions,
) {
    let requests: Informer<Whole<CertificateSigningRequest>> = context.informers.get();
    let queue = context.queue_with(name, limiting());
    let keys = queue.clone();
    requests.on_change(move |change| {
        if !matches!(change, Change::Deleted { .. }) && change.object().spec.signer_name == signer {
            keys.add(change.object().key.clone());
        }
    });
    let signing = Signing {
        client: client.clone(),
        requests: requests.clone(),
        authority,
        longest: SignedDuration::try_from(options.cluster_signing_duration).unwrap_or(SignedDuration::MAX),
        clock: Arc::clone(&context.clock),
    };
    context.drive(CONTROLLER, queue, 5, signing, &[&requests]);
}

impl Authority {
    fn read(certificate: &Path, key: &Path) -> Result<Self, StartError> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|source| StartError::File { path: path.to_owned(), source })
        };
        let wrong = |path: &Path, reason: &dyn std::fmt::Display| {
            StartError::Flags(format!("error reading CA file {}: {reason}", path.display()))
        };
        Self::parse(&read(certificate)?, &read(key)?).map_err(|reason| wrong(certificate, &reason))
    }

    fn parse(certificate: &str, key: &str) -> Result<Self, String> {
        let key = pkcs8::key_pair(key.as_bytes()).map_err(|error| error.to_string())?;
        let chain = runtime::tls::certificates(certificate.as_bytes()).map_err(|error| error.to_string())?;
        let der = chain.first().ok_or("there is no certificate")?;
        let (_, parsed) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let not_after = Timestamp::from_second(parsed.validity().not_after.timestamp()).unwrap_or(Timestamp::MAX);
        let issuer = Issuer::from_ca_cert_der(der, key).map_err(|error| error.to_string())?;
        Ok(Self { issuer, not_after })
    }

    /// A certificate for what is asked, PEM.
    fn sign(&self, asked: &Asked, usages: &[String], life: (Timestamp, Timestamp)) -> Result<String, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = asked.params.params.distinguished_name.clone();
        params.subject_alt_names.clone_from(&asked.params.params.subject_alt_names);
        params.is_ca = IsCa::ExplicitNoCa;
        params.serial_number = Some(SerialNumber::from_slice(&serial()));
        params.not_before = moment(life.0);
        params.not_after = moment(life.1);
        params.use_authority_key_identifier_extension = true;
        for usage in usages {
            match key_usage(usage) {
                Some(purpose) => params.key_usages.push(purpose),
                None => params.extended_key_usages.extend(extended_usage(usage)),
            }
        }
        Ok(params.signed_by(&asked.params.public_key, &self.issuer)?.pem())
    }
}

fn key_usage(usage: &str) -> Option<KeyUsagePurpose> {
    Some(match usage {
        "signing" | "digital signature" => KeyUsagePurpose::DigitalSignature,
        "content commitment" => KeyUsagePurpose::ContentCommitment,
        "key encipherment" => KeyUsagePurpose::KeyEncipherment,
        "key agreement" => KeyUsagePurpose::KeyAgreement,
        "data encipherment" => KeyUsagePurpose::DataEncipherment,
        "cert sign" => KeyUsagePurpose::KeyCertSign,
        "crl sign" => KeyUsagePurpose::CrlSign,
        "encipher only" => KeyUsagePurpose::EncipherOnly,
        "decipher only" => KeyUsagePurpose::DecipherOnly,
        _ => return None,
    })
}

fn extended_usage(usage: &str) -> Option<ExtendedKeyUsagePurpose> {
    Some(match usage {
        "any" => ExtendedKeyUsagePurpose::Any,
        "client auth" => ExtendedKeyUsagePurpose::ClientAuth,
        "server auth" => ExtendedKeyUsagePurpose::ServerAuth,
        "code signing" => ExtendedKeyUsagePurpose::CodeSigning,
        "email protection" | "s/mime" => ExtendedKeyUsagePurpose::EmailProtection,
        "timestamping" => ExtendedKeyUsagePurpose::TimeStamping,
        "ocsp signing" => ExtendedKeyUsagePurpose::OcspSigning,
        _ => return None,
    })
}

/// 128 random bits, positive.
fn serial() -> [u8; 16] {
    let mut bytes: [u8; 16] = rand::rng().random();
    bytes[0] &= 0x7f;
    bytes
}

fn moment(at: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(at.as_second()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// From when and until when a certificate is valid.
fn life(now: Timestamp, longest: SignedDuration, wanted: Option<i32>, not_after: Timestamp) -> (Timestamp, Timestamp) {
    let wanted = wanted.map_or(longest, |seconds| SignedDuration::from_secs(i64::from(seconds)));
    let length = wanted.min(longest).max(LEAST);
    let before = now.checked_sub(BACKDATE).unwrap_or(now);
    let from = if length < SHORT { now } else { before };
    (before, from.checked_add(length).unwrap_or(not_after).min(not_after))
}

struct Signing {
    client: Client,
    requests: Informer<Whole<CertificateSigningRequest>>,
    authority: Authority,
    longest: SignedDuration,
    clock: Arc<dyn Clock>,
}

impl Reconcile for Signing {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(request) = self.requests.get(&key_of(&key.name)) else { return Ok(Outcome::Done) };
        let is = |kind: &str| condition(&request, kind).is_some();
        if is_issued(&request) || !is("Approved") || is("Denied") || is("Failed") {
            return Ok(Outcome::Done);
        }
        let spec = &request.spec;
        let usages = spec.usages.as_deref().unwrap_or_default();
        let asked = Asked::parse(&spec.request.0).and_then(|asked| match asked.check(&spec.signer_name, usages) {
            Ok(()) => Ok(asked),
            Err(why) => Err(why.to_owned()),
        });
        let mut signed = CertificateSigningRequest::clone(&request);
        match asked {
            Err(why) => add_condition(&mut signed, "Failed", "SignerValidationFailure", why),
            Ok(asked) => {
                let now = Timestamp::try_from(self.clock.now()).unwrap_or(Timestamp::UNIX_EPOCH);
                let life = life(now, self.longest, spec.expiration_seconds, self.authority.not_after);
                let pem = self.authority.sign(&asked, usages, life);
                let pem = pem.map_err(|error| ReconcileError::from(format!("error signing: {error}")))?;
                signed.status.get_or_insert_default().certificate = Some(ByteString(pem.into_bytes()));
            }
        }
        let api: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        let written = api.replace_status(&key.name, &PostParams::default(), &signed).await;
        written.map_err(|error| CallError::new(format!("update signature of {key}"), error))?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::request::tests::pem, *};

    #[test]
    fn lives() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let year = SignedDuration::from_hours(8760);
        let seconds = |life: (Timestamp, Timestamp)| (life.0.as_second() - 1_000_000, life.1.as_second() - 1_000_000);
        assert_eq!(seconds(life(now, year, None, Timestamp::MAX)), (-300, 8760 * 3600 - 300));
        assert_eq!(seconds(life(now, year, Some(3600), Timestamp::MAX)), (-300, 3600));
        assert_eq!(seconds(life(now, year, Some(1), Timestamp::MAX)), (-300, 600));
        let soon = Timestamp::from_second(1_000_900).unwrap();
        assert_eq!(seconds(life(now, year, None, soon)), (-300, 900));
    }

    #[test]
    fn certificates_verify() {
        let (ca, key) = ca();
        let authority = Authority::parse(&ca, &key).unwrap();
        let asked = Asked::parse(pem("system:node:a", "system:nodes", &[]).as_bytes()).unwrap();
        let now = Timestamp::now();
        let usages = ["digital signature".to_owned(), "client auth".to_owned()];
        let life = life(now, SignedDuration::from_hours(24), None, authority.not_after);
        let signed = authority.sign(&asked, &usages, life).unwrap();
        let authorities = runtime::tls::Authorities::new(runtime::tls::certificates(ca.as_bytes()).unwrap()).unwrap();
        let chain = runtime::tls::certificates(signed.as_bytes()).unwrap();
        let identity = authorities.verify(&chain, rustls_pki_types::UnixTime::now()).unwrap();
        assert_eq!(
            (identity.common_name.as_str(), &identity.organizations[..]),
            ("system:node:a", &["system:nodes".to_owned()][..])
        );
    }

    fn ca() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }
}
