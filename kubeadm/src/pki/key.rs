//! Private keys: made, read and written in the form Kubernetes' files have.

use base64::Engine;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384};
use rsa::pkcs8::EncodePrivateKey;
use runtime::tls::pkcs8;

use crate::error::{Context, Error, Result};

/// Kind and size of new keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA with 2048 bits.
    #[default]
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// RSA with 4096 bits.
    Rsa4096,
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
}

impl Algorithm {
    /// All of them with their names in the configuration.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("ECDSA-P256", Self::EcdsaP256),
        ("ECDSA-P384", Self::EcdsaP384),
        ("RSA-2048", Self::Rsa2048),
        ("RSA-3072", Self::Rsa3072),
        ("RSA-4096", Self::Rsa4096),
    ];

    /// By its name in the configuration.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }
}

/// A private key.
pub struct Key(pub(super) KeyPair);

impl Key {
    /// A new key.
    pub fn generate(algorithm: Algorithm) -> Result<Self> {
        let pair = match algorithm {
            Algorithm::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a key")?,
            Algorithm::EcdsaP384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).context("cannot make a key")?,
            Algorithm::Rsa2048 => return Self::rsa(2048),
            Algorithm::Rsa3072 => return Self::rsa(3072),
            Algorithm::Rsa4096 => return Self::rsa(4096),
        };
        Ok(Self(pair))
    }

    fn rsa(bits: usize) -> Result<Self> {
        let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, bits).context("cannot make a key")?;
        let wrapped = key.to_pkcs8_der().context("cannot encode a key")?;
        Self::from_pkcs8(wrapped.as_bytes())
    }

    fn from_pkcs8(bytes: &[u8]) -> Result<Self> {
        pkcs8::key_pair_of(bytes).map(Self).map_err(|e| Error::new(e.to_string()))
    }

    /// Reads the first private key of a PEM file: PKCS#1, SEC1 or PKCS#8.
    pub fn from_pem(pem: &[u8]) -> Result<Self> {
        pkcs8::key_pair(pem).map(Self).map_err(|e| Error::new(e.to_string()))
    }

    /// PEM of the private key: `RSA PRIVATE KEY` or `EC PRIVATE KEY`.
    pub fn to_pem(&self) -> Result<String> {
        let (bytes, label) = pkcs8::unwrap(self.0.serialized_der()).ok_or_else(|| Error::new("cannot encode a key"))?;
        Ok(pem(label, &bytes))
    }

    /// PEM of the public key: `PUBLIC KEY`.
    pub fn public_pem(&self) -> String {
        use rcgen::PublicKeyData;
        pem("PUBLIC KEY", &self.0.subject_public_key_info())
    }

    /// The public key as certificates hold it.
    pub fn public_der(&self) -> Vec<u8> {
        use rcgen::PublicKeyData;
        self.0.subject_public_key_info()
    }
}

/// A PEM block with lines of 64 characters.
pub fn pem(label: &str, bytes: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(bytes);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}
