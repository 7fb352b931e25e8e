//! Signing of tokens that do not expire.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::PublicKeyData;
use runtime::tls::pkcs8;
use serde_json::json;
use sha2::{Digest, Sha256};

/// Issuer of tokens in Secrets.
const ISSUER: &str = "kubernetes/serviceaccount";

/// A key that signs.
pub(super) struct Signer {
    key: EncodingKey,
    header: Header,
}

impl Signer {
    /// From a PEM private key: RSA, or ECDSA on P-256 or P-384.
    pub(super) fn from_pem(pem: &[u8]) -> Result<Self, String> {
        let pair = pkcs8::key_pair(pem).map_err(|error| error.to_string())?;
        let (inner, label) = pkcs8::unwrap(pair.serialized_der()).ok_or("the key cannot be read")?;
        let (key, algorithm) = match label {
            "RSA PRIVATE KEY" => (EncodingKey::from_rsa_der(&inner), Algorithm::RS256),
            _ if pair.is_compatible(&rcgen::PKCS_ECDSA_P384_SHA384) => {
                (EncodingKey::from_ec_der(pair.serialized_der()), Algorithm::ES384)
            }
            _ => (EncodingKey::from_ec_der(pair.serialized_der()), Algorithm::ES256),
        };
        let id = URL_SAFE_NO_PAD.encode(Sha256::digest(pair.subject_public_key_info()));
        Ok(Self { key, header: Header { typ: None, kid: Some(id), ..Header::new(algorithm) } })
    }

    /// The token of an account, in a Secret.
    pub(super) fn sign(
        &self,
        namespace: &str,
        account: &str,
        uid: &str,
        secret: &str,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let claims = json!({
            "iss": ISSUER,
            "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/secret.name": secret,
            "kubernetes.io/serviceaccount/service-account.name": account,
            "kubernetes.io/serviceaccount/service-account.uid": uid,
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
        });
        encode(&self.header, &claims, &self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_their_account() {
        let pair = rcgen::KeyPair::generate().unwrap();
        let signer = Signer::from_pem(pair.serialize_pem().as_bytes()).unwrap();
        let token = signer.sign("ns", "sa", "u", "s").unwrap();
        let parts: Vec<Vec<u8>> = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
        let header: serde_json::Value = serde_json::from_slice(&parts[0]).unwrap();
        assert_eq!(header["alg"], "ES256");
        let claims: serde_json::Value = serde_json::from_slice(&parts[1]).unwrap();
        assert_eq!(claims["sub"], "system:serviceaccount:ns:sa");
        assert_eq!(parts[2].len(), 64);
    }
}
