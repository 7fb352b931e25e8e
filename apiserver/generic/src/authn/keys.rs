//! The public half of PEM private keys.

use rcgen::PublicKeyData;
use runtime::tls::{TlsError, pkcs8};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

/// SubjectPublicKeyInfo (DER) of a private key of the given PEM label: `PRIVATE KEY`, `RSA PRIVATE KEY` or
/// `EC PRIVATE KEY`.
pub(super) fn public_key_of(label: &str, der: &[u8]) -> Result<Vec<u8>, TlsError> {
    let key = match label {
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der)),
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der)),
        _ => PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)),
    };
    Ok(pkcs8::key_pair_from(&key)?.subject_public_key_info())
}
