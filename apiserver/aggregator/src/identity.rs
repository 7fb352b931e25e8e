//! What this server proves itself with to other API servers.

use std::path::Path;

use parking_lot::Mutex;
use runtime::tls::{self, TlsError, WatchedFile};

/// Why the identity cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("front proxy client certificate: {0}")]
pub struct IdentityError(#[from] TlsError);

/// A client certificate and its key (`--proxy-client-cert-file`, `--proxy-client-key-file`), read again when the files
/// change.
pub struct ProxyIdentity {
    files: Mutex<Files>,
}

struct Files {
    certificate: WatchedFile,
    key: WatchedFile,
    /// Counts changes.
    generation: u64,
}

impl ProxyIdentity {
    /// Reads the files.
    pub fn open(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let (certificate, key) = (WatchedFile::open(certificate)?, WatchedFile::open(key)?);
        // What cannot be used is found at the start.
        tls::unverified_client_config(Some((certificate.content(), key.content())))?;
        Ok(Self { files: Mutex::new(Files { certificate, key, generation: 0 }) })
    }

    /// Looks at the files; a number that changes with them.
    pub(crate) fn generation(&self) -> u64 {
        let mut files = self.files.lock();
        let changed = [files.certificate.changed(), files.key.changed()];
        if changed.contains(&true) {
            files.generation += 1;
        }
        files.generation
    }

    /// Certificate and key, PEM.
    pub(crate) fn pair(&self) -> (Vec<u8>, Vec<u8>) {
        let files = self.files.lock();
        (files.certificate.content().to_vec(), files.key.content().to_vec())
    }
}
