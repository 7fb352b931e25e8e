//! Names of cipher suites, versions and curves as flags have them.

use rustls::{
    CipherSuite, NamedGroup, ProtocolVersion,
    crypto::{CryptoProvider, ring},
};

use super::{TlsError, content};

/// A suite a flag may name.
#[derive(Clone, Copy, Debug)]
pub struct KnownSuite {
    /// IANA name.
    pub name: &'static str,
    /// Whether it is one that is not recommended.
    pub insecure: bool,
    /// What it is here; `None` for suites that are accepted as names and never negotiated.
    suite: Option<CipherSuite>,
}

const fn offered(name: &'static str, suite: CipherSuite) -> KnownSuite {
    KnownSuite { name, insecure: false, suite: Some(suite) }
}

const fn secure(name: &'static str) -> KnownSuite {
    KnownSuite { name, insecure: false, suite: None }
}

const fn insecure(name: &'static str) -> KnownSuite {
    KnownSuite { name, insecure: true, suite: None }
}

const SUITES: &[KnownSuite] = &[
    offered("TLS_AES_128_GCM_SHA256", CipherSuite::TLS13_AES_128_GCM_SHA256),
    offered("TLS_AES_256_GCM_SHA384", CipherSuite::TLS13_AES_256_GCM_SHA384),
    offered("TLS_CHACHA20_POLY1305_SHA256", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    secure("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"),
    secure("TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA"),
    offered("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    offered("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    offered(
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    offered("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    secure("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA"),
    secure("TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA"),
    offered("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    offered("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    offered("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    offered("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    insecure("TLS_RSA_WITH_AES_128_CBC_SHA"),
    insecure("TLS_RSA_WITH_AES_256_CBC_SHA"),
    insecure("TLS_RSA_WITH_AES_128_GCM_SHA256"),
    insecure("TLS_RSA_WITH_AES_256_GCM_SHA384"),
    insecure("TLS_RSA_WITH_AES_128_CBC_SHA256"),
    insecure("TLS_RSA_WITH_3DES_EDE_CBC_SHA"),
    insecure("TLS_RSA_WITH_RC4_128_SHA"),
    insecure("TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA"),
    insecure("TLS_ECDHE_RSA_WITH_RC4_128_SHA"),
    insecure("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256"),
    insecure("TLS_ECDHE_ECDSA_WITH_RC4_128_SHA"),
    insecure("TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256"),
];

/// All suites a flag may name.
pub fn known_suites() -> &'static [KnownSuite] {
    SUITES
}

/// The lowest version a name asks for. TLS 1.0 and 1.1 are not spoken: they stand for 1.2.
pub fn min_version(name: &str) -> Result<ProtocolVersion, TlsError> {
    match name {
        "" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12" => Ok(ProtocolVersion::TLSv1_2),
        "VersionTLS13" => Ok(ProtocolVersion::TLSv1_3),
        other => Err(content("tls-min-version", format!("unknown tls version {other:?}"))),
    }
}

/// A key exchange group by its number.
pub fn curve_group(number: u16) -> NamedGroup {
    NamedGroup::from(number)
}

/// The provider, limited to some TLS 1.2 suites and key exchange groups. TLS 1.3 keeps its suites. Suites and groups
/// that are known by name and not implemented are passed over.
pub fn provider_for(suites: &[String], curves: &[u16]) -> Result<CryptoProvider, TlsError> {
    let mut provider = ring::default_provider();
    let mut wanted = Vec::new();
    for name in suites {
        let Some(known) = SUITES.iter().find(|s| s.name == name) else {
            return Err(content("tls-cipher-suites", format!("Cipher suite {name} not supported or doesn't exist")));
        };
        if known.insecure {
            tracing::warn!("Use of insecure cipher '{name}' detected.");
        }
        wanted.extend(known.suite);
    }
    if !suites.is_empty() {
        provider.cipher_suites.retain(|s| s.tls13().is_some() || wanted.contains(&s.suite()));
    }
    let mut groups: Vec<_> = Vec::new();
    for (at, number) in curves.iter().enumerate() {
        if curves[..at].contains(number) {
            return Err(content("tls-curve-preferences", format!("duplicate curve ID {number}")));
        }
        let group = curve_group(*number);
        groups.extend(provider.kx_groups.iter().copied().find(|g| g.name() == group));
    }
    if !curves.is_empty() {
        if groups.is_empty() {
            return Err(content("tls-curve-preferences", "none of the curves is supported"));
        }
        provider.kx_groups = groups;
    }
    Ok(provider)
}
