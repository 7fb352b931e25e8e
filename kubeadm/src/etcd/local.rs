//! The member of etcd on this host.

use std::path::{Path, PathBuf};

use super::Etcd;
use crate::{
    constants::ETCD_DIR,
    error::{Context, Error, Result},
    host::Host,
    manifests::present::Present,
};

/// The member of this host, as its manifest describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Local {
    /// Its name.
    pub name: String,
    /// Its peer URL.
    pub peer_url: String,
    /// Its client URL.
    pub client_url: String,
    /// Directory of its data.
    pub data: PathBuf,
    /// Directory of its certificates.
    pub certificates: PathBuf,
    /// Its manifest.
    pub manifest: Present,
}

impl Local {
    /// Reads the manifest; an error if there is none, or if it does not tell what it must.
    pub fn read(host: &dyn Host) -> Result<Self> {
        let manifest = Present::read(host, "etcd").context("this host has no member of etcd")?;
        let flag = |name: &str| {
            let value = manifest.flag(name).map(ToOwned::to_owned);
            value.ok_or_else(|| Error::new(format!("the manifest of etcd has no flag {name}")))
        };
        let authority = PathBuf::from(flag("--trusted-ca-file")?);
        Ok(Self {
            name: flag("--name")?,
            peer_url: flag("--initial-advertise-peer-urls")?,
            client_url: flag("--advertise-client-urls")?,
            data: manifest.flag("--data-dir").unwrap_or(ETCD_DIR).into(),
            certificates: authority.parent().unwrap_or(Path::new("/")).to_owned(),
            manifest,
        })
    }

    /// A client of this member alone.
    pub async fn client(&self, host: &dyn Host) -> Result<Etcd> {
        Etcd::of_urls(host, &self.certificates, std::slice::from_ref(&self.client_url)).await
    }
}
