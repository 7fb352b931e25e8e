//! Authorities that sign client certificates.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, RootCertStore,
    pki_types::{CertificateDer, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{TlsError, content, provider};

/// A bundle of authorities that can be replaced at run time.
pub struct Authorities(ArcSwap<Loaded>);

struct Loaded(Arc<dyn ClientCertVerifier>);

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Authorities").finish()
    }
}

/// Whom a verified client certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// Common name of the subject.
    pub common_name: String,
    /// Organizations of the subject.
    pub organizations: Vec<String>,
    /// Seconds since the epoch at which the certificate ends.
    pub not_after: i64,
}

impl Authorities {
    /// Trusts these.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, TlsError> {
        Ok(Self(ArcSwap::from_pointee(load(certificates)?)))
    }

    /// Trusts others from now on.
    pub fn replace(&self, certificates: Vec<CertificateDer<'static>>) -> Result<(), TlsError> {
        self.0.store(Arc::new(load(certificates)?));
        Ok(())
    }

    /// Checks a chain, leaf first, that a client presented: signed by one of ours, valid now, made for clients.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<ClientIdentity, TlsError> {
        let (leaf, rest) = chain.split_first().ok_or_else(|| content("client certificate", "there is none"))?;
        let verified = self.0.load().0.verify_client_cert(leaf, rest, now);
        verified.map_err(|error| content("client certificate", reason(&error)))?;
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|e| content("client certificate", e))?;
        let text = |name: &x509_parser::prelude::AttributeTypeAndValue<'_>| name.as_str().map(str::to_owned).ok();
        Ok(ClientIdentity {
            common_name: certificate.subject().iter_common_name().find_map(text).unwrap_or_default(),
            organizations: certificate.subject().iter_organization().filter_map(text).collect(),
            not_after: certificate.validity().not_after.timestamp(),
        })
    }
}

/// Why a chain is refused, in the words that users of Go programs know.
fn reason(error: &rustls::Error) -> String {
    let at = |time: &UnixTime| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        x509_parser::time::ASN1Time::from_timestamp(seconds).map_or_else(|_| seconds.to_string(), |t| t.to_string())
    };
    let outside = |time: &UnixTime, side: &str, bound: &UnixTime| {
        let (time, bound) = (at(time), at(bound));
        format!("x509: certificate has expired or is not yet valid: current time {time} is {side} {bound}")
    };
    let rustls::Error::InvalidCertificate(problem) = error else { return error.to_string() };
    match problem {
        CertificateError::ExpiredContext { time, not_after } => outside(time, "after", not_after),
        CertificateError::NotValidYetContext { time, not_before } => outside(time, "before", not_before),
        CertificateError::UnknownIssuer => "x509: certificate signed by unknown authority".to_owned(),
        _ => error.to_string(),
    }
}

fn load(certificates: Vec<CertificateDer<'static>>) -> Result<Loaded, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|e| content("CA bundle", e))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    Ok(Loaded(verifier.build().map_err(|e| content("CA bundle", e))?))
}
