//! Client certificates: CN is the user, O the groups.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::request::Parts;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authenticator, AuthnError, Peer};
use crate::user::User;

/// Object identifier of the uid attribute in subjects (KEP-5793).
const UID_OID: &str = "1.3.6.1.4.1.57683.2";

/// Verifies chains against a set of authorities that can be replaced at run time.
pub struct Authorities(ArcSwap<Option<Arc<dyn ClientCertVerifier>>>);

impl Authorities {
    /// Trusts the given CA certificates. Fails if they are unusable.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, AuthnError> {
        let authorities = Self(ArcSwap::from_pointee(None));
        authorities.replace(certificates)?;
        Ok(authorities)
    }

    /// Trusts these CA certificates from now on; none refuses every chain.
    pub fn replace(&self, certificates: Vec<CertificateDer<'static>>) -> Result<(), AuthnError> {
        let verifier = match certificates.is_empty() {
            true => None,
            false => Some(Self::verifier(certificates)?),
        };
        self.0.store(Arc::new(verifier));
        Ok(())
    }

    fn verifier(certificates: Vec<CertificateDer<'static>>) -> Result<Arc<dyn ClientCertVerifier>, AuthnError> {
        let unusable = |e: String| AuthnError::Unavailable(format!("client CA: {e}"));
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate).map_err(|e| unusable(e.to_string()))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|e| unusable(e.to_string()))
    }

    /// Checks a chain, leaf first, at the present time.
    pub fn verify(&self, chain: &[CertificateDer<'static>]) -> Result<(), AuthnError> {
        let verifier = self.0.load();
        let (Some(verifier), Some((leaf, rest))) = (verifier.as_ref(), chain.split_first()) else {
            return Err(AuthnError::Invalid("no authority trusts client certificates".into()));
        };
        verifier
            .verify_client_cert(leaf, rest, UnixTime::now())
            .map(|_| ())
            .map_err(|e| AuthnError::Invalid(format!("client certificate: {e}")))
    }
}

/// Authenticates by client certificate.
pub struct X509 {
    /// Trusted authorities.
    pub authorities: Arc<Authorities>,
}

#[async_trait]
impl Authenticator for X509 {
    async fn authenticate(&self, _request: &mut Parts, peer: &Peer) -> Result<Option<User>, AuthnError> {
        let Some(leaf) = peer.certificates.first() else { return Ok(None) };
        self.authorities.verify(&peer.certificates)?;
        subject_user(leaf).map(Some)
    }
}

/// The user that a certificate names.
pub fn subject_user(certificate: &CertificateDer<'_>) -> Result<User, AuthnError> {
    let invalid = |e: &str| AuthnError::Invalid(format!("client certificate: {e}"));
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|e| invalid(&e.to_string()))?;
    let subject = parsed.subject();
    let mut user = User::default();
    for attribute in subject.iter_attributes() {
        let Ok(text) = attribute.as_str() else { continue };
        match attribute.attr_type().to_id_string().as_str() {
            "2.5.4.3" => user.name = text.to_owned(),
            "2.5.4.10" => user.groups.push(text.to_owned()),
            UID_OID => user.uid = text.to_owned(),
            _ => {}
        }
    }
    if user.name.is_empty() {
        return Err(invalid("subject has no common name"));
    }
    let fingerprint: String = Sha256::digest(certificate).iter().map(|b| format!("{b:02x}")).collect();
    user.extra.insert(super::CREDENTIAL_ID.into(), vec![format!("X509SHA256={fingerprint}")]);
    Ok(user)
}
