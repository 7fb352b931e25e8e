//! Which certificate a TLS client sees: that of the host it asks for.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::objects::Certificate;

/// Certificates by host.
#[derive(Debug)]
pub(crate) struct CertificateTable {
    /// By name, or by what follows the `*`.
    pub(crate) hosts: HashMap<String, Arc<Certificate>>,
    /// For all others.
    pub(crate) default: Arc<Certificate>,
}

impl CertificateTable {
    pub(crate) fn choose(&self, name: Option<&str>) -> &Arc<Certificate> {
        let Some(name) = name.map(str::to_ascii_lowercase) else { return &self.default };
        let wild = || name.find('.').and_then(|dot| self.hosts.get(&name[dot..]));
        self.hosts.get(&name).or_else(wild).unwrap_or(&self.default)
    }
}

/// The current certificates.
#[derive(Debug)]
pub(crate) struct Certificates(pub(crate) ArcSwap<CertificateTable>);

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = self.0.load();
        let chosen = Arc::clone(table.choose(hello.server_name()));
        chosen.serving.resolve(hello)
    }
}
