//! Keys, and the forms in which they seal values.

use std::fmt;

use aes::{
    Aes128, Aes192, Aes256,
    cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit, block_padding::Pkcs7},
};
use bytes::Bytes;
use crypto_secretbox::{AeadInPlace, KeyInit, XSalsa20Poly1305};
use ring::{
    aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};

use super::SEALED;

const IV: usize = 16;
const SECRETBOX_NONCE: usize = 24;
const SECRETBOX_TAG: usize = 16;

/// How values are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Not at all.
    Identity,
    /// AES in CBC mode with PKCS#7 padding.
    AesCbc,
    /// AES in Galois/counter mode, bound to the key in the store.
    AesGcm,
    /// XSalsa20 and Poly1305.
    Secretbox,
}

/// A key that does not fit its algorithm.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("secret is not of the expected length, got {got}, expected {expected}")]
pub struct KeyError {
    got: usize,
    expected: &'static str,
}

/// One key.
#[derive(Clone)]
pub struct Provider {
    algorithm: Algorithm,
    /// `k8s:enc:aesgcm:v1:<name>:`; empty for identity.
    prefix: Vec<u8>,
    secret: Vec<u8>,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("prefix", &String::from_utf8_lossy(&self.prefix)).finish_non_exhaustive()
    }
}

impl Provider {
    /// Values stay as they are.
    pub fn identity() -> Self {
        Self { algorithm: Algorithm::Identity, prefix: Vec::new(), secret: Vec::new() }
    }

    /// A key of an algorithm.
    pub fn new(algorithm: Algorithm, name: &str, secret: Vec<u8>) -> Result<Self, KeyError> {
        let (word, fits, expected) = match algorithm {
            Algorithm::Identity => return Ok(Self::identity()),
            Algorithm::AesCbc => ("aescbc", matches!(secret.len(), 16 | 24 | 32), "[16 24 32]"),
            Algorithm::AesGcm => ("aesgcm", matches!(secret.len(), 16 | 32), "[16 32]"),
            Algorithm::Secretbox => ("secretbox", secret.len() == 32, "[32]"),
        };
        if !fits {
            return Err(KeyError { got: secret.len(), expected });
        }
        Ok(Self { algorithm, prefix: format!("k8s:enc:{word}:v1:{name}:").into_bytes(), secret })
    }

    #[cfg(test)]
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    #[cfg(test)]
    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Whether a stored value was sealed with this key.
    pub(super) fn has_sealed(&self, value: &[u8]) -> bool {
        match self.algorithm {
            Algorithm::Identity => !value.starts_with(SEALED),
            _ => value.starts_with(&self.prefix),
        }
    }

    /// The stored form. `None` only if there is no randomness.
    pub(super) fn seal(&self, key: &str, value: &[u8]) -> Option<Bytes> {
        let mut out = self.prefix.clone();
        match self.algorithm {
            Algorithm::Identity => out.extend_from_slice(value),
            Algorithm::AesCbc => {
                let iv = random::<IV>()?;
                out.extend_from_slice(&iv);
                out.extend_from_slice(&self.cbc_seal(&iv, value)?);
            }
            Algorithm::AesGcm => {
                let nonce = random::<NONCE_LEN>()?;
                let mut sealed = value.to_vec();
                let place = Aad::from(key.as_bytes());
                self.gcm()?.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), place, &mut sealed).ok()?;
                out.extend_from_slice(&nonce);
                out.extend_from_slice(&sealed);
            }
            Algorithm::Secretbox => {
                let nonce = random::<SECRETBOX_NONCE>()?;
                let mut sealed = value.to_vec();
                let tag = self.secretbox()?.encrypt_in_place_detached(&nonce.into(), &[], &mut sealed).ok()?;
                out.extend_from_slice(&nonce);
                out.extend_from_slice(&tag);
                out.extend_from_slice(&sealed);
            }
        }
        Some(out.into())
    }

    /// The plain value, if this key has sealed it and nobody has changed it.
    pub(super) fn open(&self, key: &str, value: &Bytes) -> Option<Bytes> {
        if self.algorithm == Algorithm::Identity {
            return None;
        }
        let sealed = value.strip_prefix(self.prefix.as_slice())?;
        match self.algorithm {
            Algorithm::Identity => None,
            Algorithm::AesCbc => {
                let (iv, sealed) = sealed.split_first_chunk::<IV>()?;
                self.cbc_open(iv, sealed).map(Bytes::from)
            }
            Algorithm::AesGcm => {
                let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
                let mut plain = sealed.to_vec();
                let nonce = Nonce::assume_unique_for_key(*nonce);
                let length = self.gcm()?.open_in_place(nonce, Aad::from(key.as_bytes()), &mut plain).ok()?.len();
                plain.truncate(length);
                Some(plain.into())
            }
            Algorithm::Secretbox => {
                let (nonce, sealed) = sealed.split_first_chunk::<SECRETBOX_NONCE>()?;
                let (tag, sealed) = sealed.split_first_chunk::<SECRETBOX_TAG>()?;
                let mut plain = sealed.to_vec();
                let tag = (*tag).into();
                self.secretbox()?.decrypt_in_place_detached(&(*nonce).into(), &[], &mut plain, &tag).ok()?;
                Some(plain.into())
            }
        }
    }

    fn gcm(&self) -> Option<LessSafeKey> {
        let algorithm = if self.secret.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
        UnboundKey::new(algorithm, &self.secret).ok().map(LessSafeKey::new)
    }

    fn secretbox(&self) -> Option<XSalsa20Poly1305> {
        XSalsa20Poly1305::new_from_slice(&self.secret).ok()
    }

    fn cbc_seal(&self, iv: &[u8; IV], value: &[u8]) -> Option<Vec<u8>> {
        let secret = self.secret.as_slice();
        Some(match secret.len() {
            16 => cbc::Encryptor::<Aes128>::new_from_slices(secret, iv).ok()?.encrypt_padded_vec_mut::<Pkcs7>(value),
            24 => cbc::Encryptor::<Aes192>::new_from_slices(secret, iv).ok()?.encrypt_padded_vec_mut::<Pkcs7>(value),
            _ => cbc::Encryptor::<Aes256>::new_from_slices(secret, iv).ok()?.encrypt_padded_vec_mut::<Pkcs7>(value),
        })
    }

    fn cbc_open(&self, iv: &[u8; IV], sealed: &[u8]) -> Option<Vec<u8>> {
        let secret = self.secret.as_slice();
        match secret.len() {
            16 => cbc::Decryptor::<Aes128>::new_from_slices(secret, iv).ok()?.decrypt_padded_vec_mut::<Pkcs7>(sealed),
            24 => cbc::Decryptor::<Aes192>::new_from_slices(secret, iv).ok()?.decrypt_padded_vec_mut::<Pkcs7>(sealed),
            _ => cbc::Decryptor::<Aes256>::new_from_slices(secret, iv).ok()?.decrypt_padded_vec_mut::<Pkcs7>(sealed),
        }
        .ok()
    }
}

fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).ok()?;
    Some(bytes)
}
