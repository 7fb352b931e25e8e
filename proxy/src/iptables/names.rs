//! Names of chains.

use sha2::{Digest, Sha256};

use crate::model::{Endpoint, ServicePort};

/// Beginnings of the names of chains of single service ports.
pub(crate) const PREFIXES: [&str; 5] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-FW-", "KUBE-EXT-"];

/// The first `length` characters of the base32 of the SHA-256 of the texts, one after the other.
pub(crate) fn hash(texts: &[&str], length: usize) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut digest = Sha256::new();
    for text in texts {
        digest.update(text.as_bytes());
    }
    let digest = digest.finalize();
    let bit = |at: usize| digest.get(at / 8).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1);
    let character = |at: usize| {
        let value = (0..5).fold(0usize, |value, i| value << 1 | usize::from(bit(at * 5 + i)));
        char::from(ALPHABET[value])
    };
    (0..length).map(character).collect()
}

/// The chains of one service port.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    hash: String,
}

impl Names {
    pub(crate) fn of(port: &ServicePort) -> Self {
        Self { hash: hash(&[&port.name, port.protocol.name()], 16) }
    }

    pub(crate) fn cluster(&self) -> String {
        format!("KUBE-SVC-{}", self.hash)
    }

    pub(crate) fn local(&self) -> String {
        format!("KUBE-SVL-{}", self.hash)
    }

    pub(crate) fn external(&self) -> String {
        format!("KUBE-EXT-{}", self.hash)
    }

    pub(crate) fn firewall(&self) -> String {
        format!("KUBE-FW-{}", self.hash)
    }
}

/// The chain of one endpoint.
pub(crate) fn endpoint(port: &ServicePort, endpoint: &Endpoint) -> String {
    let address = endpoint.address.to_string();
    format!("KUBE-SEP-{}", hash(&[&port.name, port.protocol.name(), &address], 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_upstreams() {
        // The chain that every cluster has for its own API.
        assert_eq!(hash(&["default/kubernetes:https", "tcp"], 16), "NPX46M4PTMTKRN6Y");
    }
}
