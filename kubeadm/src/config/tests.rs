use super::{
    ClusterConfiguration, Period, argument,
    component::checksum,
    defaults::{self, Detect, GivenInit, runtime_socket},
    documents::Strictness,
    join_host_port, split_host_port, validate,
    version::Version,
};
use crate::{error::Result, host::recorder::Recorder};

async fn completed(host: &Recorder, text: &str) -> Result<super::Configuration> {
    let given = GivenInit::read(host, text, Strictness::Warn)?;
    defaults::complete(host, given, Detect::Host).await
}

fn refused(text: &str, strictness: Strictness) -> String {
    GivenInit::read(&Recorder::new(), text, strictness).unwrap_err().to_string()
}

#[tokio::test]
async fn defaults_of_an_empty_cluster() {
    let host = Recorder::new();
    let done = completed(&host, "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n").await.unwrap();
    assert_eq!(done.cluster.kubernetes_version, "v1.36.0");
    assert_eq!(done.cluster.networking.service_subnet, "10.96.0.0/12");
    assert_eq!(done.cluster.dns_address().unwrap().to_string(), "10.96.0.10");
    assert_eq!(done.init.local_api_endpoint.url(), "https://10.0.0.1:6443");
    assert_eq!(done.init.node_registration.name, "node");
    assert_eq!(done.init.node_registration.cri_socket, "unix:///var/run/containerd/containerd.sock");
    assert_eq!(done.init.node_registration.taints.as_ref().unwrap()[0].key, "node-role.kubernetes.io/control-plane");
    let token = &done.init.bootstrap_tokens[0];
    assert_eq!(token.usages, ["signing", "authentication"]);
    assert_eq!(token.ttl, Some(Period::seconds(86_400)));
    crate::token::Token::parse(&token.token).unwrap();
    let kubelet = done.kubelet.yaml().unwrap();
    for line in
        ["clusterDNS:\n- 10.96.0.10\n", "rotateCertificates: true\n", "    clientCAFile: /etc/kubernetes/pki/ca.crt\n"]
    {
        assert!(kubelet.contains(line), "{kubelet}");
    }
}

#[tokio::test]
async fn unknown_fields_warn_or_fail() {
    let text = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\napiServer:\n  certSANS: [a]\n  extraArgs:\n  - {name: v, value: '4', vaule: x}\n";
    let host = Recorder::new();
    let done = completed(&host, text).await.unwrap();
    assert_eq!(argument(&done.cluster.api_server.extra_args, "v"), Some("4"));
    for field in ["apiServer.certSANS", "apiServer.extraArgs[0].vaule"] {
        let line = format!(
            "error unmarshaling configuration schema.GroupVersionKind{{Group:\"kubeadm.k8s.io\", Version:\"v1beta4\", \
             Kind:\"ClusterConfiguration\"}}: strict decoding error: unknown field \"{field}\"\n"
        );
        assert!(host.warned().contains(&line), "{}", host.warned());
    }
    assert!(refused(text, Strictness::Fail).contains("strict decoding error: unknown field"));
}

#[test]
fn documents_that_are_refused() {
    let v = "apiVersion: kubeadm.k8s.io/v1beta4\n";
    let table = [
        (
            format!("{v}kind: ClusterConfiguration\n---\n{v}kind: ClusterConfiguration\n"),
            "invalid configuration: kind \"ClusterConfiguration\" is specified twice in YAML file",
        ),
        (
            "a: b\n".into(),
            "invalid configuration for GroupVersionKind /, Kind=: kind and apiVersion is mandatory information that must be specified",
        ),
        (
            format!("{v}kind: JoinConfiguration\n"),
            "no InitConfiguration or ClusterConfiguration kind was found in the configuration file",
        ),
        (
            "apiVersion: kubelet.config.k8s.io/v1alpha1\nkind: KubeletConfiguration\n".into(),
            "unsupported apiVersion \"kubelet.config.k8s.io/v1alpha1\", you may have to do manual conversion to \"kubelet.config.k8s.io/v1beta1\" and run kubeadm again",
        ),
    ];
    for (text, error) in table {
        assert_eq!(refused(&text, Strictness::Warn), error);
    }
    let old = refused("apiVersion: kubeadm.k8s.io/v1beta1\nkind: InitConfiguration\n", Strictness::Warn);
    assert!(old.starts_with("your configuration file uses an old API spec: \"kubeadm.k8s.io/v1beta1\" (kind: \"InitConfiguration\"). Please use kubeadm v1.15 instead and run 'kubeadm config migrate "), "{old}");
    let foreign = refused("apiVersion: a.io/v1\nkind: B\n", Strictness::Fail);
    assert_eq!(foreign, "unknown configuration APIs: [a.io/v1, Kind=B]");
}

#[tokio::test]
async fn older_documents_are_converted() {
    let text = "apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\napiServer:\n  timeoutForControlPlane: 2m0s\n  extraArgs: {v: '4', audit-log-path: '-'}\nscheduler:\n  extraArgs: {v: '2'}\n";
    let host = Recorder::new();
    let done = completed(&host, text).await.unwrap();
    let names: Vec<&str> = done.cluster.api_server.extra_args.iter().map(|a| a.name.as_str()).collect();
    assert_eq!(names, ["audit-log-path", "v"]);
    assert_eq!(argument(&done.cluster.scheduler.extra_args, "v"), Some("2"));
    let timeouts = done.init.timeouts.unwrap();
    assert_eq!(timeouts.control_plane_component_health_check, Some(Period::seconds(120)));
    assert!(
        host.warned().starts_with("your configuration file uses a deprecated API spec: \"kubeadm.k8s.io/v1beta3\"")
    );
}

#[tokio::test]
async fn values_that_are_refused() {
    let table = [
        (
            "networking: {serviceSubnet: 10.0.0.0/29}",
            "networking.serviceSubnet: Invalid value: \"10.0.0.0/29\": subnet with 8 address(es) is too small, the minimum is 10",
        ),
        (
            "networking: {serviceSubnet: 10.0.0.0/8}",
            "networking.serviceSubnet: Invalid value: \"10.0.0.0/8\": specified service subnet is too large; for 32-bit addresses, the mask must be >= 12",
        ),
        (
            "networking: {serviceSubnet: 'fd00:1::/104'}",
            "networking.serviceSubnet: Invalid value: \"fd00:1::/104\": specified service subnet is too large; for 128-bit addresses, the mask must be >= 108",
        ),
        (
            "networking: {serviceSubnet: '10.96.0.0/16,10.97.0.0/16'}",
            "networking.serviceSubnet: Invalid value: \"10.96.0.0/16,10.97.0.0/16\": expected two CIDRs from each family for dual-stack networking",
        ),
        (
            "networking: {podSubnet: '10.244.0.0/16,fd00:2::/40'}",
            "networking.podSubnet: Invalid value: \"fd00:2::/40\": pod subnet mask (40) and node-mask (64) difference is greater than 16",
        ),
        (
            "networking: {podSubnet: 10.0.0.0/25}",
            "networking.podSubnet: Invalid value: \"10.0.0.0/25\": pod subnet size (mask) must not be greater than the node mask",
        ),
        (
            "apiServer: {certSANs: [a_b]}",
            "apiServer.certSANs[0]: Invalid value: \"a_b\": altname is not a valid IP address, DNS label or a DNS label with subdomain wildcards",
        ),
        ("certificatesDir: pki", "certificatesDir: Invalid value: \"pki\": path is not absolute"),
        (
            "kubernetesVersion: v1.34.0",
            "this version of kubeadm only supports deploying clusters with the control plane version >= v1.35.0. Current version: v1.34.0",
        ),
    ];
    for (line, error) in table {
        let text = format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\n{line}\n");
        let found = completed(&Recorder::new(), &text).await.unwrap_err().to_string();
        assert_eq!(found, error);
    }
}

#[test]
fn join_needs_one_way_of_discovery() {
    let host = Recorder::new();
    let read = |rest: &str| {
        let text = format!("apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\n{rest}");
        let mut join = defaults::join_from_text(&host, &text, Strictness::Warn).unwrap();
        defaults::join(&host, &mut join, Detect::Host).unwrap();
        validate::join(&join).map(|()| join)
    };
    let token = "token: abcdef.0123456789abcdef, apiServerEndpoint: 'a:6443'";
    let join = read(&format!("discovery: {{bootstrapToken: {{{token}, unsafeSkipCAVerification: true}}}}\n")).unwrap();
    assert_eq!(join.discovery.tls_bootstrap_token, "abcdef.0123456789abcdef");
    assert_eq!(join.ca_cert_path, "/etc/kubernetes/pki/ca.crt");
    assert!(read("").unwrap_err().to_string().contains("bootstrapToken or file must be set"));
    let both = format!("discovery: {{bootstrapToken: {{{token}}}, file: {{kubeConfigPath: /a}}}}\n");
    assert!(read(&both).unwrap_err().to_string().contains("bootstrapToken and file cannot both be set"));
    let unsafe_ = read(&format!("discovery: {{bootstrapToken: {{{token}}}}}\n")).unwrap_err().to_string();
    assert!(unsafe_.contains("using token-based discovery without caCertHashes can be unsafe."), "{unsafe_}");
}

#[test]
fn sockets() {
    let none = Recorder::new();
    assert_eq!(runtime_socket(&none, "").unwrap(), "unix:///var/run/containerd/containerd.sock");
    assert_eq!(runtime_socket(&none, "/run/x.sock").unwrap(), "unix:///run/x.sock");
    assert!(none.warned().contains("deprecated"));
    let one = Recorder::new().with_socket("/var/run/crio/crio.sock");
    assert_eq!(runtime_socket(&one, "").unwrap(), "unix:///var/run/crio/crio.sock");
    let two = one.with_socket("/var/run/cri-dockerd.sock");
    let error = runtime_socket(&two, "").unwrap_err().to_string();
    assert!(
        error.starts_with("found multiple CRI endpoints on the host.")
            && error.contains("unix:///var/run/crio/crio.sock, unix:///var/run/cri-dockerd.sock"),
        "{error}"
    );
}

#[test]
fn endpoints() {
    let local = super::ApiEndpoint { advertise_address: "fd00::1".into(), bind_port: 6443 };
    assert_eq!(local.url(), "https://[fd00::1]:6443");
    for (given, url) in [
        ("", "https://[fd00::1]:6443"),
        ("lb", "https://lb:6443"),
        ("lb:8443", "https://lb:8443"),
        ("fd00::2", "https://[fd00::2]:6443"),
        ("[fd00::2]:9", "https://[fd00::2]:9"),
    ] {
        let cluster = ClusterConfiguration { control_plane_endpoint: given.into(), ..ClusterConfiguration::default() };
        assert_eq!(cluster.endpoint(&local), url, "{given}");
    }
    assert_eq!(split_host_port("10.0.0.1:80"), ("10.0.0.1", Some(80)));
    assert_eq!(join_host_port("::1", 1), "[::1]:1");
}

#[test]
fn versions() {
    assert_eq!(Version::parse("1.36.0").unwrap().to_string(), "v1.36.0");
    assert_eq!(Version::parse("v1.37.0-alpha.1+build").unwrap().to_string(), "v1.37.0-alpha.1+build");
    assert_eq!(Version::parse("3.4.23-0").unwrap().minor(), (3, 4));
    assert!(Version::parse("stable-1").is_none() && Version::parse("1.2").is_none());
    assert!(Version::parse("v1.36.0-rc.0").unwrap().order() < Version::parse("v1.36.0").unwrap().order());
}

#[test]
fn the_mark_of_a_component() {
    assert_eq!(checksum(["foo"]), "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae");
}
