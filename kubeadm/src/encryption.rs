//! The key that Secrets are encrypted with in the store.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    error::{Context, Result},
    host::Host,
};

/// Name of the configuration in the directory of certificates. Control planes of one cluster share it, as they share
/// the key of ServiceAccount tokens.
pub const FILE: &str = "encryption.yaml";

/// Makes a configuration with a new key, unless there is one. Secrets that were stored before can still be read.
pub fn ensure(host: &dyn Host, directory: &Path) -> Result<()> {
    let path = directory.join(FILE);
    if host.exists(&path) {
        return Ok(());
    }
    let mut key = [0_u8; 32];
    host.random(&mut key);
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources:\n  - secrets\n  \
         providers:\n  - secretbox:\n      keys:\n      - name: key1\n        secret: {}\n  - identity: {{}}\n",
        STANDARD.encode(key)
    );
    host.put(&path, 0o600, text.as_bytes())
        .with_context(|| format!("unable to write encryption configuration to file {}", path.display()))
}
