//! What a request asks for, and whether its signer gives that.

use std::collections::BTreeSet;

use rcgen::{CertificateSigningRequestParams, DnType, DnValue, SanType};

use super::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY};

/// A request that was read, its signature checked.
pub(super) struct Asked {
    pub(super) params: CertificateSigningRequestParams,
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
}

fn text(value: &DnValue) -> String {
    match value {
        DnValue::PrintableString(text) => text.as_str().to_owned(),
        DnValue::Ia5String(text) => text.as_str().to_owned(),
        DnValue::TeletexString(text) => text.as_str().to_owned(),
        DnValue::Utf8String(text) => text.clone(),
        _ => String::new(),
    }
}

impl Asked {
    /// Reads the PEM of `spec.request`.
    pub(super) fn parse(pem: &[u8]) -> Result<Self, String> {
        let pem = std::str::from_utf8(pem).map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
        let params = CertificateSigningRequestParams::from_pem(pem).map_err(|error| error.to_string())?;
        let name = &params.params.distinguished_name;
        let all = |wanted: DnType| {
            name.iter().filter(move |(kind, _)| **kind == wanted).map(|(_, value)| text(value)).collect::<Vec<_>>()
        };
        let common_name = all(DnType::CommonName).pop().unwrap_or_default();
        let organizations = all(DnType::OrganizationName);
        Ok(Self { params, common_name, organizations })
    }

    /// Whether a kubelet's signer would sign; `Err` says why not.
    pub(super) fn check(&self, signer: &str, usages: &[String]) -> Result<(), &'static str> {
        let usages: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
        let exactly = |wanted: [&str; 2]| {
            let plain: BTreeSet<&str> = wanted.into();
            let with_rsa: BTreeSet<&str> = wanted.into_iter().chain(["key encipherment"]).collect();
            usages == plain || usages == with_rsa
        };
        let names = &self.params.params.subject_alt_names;
        match signer {
            KUBELET_CLIENT => {
                self.check_node()?;
                if !names.is_empty() {
                    return Err("DNS, IP, email and URI SANs are not allowed");
                }
                if !exactly(["digital signature", "client auth"]) {
                    return Err("usages did not match [\"digital signature\" \"client auth\"]");
                }
            }
            KUBELET_SERVING => {
                self.check_node()?;
                if names.iter().any(|name| !matches!(name, SanType::DnsName(_) | SanType::IpAddress(_))) {
                    return Err("email and URI SANs are not allowed");
                }
                if names.is_empty() {
                    return Err("DNS or IP subjectAltName is required");
                }
                if !exactly(["digital signature", "server auth"]) {
                    return Err("usages did not match [\"digital signature\" \"server auth\"]");
                }
            }
            CLIENT => {
                const ALLOWED: [&str; 3] = ["digital signature", "key encipherment", "client auth"];
                if !usages.iter().all(|usage| ALLOWED.contains(usage)) || !usages.contains("client auth") {
                    return Err("usages did not match [\"digital signature\" \"key encipherment\" \"client auth\"]");
                }
            }
            // It had no rules.
            LEGACY => {}
            _ => return Err("unknown signer"),
        }
        Ok(())
    }

    fn check_node(&self) -> Result<(), &'static str> {
        if self.organizations != ["system:nodes"] {
            return Err("subject organization is not system:nodes");
        }
        if !self.common_name.starts_with("system:node:") {
            return Err("subject common name does not begin with system:node: ");
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use rcgen::{CertificateParams, DistinguishedName, KeyPair};

    use super::*;

    /// A request as a client makes it.
    pub(in crate::certificates) fn pem(common_name: &str, organization: &str, names: &[&str]) -> String {
        let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, organization);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
    }

    #[test]
    fn signers_have_rules() {
        let client = ["digital signature", "client auth"];
        let server = ["digital signature", "server auth", "key encipherment"];
        let cases = [
            ("system:node:a", "system:nodes", &[][..], KUBELET_CLIENT, &client[..], true),
            ("system:node:a", "system:nodes", &["a"], KUBELET_CLIENT, &client, false),
            ("system:node:a", "system:masters", &[], KUBELET_CLIENT, &client, false),
            ("admin", "system:nodes", &[], KUBELET_CLIENT, &client, false),
            ("system:node:a", "system:nodes", &[], KUBELET_CLIENT, &server, false),
            ("system:node:a", "system:nodes", &["a", "10.0.0.1"], KUBELET_SERVING, &server, true),
            ("system:node:a", "system:nodes", &[], KUBELET_SERVING, &server, false),
            ("jane", "dev", &[], CLIENT, &client, true),
            ("jane", "dev", &[], CLIENT, &server, false),
            ("jane", "dev", &[], "example.com/other", &client, false),
        ];
        for (name, organization, names, signer, usages, wanted) in cases {
            let asked = Asked::parse(pem(name, organization, names).as_bytes()).unwrap();
            let usages: Vec<String> = usages.iter().map(|u| (*u).to_owned()).collect();
            assert_eq!(asked.check(signer, &usages).is_ok(), wanted, "{name} {organization} {signer} {usages:?}");
        }
    }

    #[test]
    fn forged_requests_are_not_read() {
        let text = pem("system:node:a", "system:nodes", &[]);
        let mut der = pem_contents(&text);
        let last = der.len() - 3;
        der[last] ^= 0xff;
        assert!(CertificateSigningRequestParams::from_der(&der.into()).is_err());
        assert!(Asked::parse(b"nothing").is_err());
        assert!(Asked::parse(&[0xff, 0xfe]).is_err());
    }

    fn pem_contents(text: &str) -> Vec<u8> {
        use base64::{Engine, engine::general_purpose::STANDARD};
        STANDARD.decode(text.lines().filter(|line| !line.starts_with('-')).collect::<String>()).unwrap()
    }
}
