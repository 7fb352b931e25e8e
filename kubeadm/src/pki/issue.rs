//! One certificate.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use super::key::{Key, pem};
use crate::{
    error::{Context, Error, Result, fail},
    host::Host,
};

/// What a certificate is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// To prove who calls.
    Client,
    /// To prove who answers.
    Server,
    /// Both.
    Both,
}

/// Who a certificate speaks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Common name.
    pub common_name: String,
    /// Organizations.
    pub organizations: Vec<String>,
}

/// Names and addresses of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// DNS names.
    pub dns: Vec<String>,
    /// Addresses.
    pub ips: Vec<IpAddr>,
}

impl Names {
    /// Adds a name or an address.
    pub fn add(&mut self, text: &str) {
        match text.parse() {
            Ok(ip) => self.ips.push(ip),
            Err(_) => self.dns.push(text.to_owned()),
        }
    }

    /// Without repetitions, in order.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        self.dns.sort();
        self.dns.dedup();
        self.ips.sort_by_key(ToString::to_string);
        self.ips.dedup();
        self
    }
}

/// From when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// First moment.
    pub not_before: OffsetDateTime,
    /// Last moment.
    pub not_after: OffsetDateTime,
}

/// A certificate with its key.
pub struct Pair {
    /// The certificate.
    pub certificate: Vec<u8>,
    /// The key.
    pub key: Key,
}

impl Pair {
    /// PEM of the certificate.
    pub fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }
}

/// Signs certificates.
pub struct Authority {
    /// Its certificate.
    pub certificate: Vec<u8>,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    /// From what is on the disk.
    pub fn new(certificate: Vec<u8>, key: Key) -> Result<Self> {
        let parsed = CertificateDer::from(certificate.as_slice());
        let issuer = Issuer::from_ca_cert_der(&parsed, key.0).context("cannot use the certificate authority")?;
        Ok(Self { certificate, issuer })
    }

    /// PEM of its certificate.
    pub fn pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    /// Signs a certificate for a key.
    pub fn sign(
        &self,
        host: &dyn Host,
        key: Key,
        subject: &Subject,
        usage: Usage,
        names: &Names,
        lifetime: Lifetime,
    ) -> Result<Pair> {
        let mut params = common(host, subject, names, lifetime)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match usage {
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        let signed = params.signed_by(&key.0, &self.issuer).context("unable to sign certificate")?;
        Ok(Pair { certificate: signed.der().to_vec(), key })
    }
}

/// A new certificate authority.
pub fn authority(host: &dyn Host, key: Key, name: &str, lifetime: Lifetime) -> Result<Pair> {
    let subject = Subject { common_name: name.to_owned(), organizations: Vec::new() };
    let names = Names { dns: vec![name.to_owned()], ips: Vec::new() };
    let mut params = common(host, &subject, &names, lifetime)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    let signed = params.self_signed(&key.0).context("unable to create self-signed certificate")?;
    Ok(Pair { certificate: signed.der().to_vec(), key })
}

/// A signing request.
pub fn request(key: &Key, subject: &Subject, names: &Names) -> Result<String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished(subject);
    params.subject_alt_names = alternative(names)?;
    let request = params.serialize_request(&key.0).context("unable to create a certificate request")?;
    Ok(pem("CERTIFICATE REQUEST", request.der()))
}

fn common(host: &dyn Host, subject: &Subject, names: &Names, lifetime: Lifetime) -> Result<CertificateParams> {
    if subject.common_name.is_empty() {
        return fail!("must specify a CommonName");
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = distinguished(subject);
    params.subject_alt_names = alternative(names)?;
    params.serial_number = Some(serial(host));
    params.not_before = lifetime.not_before.replace_nanosecond(0).unwrap_or(lifetime.not_before);
    params.not_after = lifetime.not_after.replace_nanosecond(0).unwrap_or(lifetime.not_after);
    Ok(params)
}

fn distinguished(subject: &Subject) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for organization in &subject.organizations {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    name.push(DnType::CommonName, subject.common_name.as_str());
    name
}

fn alternative(names: &Names) -> Result<Vec<SanType>> {
    let dns = names.dns.iter().map(|name| {
        name.as_str().try_into().map(SanType::DnsName).with_context(|| format!("invalid DNS name {name:?}"))
    });
    dns.chain(names.ips.iter().map(|ip| Ok(SanType::IpAddress(*ip)))).collect()
}

/// Random, from 1 to 2^63-1.
fn serial(host: &dyn Host) -> SerialNumber {
    let mut bytes = [0_u8; 8];
    host.random(&mut bytes);
    let number = (u64::from_be_bytes(bytes) >> 1).max(1);
    SerialNumber::from_slice(&number.to_be_bytes())
}

/// What is read from a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Who it speaks for.
    pub subject: Subject,
    /// Its names.
    pub names: Names,
    /// When it is good.
    pub lifetime: Lifetime,
    /// What for, when it says so.
    pub usage: Option<Usage>,
    /// Whether it signs others.
    pub is_authority: bool,
    /// The public key.
    pub public_key: Vec<u8>,
}

/// First certificate of a PEM file.
pub fn first_certificate(pem: &[u8]) -> Result<Vec<u8>> {
    let none = |_| Error::new("data does not contain any valid RSA or ECDSA certificates");
    Ok(CertificateDer::from_pem_slice(pem).map_err(none)?.to_vec())
}

/// All certificates of a PEM file.
pub fn certificates(pem: &[u8]) -> Vec<Vec<u8>> {
    CertificateDer::pem_slice_iter(pem).filter_map(|c| c.ok().map(|c| c.to_vec())).collect()
}

/// Reads a certificate.
pub fn facts(certificate: &[u8]) -> Result<Facts> {
    let (_, parsed) = X509Certificate::from_der(certificate).context("cannot parse the certificate")?;
    let text = |values: Vec<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
        values.iter().filter_map(|v| v.as_str().ok().map(ToOwned::to_owned)).collect::<Vec<_>>()
    };
    let subject = Subject {
        common_name: text(parsed.subject().iter_common_name().collect()).into_iter().next().unwrap_or_default(),
        organizations: text(parsed.subject().iter_organization().collect()),
    };
    let mut names = Names::default();
    for extension in parsed.extensions() {
        let ParsedExtension::SubjectAlternativeName(list) = extension.parsed_extension() else { continue };
        for name in &list.general_names {
            match name {
                GeneralName::DNSName(name) => names.dns.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => names.ips.extend(address(bytes)),
                _ => {}
            }
        }
    }
    let usage =
        parsed.extended_key_usage().ok().flatten().and_then(|u| match (u.value.server_auth, u.value.client_auth) {
            (true, true) => Some(Usage::Both),
            (true, false) => Some(Usage::Server),
            (false, true) => Some(Usage::Client),
            (false, false) => None,
        });
    let validity = parsed.validity();
    Ok(Facts {
        subject,
        names,
        lifetime: Lifetime {
            not_before: validity.not_before.to_datetime(),
            not_after: validity.not_after.to_datetime(),
        },
        usage,
        is_authority: parsed.is_ca(),
        public_key: parsed.public_key().raw.to_vec(),
    })
}

/// Whether `authority` signed `certificate`.
pub fn is_signed_by(certificate: &[u8], authority: &[u8]) -> Result<()> {
    let (_, leaf) = X509Certificate::from_der(certificate).context("cannot parse the certificate")?;
    let (_, signer) = X509Certificate::from_der(authority).context("cannot parse the certificate authority")?;
    if leaf.issuer().as_raw() != signer.subject().as_raw() || leaf.verify_signature(Some(signer.public_key())).is_err()
    {
        return fail!("x509: certificate signed by unknown authority");
    }
    Ok(())
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(Into::into)
}
