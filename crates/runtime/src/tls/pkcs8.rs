//! Private keys in one wrapping and another: PKCS#1 (RFC 8017), SEC1 (RFC 5915), PKCS#8 (RFC 5208).

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{TlsError, content, private_key};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const NULL: u8 = 0x05;
const OID: u8 = 0x06;
const CONTEXT_0: u8 = 0xa0;

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

/// A key pair for signing from its PKCS#8 form: RSA, or ECDSA on P-256 or P-384.
pub fn key_pair_of(pkcs8: &[u8]) -> Result<KeyPair, TlsError> {
    let wrapped = PrivatePkcs8KeyDer::from(pkcs8);
    let algorithms = [&PKCS_RSA_SHA256, &PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384];
    let read = |algorithm| KeyPair::from_pkcs8_der_and_sign_algo(&wrapped, algorithm).ok();
    algorithms.into_iter().find_map(read).ok_or_else(unusable)
}

/// A key pair for signing from the first private key of a PEM text, whatever its wrapping.
pub fn key_pair(pem: &[u8]) -> Result<KeyPair, TlsError> {
    key_pair_from(&private_key(pem)?)
}

/// A key pair for signing from a private key in any wrapping.
pub fn key_pair_from(key: &PrivateKeyDer<'_>) -> Result<KeyPair, TlsError> {
    match key {
        PrivateKeyDer::Pkcs1(key) => key_pair_of(&rsa_to_pkcs8(key.secret_pkcs1_der())),
        PrivateKeyDer::Sec1(key) => key_pair_of(&ec_to_pkcs8(key.secret_sec1_der()).ok_or_else(unusable)?),
        PrivateKeyDer::Pkcs8(key) => key_pair_of(key.secret_pkcs8_der()),
        _ => Err(unusable()),
    }
}

fn unusable() -> TlsError {
    content("private key", "data doesn't contain a valid RSA or ECDSA private key")
}

/// Wraps a PKCS#1 RSA key as PKCS#8.
fn rsa_to_pkcs8(pkcs1: &[u8]) -> Vec<u8> {
    let algorithm = value(SEQUENCE, &[value(OID, RSA), value(NULL, &[])].concat());
    value(SEQUENCE, &[value(INTEGER, &[0]), algorithm, value(OCTETS, pkcs1)].concat())
}

/// Wraps a SEC1 EC key, which must name its curve, as PKCS#8.
fn ec_to_pkcs8(sec1: &[u8]) -> Option<Vec<u8>> {
    let (_, body, _) = read(sec1)?;
    let (_, _, rest) = read(body)?;
    let (_, _, rest) = read(rest)?;
    let (tag, curve, _) = read(rest)?;
    if tag != CONTEXT_0 {
        return None;
    }
    let algorithm = value(SEQUENCE, &[value(OID, EC), curve.to_vec()].concat());
    Some(value(SEQUENCE, &[value(INTEGER, &[0]), algorithm, value(OCTETS, sec1)].concat()))
}

/// The key inside a PKCS#8 wrapping and the object identifier of its curve, if it is an EC key.
fn open(pkcs8: &[u8]) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
    let (_, body, _) = read(pkcs8)?;
    let (_, _, rest) = read(body)?;
    let (_, algorithm, rest) = read(rest)?;
    let (_, key, _) = read(rest)?;
    let (_, name, parameters) = read(algorithm)?;
    let curve = (name == EC).then(|| parameters.to_vec());
    Some((key.to_vec(), curve))
}

/// A PKCS#8 key in its own form, PKCS#1 or SEC1, and the label of its PEM.
pub fn unwrap(pkcs8: &[u8]) -> Option<(Vec<u8>, &'static str)> {
    let (key, curve) = open(pkcs8)?;
    let Some(curve) = curve else { return Some((key, "RSA PRIVATE KEY")) };
    // ECPrivateKey { version, privateKey, [0] curve, [1] publicKey }: PKCS#8 leaves the curve out.
    let (_, body, _) = read(&key)?;
    let (_, version, rest) = read(body)?;
    let (_, secret, mut rest) = read(rest)?;
    if let Some((CONTEXT_0, _, after)) = read(rest) {
        rest = after;
    }
    let parts = [value(INTEGER, version), value(OCTETS, secret), value(CONTEXT_0, &curve), rest.to_vec()];
    Some((value(SEQUENCE, &parts.concat()), "EC PRIVATE KEY"))
}

fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=127 => out.push(short as u8),
        len => {
            let bytes = len.to_be_bytes();
            let significant = &bytes[bytes.iter().position(|b| *b != 0).unwrap_or(0)..];
            out.push(0x80 | significant.len() as u8);
            out.extend_from_slice(significant);
        }
    }
    out.extend_from_slice(content);
    out
}

/// Tag, content and what follows.
fn read(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 || rest.len() < count {
            return None;
        }
        let (len, rest) = rest.split_at(count);
        (len.iter().fold(0_usize, |n, b| n << 8 | usize::from(*b)), rest)
    };
    (rest.len() >= len).then(|| (tag, &rest[..len], &rest[len..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_in_their_own_form() {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let (own, label) = unwrap(pair.serialized_der()).unwrap();
        assert_eq!(label, "EC PRIVATE KEY");
        let again = key_pair_of(&ec_to_pkcs8(&own).unwrap()).unwrap();
        assert_eq!(again.public_key_raw(), pair.public_key_raw());
        assert!(key_pair(pair.serialize_pem().as_bytes()).is_ok());
        assert!(key_pair_of(&own).is_err() && key_pair(b"").is_err());
    }

    #[test]
    fn garbage_is_refused() {
        for bytes in [&[][..], &[0x30], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30, 0x03, 0x02, 0x05, 0x01]] {
            assert!(ec_to_pkcs8(bytes).is_none() && unwrap(bytes).is_none());
        }
    }
}
