//! Authorities that sign client certificates.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore,
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
        self.0.load().0.verify_client_cert(leaf, rest, now).map_err(|e| content("client certificate", e))?;
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|e| content("client certificate", e))?;
        let text = |name: &x509_parser::prelude::AttributeTypeAndValue<'_>| name.as_str().map(str::to_owned).ok();
        Ok(ClientIdentity {
            common_name: certificate.subject().iter_common_name().find_map(text).unwrap_or_default(),
            organizations: certificate.subject().iter_organization().filter_map(text).collect(),
            not_after: certificate.validity().not_after.timestamp(),
        })
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
