//! The public half of PEM private keys.

use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

/// SubjectPublicKeyInfo (DER) of a private key of the given PEM label: `PRIVATE KEY`, `RSA PRIVATE KEY` or
/// `EC PRIVATE KEY`.
pub(super) fn public_key_of(label: &str, der: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
    let key = match label {
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der)),
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der)),
        _ => PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)),
    };
    Ok(KeyPair::try_from(&wrapped(key))?.subject_public_key_info())
}

/// PKCS#1 keys in the PKCS#8 envelope, which is what the key parser takes.
fn wrapped(key: PrivateKeyDer<'_>) -> PrivateKeyDer<'static> {
    match key {
        PrivateKeyDer::Pkcs1(key) => {
            // version 0, algorithm rsaEncryption with NULL parameters (RFC 5208, RFC 8017).
            const HEAD: [u8; 18] = [
                0x02, 0x01, 0x00, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05,
                0x00,
            ];
            let mut body = HEAD.to_vec();
            body.extend(tlv(0x04, key.secret_pkcs1_der()));
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(tlv(0x30, &body)))
        }
        other => other.clone_key(),
    }
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len().to_be_bytes();
    let significant: Vec<u8> = length.iter().copied().skip_while(|b| *b == 0).collect();
    match significant.as_slice() {
        [] => out.push(0),
        [short] if *short < 0x80 => out.push(*short),
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or(8));
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}
