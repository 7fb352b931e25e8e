//! Certificates and keys on the disk.

use std::path::{Path, PathBuf};

use super::{
    Authority,
    issue::{self, Pair},
    key::Key,
};
use crate::{
    error::{Context, Result},
    host::Host,
};

/// Path of a certificate.
pub fn certificate_path(directory: &Path, file: &str) -> PathBuf {
    directory.join(format!("{file}.crt"))
}

/// Path of a key.
pub fn key_path(directory: &Path, file: &str) -> PathBuf {
    directory.join(format!("{file}.key"))
}

/// Writes a certificate and its key.
pub fn write_pair(host: &dyn Host, directory: &Path, file: &str, pair: &Pair) -> Result<()> {
    write_key(host, &key_path(directory, file), &pair.key)?;
    let path = certificate_path(directory, file);
    host.put(&path, 0o644, pair.certificate_pem().as_bytes())
        .with_context(|| format!("unable to write certificate to file {}", path.display()))
}

/// Writes a key.
pub fn write_key(host: &dyn Host, path: &Path, key: &Key) -> Result<()> {
    host.put(path, 0o600, key.to_pem()?.as_bytes())
        .with_context(|| format!("unable to write private key to file {}", path.display()))
}

/// Reads a certificate.
pub fn read_certificate(host: &dyn Host, path: &Path) -> Result<Vec<u8>> {
    let load =
        |error: &dyn std::fmt::Display| format!("couldn't load the certificate file {}: {error}", path.display());
    let text = host.read(path).map_err(|e| crate::error::Error::new(load(&e)))?;
    issue::first_certificate(&text).map_err(|e| crate::error::Error::new(load(&e)))
}

/// Reads a key.
pub fn read_key(host: &dyn Host, path: &Path) -> Result<Key> {
    let read = host.read(path).with_context(|| format!("couldn't load the private key file {}", path.display()))?;
    Key::from_pem(&read).with_context(|| format!("couldn't load the private key file {}", path.display()))
}

/// Reads an authority that can sign.
pub fn read_authority(host: &dyn Host, directory: &Path, file: &str) -> Result<Authority> {
    let certificate = read_certificate(host, &certificate_path(directory, file))?;
    Authority::new(certificate, read_key(host, &key_path(directory, file))?)
}
