//! Certificates chosen by the name a client asks for.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{ServingCertificate, TlsError, content};

/// A certificate of `--tls-sni-cert-key`.
#[derive(Debug)]
pub struct SniCertificate {
    certificate: Arc<ServingCertificate>,
    /// Names given with the flag; empty to use those of the certificate.
    explicit: Vec<String>,
}

impl SniCertificate {
    /// A certificate for names, or for its own names if there are none.
    pub fn new(certificate: Arc<ServingCertificate>, explicit: Vec<String>) -> Self {
        let explicit = explicit.into_iter().map(|n| n.to_ascii_lowercase()).collect();
        Self { certificate, explicit }
    }

    /// The parts of a flag's value: `cert,key` or `cert,key:*.foo.com,foo.com`.
    pub fn parse(text: &str) -> Result<(PathBuf, PathBuf, Vec<String>), TlsError> {
        let fail = |reason: &str| content("tls-sni-cert-key", reason);
        let text = text.trim();
        let (files, names) = match text.split_once(':') {
            None => (text, Vec::new()),
            Some((files, names)) => (files, names.split(',').map(|n| n.trim().to_owned()).collect()),
        };
        match files.split(',').map(str::trim).collect::<Vec<_>>().as_slice() {
            [certificate, key] if !certificate.is_empty() && !key.is_empty() => {
                Ok((certificate.into(), key.into(), names))
            }
            _ => Err(fail("expected comma separated certificate and key file paths")),
        }
    }

    /// How well it fits: explicit names before extracted ones, exact names before wildcards.
    fn fit(&self, name: &str) -> Option<(bool, bool)> {
        let explicit = !self.explicit.is_empty();
        let extracted;
        let names = if explicit {
            &self.explicit
        } else {
            extracted = names_of(&self.certificate.current());
            &extracted
        };
        let exact = names.iter().any(|n| n == name);
        let wild = || names.iter().any(|n| wildcard_matches(n, name));
        if exact { Some((explicit, true)) } else { wild().then_some((explicit, false)) }
    }
}

/// The default certificate and those chosen by name.
#[derive(Debug)]
pub struct CertificateSet {
    default: Arc<ServingCertificate>,
    by_name: Vec<SniCertificate>,
}

impl CertificateSet {
    /// `default` answers when no other fits.
    pub fn new(default: Arc<ServingCertificate>, by_name: Vec<SniCertificate>) -> Self {
        Self { default, by_name }
    }

    /// The certificate for a name.
    pub(crate) fn choose(&self, name: Option<&str>) -> Arc<CertifiedKey> {
        let name = name.map(str::to_ascii_lowercase);
        let fitting = |n: &String| {
            let fits = self.by_name.iter().filter_map(|c| Some((c.fit(n)?, c)));
            // The first of equals, in the order of the flags.
            fits.reduce(|best, next| if next.0 > best.0 { next } else { best })
        };
        match name.as_ref().and_then(fitting) {
            Some((_, chosen)) => chosen.certificate.current(),
            None => self.default.current(),
        }
    }
}

impl ResolvesServerCert for CertificateSet {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.choose(hello.server_name()))
    }
}

fn names_of(key: &CertifiedKey) -> Vec<String> {
    let Some(Ok((_, certificate))) = key.cert.first().map(|c| X509Certificate::from_der(c)) else { return Vec::new() };
    let mut names: Vec<String> = certificate
        .subject()
        .iter_common_name()
        .filter_map(|cn| cn.as_str().ok())
        .map(str::to_ascii_lowercase)
        .collect();
    if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
        names.extend(alternatives.value.general_names.iter().filter_map(|n| match n {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        }));
    }
    names
}

fn wildcard_matches(pattern: &str, name: &str) -> bool {
    let Some(suffix) = pattern.strip_prefix('*').filter(|s| s.starts_with('.')) else { return false };
    name.strip_suffix(suffix).is_some_and(|label| !label.is_empty() && !label.contains('.'))
}
