use super::*;

fn pair(name: &str) -> (String, String) {
    self_signed(name, &[name.to_owned()], &[]).unwrap()
}

fn serving(name: &str) -> Arc<ServingCertificate> {
    let (certificate, key) = pair(name);
    Arc::new(ServingCertificate::new(certificate.as_bytes(), key.as_bytes()).unwrap())
}

#[test]
fn names_choose_certificates() {
    let (default, wild, exact, extracted) =
        (serving("default"), serving("wild"), serving("exact"), serving("b.example.com"));
    let set = CertificateSet::new(
        Arc::clone(&default),
        vec![
            SniCertificate::new(Arc::clone(&extracted), vec![]),
            SniCertificate::new(Arc::clone(&wild), vec!["*.example.com".into()]),
            SniCertificate::new(Arc::clone(&exact), vec!["a.example.com".into()]),
        ],
    );
    let is = |name: Option<&str>, expected: &ServingCertificate| Arc::ptr_eq(&set.choose(name), &expected.current());
    assert!(is(None, &default) && is(Some("other.org"), &default) && is(Some("x.y.example.com"), &default));
    assert!(is(Some("a.example.com"), &exact) && is(Some("C.example.com"), &wild));
    // Explicit names beat extracted ones, even as wildcards.
    assert!(is(Some("b.example.com"), &wild));
}

#[test]
fn sni_flags() {
    let parse =
        |text| SniCertificate::parse(text).map(|(c, k, n)| (c.display().to_string(), k.display().to_string(), n));
    assert_eq!(parse("a.crt,a.key").unwrap(), ("a.crt".into(), "a.key".into(), vec![]));
    assert_eq!(parse("a,b:*.x.com,x.com").unwrap().2, ["*.x.com", "x.com"]);
    assert!(parse("a").is_err());
}

#[test]
fn suites_and_versions() {
    assert_eq!(min_version("x").map_err(|e| e.to_string()), Err("tls-min-version: unknown tls version \"x\"".into()));
    let unknown = provider_for(&["NOPE".into()], &[]).map(|_| ()).map_err(|e| e.to_string());
    assert_eq!(unknown, Err("tls-cipher-suites: Cipher suite NOPE not supported or doesn't exist".into()));
    let one = provider_for(&["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".into()], &[29]).unwrap();
    assert_eq!(one.cipher_suites.iter().filter(|s| s.tls13().is_none()).count(), 1);
    assert_eq!(one.kx_groups.len(), 1);
    assert!(provider_for(&[], &[29, 29]).is_err());
    let legacy = ServerOptions { cipher_suites: vec!["TLS_RSA_WITH_AES_128_CBC_SHA".into()], ..Default::default() };
    assert!(server_config_with(&legacy, serving("x")).is_ok());
}

#[test]
fn changed_files_are_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    std::fs::write(&path, "one").unwrap();
    let mut file = WatchedFile::open(&path).unwrap();
    assert!(!file.changed());
    std::fs::write(&path, "three").unwrap();
    assert!(file.changed());
    std::fs::remove_file(&path).unwrap();
    assert!(!file.changed());
    assert_eq!(file.content(), b"three");
}

#[test]
fn authorities_tell_ours_from_others() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
    let mut leaf = CertificateParams::new(vec![]).unwrap();
    leaf.distinguished_name = rcgen::DistinguishedName::new();
    leaf.distinguished_name.push(DnType::CommonName, "system:node:a");
    leaf.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    let ours = Authorities::new(certificates(issuer.pem().as_bytes()).unwrap()).unwrap();
    let chain = [leaf.der().clone()];
    let identity = ours.verify(&chain, rustls::pki_types::UnixTime::now()).unwrap();
    assert_eq!((identity.common_name.as_str(), identity.organizations), ("system:node:a", vec!["system:nodes".into()]));
    let (other, _) = pair("other");
    ours.replace(certificates(other.as_bytes()).unwrap()).unwrap();
    assert!(ours.verify(&chain, rustls::pki_types::UnixTime::now()).is_err());
    assert!(ours.verify(&[], rustls::pki_types::UnixTime::now()).is_err());
}
