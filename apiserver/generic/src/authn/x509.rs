//! Client certificates: CN is the user, O the groups.

use std::sync::Arc;

use async_trait::async_trait;
use http::request::Parts;
use runtime::tls::Authorities;
use rustls::pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Authenticator, AuthnError, Peer};
use crate::user::User;

/// Object identifier of the uid attribute in subjects (KEP-5793).
const UID_OID: &str = "1.3.6.1.4.1.57683.2";

/// Authenticates by client certificate.
pub struct X509 {
    /// Trusted authorities.
    pub authorities: Arc<Authorities>,
    /// For how many more seconds the certificates of clients are good.
    pub expirations: prometheus::Histogram,
}

#[async_trait]
impl Authenticator for X509 {
    async fn authenticate(&self, _request: &mut Parts, peer: &Peer) -> Result<Option<User>, AuthnError> {
        let Some(leaf) = peer.certificates.first() else { return Ok(None) };
        let expires = verify(&self.authorities, peer)?;
        let left = expires - time::OffsetDateTime::now_utc().unix_timestamp();
        #[allow(clippy::cast_precision_loss)]
        self.expirations.observe(left.max(0) as f64);
        subject_user(leaf).map(Some)
    }
}

/// Checks the chain that a client presented; answers when it ends, seconds since the epoch.
pub fn verify(authorities: &Authorities, peer: &Peer) -> Result<i64, AuthnError> {
    let verified = authorities.verify(&peer.certificates, UnixTime::now());
    verified.map(|identity| identity.not_after).map_err(|error| AuthnError::Invalid(error.to_string()))
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
