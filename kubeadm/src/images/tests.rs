use std::{
    io::Read,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    Purpose, archive, layer,
    recipe::{self, Entry, parse_ldd},
    required, tag,
};
use crate::{
    config::{ClusterConfiguration, defaults::cluster_static},
    host::recorder::Recorder,
};

const LDD: &str = "/usr/bin/kube-proxy:
	linux-vdso.so.1 (0x00007fff)
	libgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f97)
	libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f98)
	/lib64/ld-linux-x86-64.so.2 (0x00007f99)
/usr/bin/static:
	not a dynamic executable
";

fn cluster(change: impl FnOnce(&mut ClusterConfiguration)) -> ClusterConfiguration {
    let mut cluster = ClusterConfiguration { kubernetes_version: "v1.36.0".into(), ..ClusterConfiguration::default() };
    change(&mut cluster);
    cluster_static(&mut cluster);
    cluster
}

fn names(host: &Recorder, cluster: &ClusterConfiguration) -> Vec<String> {
    required(host, cluster).into_iter().map(|image| image.reference).collect()
}

#[test]
fn images_of_a_registry() {
    let mirror = cluster(|c| c.image_repository = "mirror.example.com/k8s".into());
    assert_eq!(
        names(&Recorder::new(), &mirror),
        [
            "mirror.example.com/k8s/kube-apiserver:v1.36.0",
            "mirror.example.com/k8s/kube-controller-manager:v1.36.0",
            "mirror.example.com/k8s/kube-scheduler:v1.36.0",
            "mirror.example.com/k8s/kube-proxy:v1.36.0",
            "mirror.example.com/k8s/coredns:v1.14.2",
            "mirror.example.com/k8s/pause:3.10.2",
            "mirror.example.com/k8s/etcd:3.6.8-0",
        ]
    );
    let disabled = cluster(|c| {
        c.image_repository = "m".into();
        c.proxy.disabled = true;
        c.dns.disabled = true;
    });
    assert_eq!(names(&Recorder::new(), &disabled).len(), 5);
    let upstream_dns = cluster(|c| c.dns.image_repository = "registry.k8s.io".into());
    assert!(names(&Recorder::new(), &upstream_dns).contains(&"registry.k8s.io/coredns/coredns:v1.14.2".to_owned()));
}

#[test]
fn images_of_installed_programs() {
    let host =
        Recorder::new().with_program("etcd", "/usr/bin/etcd").with_answer("etcd", "etcd Version: 3.4.23\nGit SHA: x\n");
    let names = names(&host, &cluster(|_| {}));
    assert_eq!(
        names[3..],
        [
            "registry.k8s.io/kube-proxy:v1.36.0",
            "registry.k8s.io/cluster-dns:v1.36.0",
            "registry.k8s.io/pod-network:v1.36.0",
            "registry.k8s.io/local-path:v1.36.0",
            "registry.k8s.io/timonel-metrics:v1.36.0",
            "registry.k8s.io/kubeadm:v1.36.0",
            "registry.k8s.io/timonel-ingress:v1.36.0",
            "registry.k8s.io/timonel-dashboard:v1.36.0",
            "registry.k8s.io/timonel-logs:v1.36.0",
            "registry.k8s.io/pause:3.10.2",
            "registry.k8s.io/etcd:3.4.23-0",
        ]
    );
    assert_eq!(tag("v1.36.0-alpha.1+x"), "v1.36.0-alpha.1_x");
}

#[test]
fn packages_keep_programs_of_containers_apart() {
    let host = Recorder::new().with_file("/usr/bin/kube-proxy", "").with_file("/usr/libexec/timonel/pod-network", "");
    let installed = |purpose| recipe::installed(&host, purpose, "/usr/bin".as_ref());
    assert_eq!(installed(Purpose::Network), Some("/usr/libexec/timonel/pod-network".into()));
    assert_eq!(installed(Purpose::Dns), None);
}

#[test]
fn shared_libraries() {
    let found = parse_ldd(LDD).unwrap();
    let expected =
        ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/libgcc_s.so.1", "/lib64/ld-linux-x86-64.so.2"];
    assert_eq!(found.into_iter().collect::<Vec<_>>(), expected.map(PathBuf::from));
    assert!(parse_ldd("\tliba.so => not found\n").is_err());
}

#[test]
fn what_goes_into_an_image() {
    let host = Recorder::new()
        .with_file("/opt/bin/kube-proxy", "\u{7f}ELF proxy")
        .with_program("iptables", "/usr/sbin/xtables-nft-multi")
        .with_program("ip", "/usr/sbin/ip")
        .with_file("/usr/lib/x86_64-linux-gnu/xtables/libxt_comment.so", "\u{7f}ELF")
        .with_file("/lib/x86_64-linux-gnu/libc.so.6", "\u{7f}ELF")
        .with_file("/lib/x86_64-linux-gnu/libgcc_s.so.1", "\u{7f}ELF")
        .with_file("/lib64/ld-linux-x86-64.so.2", "\u{7f}ELF")
        .with_file("/etc/ssl/certs/ca-certificates.crt", "certificates")
        .with_answer("ldd", LDD);
    let recipe = recipe::recipe(&host, Purpose::Component("kube-proxy"), Path::new("/opt/bin")).unwrap();
    assert_eq!(recipe.entrypoint, ["/usr/local/bin/kube-proxy"]);
    for (path, entry) in [
        ("/usr/local/bin/kube-proxy", Entry::Copy("/opt/bin/kube-proxy".into())),
        ("/usr/sbin/iptables-restore", Entry::Link("xtables-nft-multi".into())),
        ("/usr/sbin/ip", Entry::Copy("/usr/sbin/ip".into())),
        ("/lib64/ld-linux-x86-64.so.2", Entry::Copy("/lib64/ld-linux-x86-64.so.2".into())),
        (
            "/usr/lib/x86_64-linux-gnu/xtables/libxt_comment.so",
            Entry::Copy("/usr/lib/x86_64-linux-gnu/xtables/libxt_comment.so".into()),
        ),
    ] {
        assert_eq!(recipe.entries.get(Path::new(path)), Some(&entry), "{path}");
    }
    let layer = layer::pack(&host, &recipe).unwrap();
    assert_eq!(layer, layer::pack(&host, &recipe).unwrap());
    let mut tar = tar::Archive::new(layer.as_slice());
    let mut seen = Vec::new();
    for entry in tar.entries().unwrap() {
        let entry = entry.unwrap();
        assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (0, 0));
        seen.push((entry.path().unwrap().display().to_string(), entry.header().mode().unwrap()));
    }
    assert!(
        seen.contains(&("usr/local/bin/".into(), 0o755)) || seen.contains(&("usr/local/bin".into(), 0o755)),
        "{seen:?}"
    );
    assert!(seen.contains(&("usr/local/bin/kube-proxy".into(), 0o755)));
    assert!(seen.contains(&("etc/passwd".into(), 0o644)));
    let missing = recipe::recipe(&host, Purpose::Component("kube-scheduler"), Path::new("/opt/bin")).unwrap_err();
    assert_eq!(missing.to_string(), "program \"kube-scheduler\" is not installed in /opt/bin");
}

#[test]
fn an_archive_names_its_image() {
    let references = ["registry.k8s.io/pause:3.10.2".to_owned(), "k8s.gcr.io/pause:3.6".to_owned()];
    let made = archive::archive(b"layer", &["/pause".into()], &references).unwrap();
    let mut files = std::collections::BTreeMap::new();
    for entry in tar::Archive::new(made.bytes.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        files.insert(entry.path().unwrap().display().to_string(), content);
    }
    let json = |name: &str| serde_json::from_slice::<Value>(&files[name]).unwrap();
    let blob = |digest: &Value| format!("blobs/sha256/{}", digest.as_str().unwrap().trim_start_matches("sha256:"));
    let index = json("index.json");
    for (entry, reference) in index["manifests"].as_array().unwrap().iter().zip(&references) {
        assert_eq!(entry["annotations"]["io.containerd.image.name"], reference.as_str());
    }
    let manifest = json(&blob(&index["manifests"][0]["digest"]));
    assert_eq!(manifest["config"]["digest"], made.id.as_str());
    assert_eq!(files[&blob(&manifest["layers"][0]["digest"])], b"layer");
    let config = json(&blob(&manifest["config"]["digest"]));
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/pause"]));
    assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
}
