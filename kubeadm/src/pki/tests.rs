use std::path::Path;

use super::{
    Algorithm, Key, Names, Usage,
    files::{certificate_path, key_path, read_certificate, read_key},
    issue::{self, Facts},
    renew::{Outcome, Place, renewables},
    table::{Row, TABLE},
};
use crate::{
    config::{ApiEndpoint, ClusterConfiguration, defaults::cluster_static},
    host::{Host, recorder::Recorder},
    phases::certs::{Inputs, check_external_ca, is_external_ca},
};

fn cluster() -> ClusterConfiguration {
    let mut cluster = ClusterConfiguration {
        encryption_algorithm: "ECDSA-P256".into(),
        control_plane_endpoint: "api.example.com:6443".into(),
        ..ClusterConfiguration::default()
    };
    cluster.api_server.cert_sans = vec!["Extra.example.com".into(), "192.0.2.9".into()];
    cluster_static(&mut cluster);
    cluster
}

fn make(host: &Recorder, cluster: &ClusterConfiguration) {
    let endpoint = ApiEndpoint { advertise_address: "10.0.0.1".into(), bind_port: 6443 };
    let inputs = Inputs { host, cluster, endpoint: &endpoint, node: "node", started: host.now() };
    TABLE.iter().for_each(|row| inputs.ensure(row).unwrap());
    inputs.ensure_service_account().unwrap();
}

fn facts(host: &Recorder, name: &str) -> Facts {
    let file = Row::named(name).unwrap().file;
    issue::facts(&read_certificate(host, &certificate_path(Path::new("/etc/kubernetes/pki"), file)).unwrap()).unwrap()
}

#[test]
fn keys_come_back_in_their_own_forms() {
    for (algorithm, label) in [
        (Algorithm::EcdsaP256, "EC PRIVATE KEY"),
        (Algorithm::EcdsaP384, "EC PRIVATE KEY"),
        (Algorithm::Rsa2048, "RSA PRIVATE KEY"),
    ] {
        let key = Key::generate(algorithm).unwrap();
        let pem = key.to_pem().unwrap();
        assert!(pem.starts_with(&format!("-----BEGIN {label}-----\n")), "{pem}");
        let again = Key::from_pem(pem.as_bytes()).unwrap();
        assert_eq!(again.public_der(), key.public_der());
        assert!(key.public_pem().starts_with("-----BEGIN PUBLIC KEY-----\n"));
    }
    assert!(Key::from_pem(b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n").is_err());
    assert!(Key::from_pem(b"nonsense").is_err());
}

#[test]
fn certificates_of_a_cluster() {
    let host = Recorder::new();
    make(&host, &cluster());
    let table = [
        ("ca", "kubernetes", None),
        ("apiserver", "kube-apiserver", Some(Usage::Server)),
        ("apiserver-kubelet-client", "kube-apiserver-kubelet-client", Some(Usage::Client)),
        ("front-proxy-ca", "front-proxy-ca", None),
        ("front-proxy-client", "front-proxy-client", Some(Usage::Client)),
        ("etcd-ca", "etcd-ca", None),
        ("etcd-server", "node", Some(Usage::Both)),
        ("etcd-peer", "node", Some(Usage::Both)),
        ("etcd-healthcheck-client", "kube-etcd-healthcheck-client", Some(Usage::Client)),
        ("apiserver-etcd-client", "kube-apiserver-etcd-client", Some(Usage::Client)),
    ];
    for (name, common_name, usage) in table {
        let facts = facts(&host, name);
        assert_eq!(facts.subject.common_name, common_name, "{name}");
        assert!(facts.subject.organizations.is_empty(), "{name}");
        assert_eq!(facts.usage, usage, "{name}");
        assert_eq!(facts.is_authority, usage.is_none(), "{name}");
        let days = if usage.is_some() { 365 } else { 3650 };
        assert_eq!(facts.lifetime.not_after, host.now() + time::Duration::days(days), "{name}");
        assert_eq!(facts.lifetime.not_before, host.now() - time::Duration::minutes(5), "{name}");
        if usage.is_none() {
            assert_eq!(facts.names.dns, [common_name], "{name}");
        }
    }
    let names = facts(&host, "apiserver").names;
    let dns = [
        "api.example.com",
        "extra.example.com",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "node",
    ];
    assert_eq!(names.dns, dns);
    let ips: Vec<String> = names.ips.iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["10.0.0.1", "10.96.0.1", "192.0.2.9"]);
    let line = "[certs] apiserver serving cert is signed for DNS names [api.example.com extra.example.com kubernetes \
                kubernetes.default kubernetes.default.svc kubernetes.default.svc.cluster.local node] and IPs [10.0.0.1 \
                10.96.0.1 192.0.2.9]\n";
    assert!(host.said().contains(line), "{}", host.said());
    let etcd = facts(&host, "etcd-server").names;
    assert_eq!(etcd.dns, ["localhost", "node"]);
    assert_eq!(etcd.ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.1", "127.0.0.1", "::1"]);
}

#[test]
fn files_of_certificates() {
    let host = Recorder::new();
    make(&host, &cluster());
    for (file, mode) in
        [("ca.crt", 0o644), ("ca.key", 0o600), ("etcd/peer.key", 0o600), ("sa.key", 0o600), ("sa.pub", 0o644)]
    {
        assert_eq!(host.mode(&format!("/etc/kubernetes/pki/{file}")), Some(mode), "{file}");
    }
    let before = host.text("/etc/kubernetes/pki/apiserver.crt");
    make(&host, &cluster());
    assert_eq!(host.text("/etc/kubernetes/pki/apiserver.crt"), before);
    for line in [
        "[certs] Using existing ca certificate authority\n",
        "[certs] Using existing apiserver certificate and key on disk\n",
        "[certs] Using the existing \"sa\" key\n",
    ] {
        assert!(host.said().contains(line), "{line}");
    }
}

#[test]
fn a_leaf_of_another_authority_is_refused() {
    let host = Recorder::new();
    make(&host, &cluster());
    let other = Recorder::new();
    other.random(&mut [0; 3]);
    make(&other, &cluster());
    for file in ["ca.crt", "ca.key"] {
        let path = format!("/etc/kubernetes/pki/{file}");
        host.write(Path::new(&path), 0o600, other.text(&path).as_bytes()).unwrap();
    }
    let cluster = cluster();
    let endpoint = ApiEndpoint { advertise_address: "10.0.0.1".into(), bind_port: 6443 };
    let inputs = Inputs { host: &host, cluster: &cluster, endpoint: &endpoint, node: "node", started: host.now() };
    let error = inputs.ensure(Row::named("apiserver").unwrap()).unwrap_err().to_string();
    assert!(error.starts_with("[certs] certificate apiserver not signed by CA certificate ca: "), "{error}");
}

#[test]
fn an_authority_kept_elsewhere() {
    let host = Recorder::new();
    make(&host, &cluster());
    host.remove(Path::new("/etc/kubernetes/pki/ca.key")).unwrap();
    assert!(is_external_ca(&host, Path::new("/etc/kubernetes/pki"), "ca"));
    let cluster = cluster();
    let endpoint = ApiEndpoint { advertise_address: "10.0.0.1".into(), bind_port: 6443 };
    let inputs = Inputs { host: &host, cluster: &cluster, endpoint: &endpoint, node: "node", started: host.now() };
    check_external_ca(&inputs).unwrap();
    inputs.ensure(Row::named("ca").unwrap()).unwrap();
    assert!(host.said().ends_with("[certs] Using existing ca keyless certificate authority\n"));
    host.remove(Path::new("/etc/kubernetes/pki/apiserver.crt")).unwrap();
    let error = check_external_ca(&inputs).unwrap_err().to_string();
    assert_eq!(error, "the /etc/kubernetes/pki/apiserver.crt file does not exists or it is not valid");
}

#[test]
fn renewal_keeps_who_and_changes_the_key() {
    let host = Recorder::new();
    let cluster = cluster();
    make(&host, &cluster);
    let pki = Path::new("/etc/kubernetes/pki");
    let started = host.now() + time::Duration::days(100);
    let place = Place { host: &host, cluster: &cluster, pki, kubeconfigs: Path::new("/etc/kubernetes"), started };
    let names: Vec<&str> = renewables(&cluster).iter().map(|one| one.name).collect();
    assert_eq!(
        names,
        [
            "admin.conf",
            "apiserver",
            "apiserver-etcd-client",
            "apiserver-kubelet-client",
            "controller-manager.conf",
            "etcd-healthcheck-client",
            "etcd-peer",
            "etcd-server",
            "front-proxy-client",
            "scheduler.conf",
            "super-admin.conf"
        ]
    );
    let all = renewables(&cluster);
    assert_eq!(place.renew(&all[0]).unwrap(), Outcome::Missing);
    let before = facts(&host, "apiserver");
    assert_eq!(place.renew(&all[1]).unwrap(), Outcome::Renewed);
    let after = facts(&host, "apiserver");
    assert_eq!((&after.subject, &after.names, after.usage), (&before.subject, &before.names, before.usage));
    assert_ne!(after.public_key, before.public_key);
    assert_eq!(after.lifetime.not_after, started + time::Duration::days(365));
    assert_eq!(read_key(&host, &key_path(pki, "apiserver")).unwrap().public_der(), after.public_key);
    host.remove(Path::new("/etc/kubernetes/pki/ca.key")).unwrap();
    assert_eq!(place.renew(&all[1]).unwrap(), Outcome::External("ca"));
}

#[test]
fn names_are_sorted_once() {
    let mut names = Names::default();
    ["b", "a", "b", "10.0.0.2", "10.0.0.10", "10.0.0.2"].iter().for_each(|n| names.add(n));
    let names = names.normalized();
    assert_eq!(names.dns, ["a", "b"]);
    assert_eq!(names.ips.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.10", "10.0.0.2"]);
}
