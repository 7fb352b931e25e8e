//! Checks of a complete configuration. All faults are told at once.

use std::net::IpAddr;

use ipnet::IpNet;
use machinery::{
    field::{ErrorList, Path},
    names,
};
use serde_json::Value;

use super::{
    Arg, BootstrapToken, ClusterConfiguration, InitConfiguration, JoinConfiguration, NodeRegistration, argument,
};
use crate::{
    error::{Error, Result},
    host::Host,
    pki::Algorithm,
    token,
};

/// Most host bits of a service subnet.
const MAX_SERVICE_BITS: u8 = 20;
const GATES: [(&str, Option<bool>); 3] =
    [("NodeLocalCRISocket", Some(true)), ("RootlessControlPlane", None), ("PublicKeysECDSA", None)];

/// Checks the cluster's configuration.
pub fn cluster(host: &dyn Host, config: &ClusterConfiguration) -> Result<()> {
    let mut errors = ErrorList::default();
    networking(config, &mut errors);
    for (index, san) in config.api_server.cert_sans.iter().enumerate() {
        alternative_name(san, &Path::new("apiServer").child("certSANs").index(index), &mut errors);
    }
    let arguments = [
        ("apiServer", &config.api_server.extra_args),
        ("controllerManager", &config.controller_manager.extra_args),
        ("scheduler", &config.scheduler.extra_args),
    ];
    for (name, args) in arguments {
        named(args, &Path::new(name).child("extraArgs"), &mut errors);
    }
    absolute(&config.certificates_dir, &Path::new("certificatesDir"), &mut errors);
    gates(config, &mut errors);
    endpoint(&config.control_plane_endpoint, &mut errors);
    etcd(config, &mut errors);
    if Algorithm::named(&config.encryption_algorithm).is_none() {
        let known: Vec<&str> = Algorithm::NAMES.iter().map(|(name, _)| *name).collect();
        let given = Value::from(config.encryption_algorithm.as_str());
        errors.not_supported(&Path::new("encryptionAlgorithm"), &given, &known);
    }
    periods(host, config);
    result(errors)
}

/// Checks what belongs to the host of `init`.
pub fn init(config: &InitConfiguration) -> Result<()> {
    let mut errors = ErrorList::default();
    node(&config.node_registration, &mut errors);
    for (index, entry) in config.bootstrap_tokens.iter().enumerate() {
        let path = Path::new("bootstrapTokens").index(index);
        bootstrap_token(&entry.token, &path.child("token"), &mut errors);
        groups_and_usages(&entry.groups, &entry.usages, &path, &mut errors);
    }
    local_endpoint(&config.local_api_endpoint.advertise_address, config.local_api_endpoint.bind_port, &mut errors);
    certificate_key(&config.certificate_key, &mut errors);
    result(errors)
}

/// Checks a JoinConfiguration.
pub fn join(config: &JoinConfiguration) -> Result<()> {
    let mut errors = ErrorList::default();
    let discovery = &config.discovery;
    let path = Path::new("discovery");
    match (&discovery.bootstrap_token, &discovery.file) {
        (None, None) => errors.invalid(&path, &Value::from(""), "bootstrapToken or file must be set"),
        (Some(_), Some(_)) => {
            errors.invalid(&path, &Value::from(""), "bootstrapToken and file cannot both be set");
        }
        (Some(by_token), None) => {
            let path = path.child("bootstrapToken");
            bootstrap_token(&by_token.token, &path.child("token"), &mut errors);
            if by_token.ca_cert_hashes.is_empty() && !by_token.unsafe_skip_ca_verification {
                errors.invalid(
                    &path.child("caCertHashes"),
                    &Value::from(""),
                    "using token-based discovery without caCertHashes can be unsafe. Set unsafeSkipCAVerification as \
                     true in your kubeadm config file or pass --discovery-token-unsafe-skip-ca-verification flag to \
                     continue",
                );
            }
            let (host, port) = super::split_host_port(&by_token.api_server_endpoint);
            if host.is_empty() || port.is_none() {
                errors.invalid(
                    &path.child("apiServerEndpoint"),
                    &Value::from(by_token.api_server_endpoint.as_str()),
                    "address has no host or port",
                );
            }
        }
        (None, Some(file)) => {
            let given = &file.kube_config_path;
            if !given.starts_with('/') && !given.starts_with("https://") {
                errors.invalid(
                    &path.child("file").child("kubeConfigPath"),
                    &Value::from(given.as_str()),
                    "if it's an https URL, it must be valid; if it's a file, it must be absolute",
                );
            }
        }
    }
    if !discovery.tls_bootstrap_token.is_empty() {
        bootstrap_token(&discovery.tls_bootstrap_token, &path.child("tlsBootstrapToken"), &mut errors);
    }
    absolute(&config.ca_cert_path, &Path::new("caCertPath"), &mut errors);
    node(&config.node_registration, &mut errors);
    if let Some(plane) = &config.control_plane {
        local_endpoint(&plane.local_api_endpoint.advertise_address, plane.local_api_endpoint.bind_port, &mut errors);
        certificate_key(&plane.certificate_key, &mut errors);
    }
    result(errors)
}

/// Checks a token by itself.
pub fn token(entry: &BootstrapToken) -> Result<()> {
    let mut errors = ErrorList::default();
    let path = Path::new("bootstrapTokens").index(0);
    bootstrap_token(&entry.token, &path.child("token"), &mut errors);
    groups_and_usages(&entry.groups, &entry.usages, &path, &mut errors);
    result(errors)
}

fn result(errors: ErrorList) -> Result<()> {
    let texts: Vec<String> = errors.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    match texts.as_slice() {
        [] => Ok(()),
        [one] => Err(Error::new(one.clone())),
        several => Err(Error::new(format!("[{}]", several.join(", ")))),
    }
}

fn networking(config: &ClusterConfiguration, errors: &mut ErrorList) {
    let path = Path::new("networking");
    let domain = &config.networking.dns_domain;
    errors.invalid_all(&path.child("dnsDomain"), &Value::from(domain.as_str()), names::dns1123_subdomain(domain));
    let services = subnets(&config.networking.service_subnet, 10, &path.child("serviceSubnet"), errors);
    for network in &services {
        let bits = network.max_prefix_len();
        if bits - network.prefix_len() > MAX_SERVICE_BITS {
            let least = bits - MAX_SERVICE_BITS;
            errors.invalid(
                &path.child("serviceSubnet"),
                &Value::from(network.to_string()),
                &format!(
                    "specified service subnet is too large; for {bits}-bit addresses, the mask must be >= {least}"
                ),
            );
        }
    }
    if config.networking.pod_subnet.is_empty() {
        return;
    }
    let pods = subnets(&config.networking.pod_subnet, 14, &path.child("podSubnet"), errors);
    if argument(&config.controller_manager.extra_args, "allocate-node-cidrs") == Some("false") {
        return;
    }
    for network in pods {
        let (flag, default) = match network {
            IpNet::V4(_) => ("node-cidr-mask-size-ipv4", 24),
            IpNet::V6(_) => ("node-cidr-mask-size-ipv6", 64),
        };
        let args = &config.controller_manager.extra_args;
        let given = argument(args, flag).or_else(|| argument(args, "node-cidr-mask-size"));
        let mask: u8 = given.and_then(|text| text.parse().ok()).unwrap_or(default);
        let invalid = |detail: &str, errors: &mut ErrorList| {
            errors.invalid(&path.child("podSubnet"), &Value::from(network.to_string()), detail);
        };
        if network.prefix_len() > mask {
            invalid("pod subnet size (mask) must not be greater than the node mask", errors);
        } else if mask - network.prefix_len() > 16 {
            invalid(
                &format!(
                    "pod subnet mask ({}) and node-mask ({mask}) difference is greater than 16",
                    network.prefix_len()
                ),
                errors,
            );
        }
    }
}

/// The networks of a comma separated list: one, or one of each family.
fn subnets(text: &str, smallest: u32, path: &Path, errors: &mut ErrorList) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for part in text.split(',') {
        match part.trim().parse::<IpNet>() {
            Ok(network) => networks.push(network),
            Err(_) => errors.invalid(path, &Value::from(text), "couldn't parse subnet"),
        }
    }
    let v4 = networks.iter().filter(|n| matches!(n, IpNet::V4(_))).count();
    if networks.len() > 2 {
        errors.invalid(
            path,
            &Value::from(text),
            "expected one (IPv4 or IPv6) CIDR or two CIDRs from each family for dual-stack networking",
        );
    } else if networks.len() == 2 && v4 != 1 {
        errors.invalid(path, &Value::from(text), "expected two CIDRs from each family for dual-stack networking");
    }
    for network in &networks {
        let bits = u32::from(network.max_prefix_len() - network.prefix_len());
        if bits < 32 && (1_u64 << bits) < u64::from(smallest) {
            errors.invalid(
                path,
                &Value::from(text),
                &format!("subnet with {} address(es) is too small, the minimum is {smallest}", 1_u64 << bits),
            );
        }
    }
    networks
}

fn alternative_name(san: &str, path: &Path, errors: &mut ErrorList) {
    let is_address = san.parse::<IpAddr>().is_ok();
    let is_name = names::dns1123_subdomain(san).is_empty() || names::wildcard_dns1123_subdomain(san).is_empty();
    if !is_address && !is_name {
        errors.invalid(
            path,
            &Value::from(san),
            "altname is not a valid IP address, DNS label or a DNS label with subdomain wildcards",
        );
    }
}

fn named(args: &[Arg], path: &Path, errors: &mut ErrorList) {
    for (index, arg) in args.iter().enumerate() {
        if arg.name.is_empty() {
            errors.invalid(path, &Value::from(format!("index {index}")), "argument has no name");
        }
    }
}

fn absolute(path: &str, field: &Path, errors: &mut ErrorList) {
    if !path.starts_with('/') {
        errors.invalid(field, &Value::from(path), "path is not absolute");
    }
}

fn gates(config: &ClusterConfiguration, errors: &mut ErrorList) {
    let path = Path::new("featureGates");
    for (name, value) in &config.feature_gates {
        match GATES.iter().find(|(known, _)| known == name) {
            None => {
                let known: Vec<&str> = GATES.iter().map(|(known, _)| *known).collect();
                errors.invalid(
                    &path,
                    &Value::from(name.as_str()),
                    &format!("{name} is not a valid feature name. Valid features are {}", known.join(", ")),
                );
            }
            Some((_, Some(locked))) if locked != value => {
                errors.invalid(
                    &path,
                    &Value::from(name.as_str()),
                    &format!("cannot set feature gate {name} to {value}, feature is locked to {locked}"),
                );
            }
            Some(_) => {}
        }
    }
}

fn endpoint(text: &str, errors: &mut ErrorList) {
    if text.is_empty() {
        return;
    }
    let path = Path::new("controlPlaneEndpoint");
    let (host, port) = super::split_host_port(text);
    let good = host.parse::<IpAddr>().is_ok() || names::dns1123_subdomain(host).is_empty();
    if !good || (text.matches(':').count() == 1 && port.is_none()) {
        errors.invalid(
            &path,
            &Value::from(text),
            "must be a valid IP address or a valid RFC-1123 DNS subdomain, with an optional port",
        );
    }
    if port.is_some_and(|p| !(1..=65535).contains(&p)) {
        errors.invalid(&path, &Value::from(text), "port must be a valid number between 1 and 65535, inclusive");
    }
}

fn etcd(config: &ClusterConfiguration, errors: &mut ErrorList) {
    let path = Path::new("etcd");
    if config.etcd.local.is_some() && config.etcd.external.is_some() {
        errors.invalid(&path, &Value::from(""), "Etcd.Local and Etcd.External are mutually exclusive");
    }
    if let Some(local) = &config.etcd.local {
        absolute(&local.data_dir, &path.child("local").child("dataDir"), errors);
        let path = path.child("local");
        for (field, list) in [("serverCertSANs", &local.server_cert_sans), ("peerCertSANs", &local.peer_cert_sans)] {
            for (index, san) in list.iter().enumerate() {
                alternative_name(san, &path.child(field).index(index), errors);
            }
        }
    }
    if let Some(external) = &config.etcd.external {
        let path = path.child("external");
        if external.endpoints.is_empty() {
            errors.invalid(&path.child("endpoints"), &Value::from(""), "at least one endpoint must be specified");
        }
        if external.cert_file.is_empty() != external.key_file.is_empty() {
            errors.invalid(
                &path,
                &Value::from(""),
                "either both or none of .Etcd.External.CertFile and .Etcd.External.KeyFile must be set",
            );
        }
        for file in [&external.ca_file, &external.cert_file, &external.key_file] {
            if !file.is_empty() {
                absolute(file, &path, errors);
            }
        }
    }
}

fn node(node: &NodeRegistration, errors: &mut ErrorList) {
    let path = Path::new("nodeRegistration");
    errors.invalid_all(&path.child("name"), &Value::from(node.name.as_str()), names::dns1123_subdomain(&node.name));
    let path_of_socket = path.child("criSocket");
    if !node.cri_socket.strip_prefix("unix://").is_some_and(|path| path.starts_with('/')) {
        errors.invalid(&path_of_socket, &Value::from(node.cri_socket.as_str()), "only URL schemes unix are supported");
    }
    if !["IfNotPresent", "Always", "Never"].contains(&node.image_pull_policy.as_str()) {
        errors.not_supported(
            &path.child("imagePullPolicy"),
            &Value::from(node.image_pull_policy.as_str()),
            &["Always", "IfNotPresent", "Never"],
        );
    }
    named(&node.kubelet_extra_args, &path.child("kubeletExtraArgs"), errors);
}

fn bootstrap_token(text: &str, path: &Path, errors: &mut ErrorList) {
    if let Err(error) = token::Token::parse(text) {
        errors.invalid(path, &Value::from(text.split('.').next().unwrap_or_default()), &error.to_string());
    }
}

fn groups_and_usages(groups: &[String], usages: &[String], path: &Path, errors: &mut ErrorList) {
    for group in groups {
        if !token::is_group(group) {
            errors.invalid(
                &path.child("groups"),
                &Value::from(group.as_str()),
                &format!("bootstrap group {group:?} is invalid (must match {})", token::GROUP_PATTERN),
            );
        }
    }
    for usage in usages {
        if !token::USAGES.contains(&usage.as_str()) {
            errors.invalid(
                &path.child("usages"),
                &Value::from(usage.as_str()),
                &format!(
                    "invalid bootstrap token usage string: {usage}, valid usage options: {}",
                    token::USAGES.join(", ")
                ),
            );
        }
    }
}

fn local_endpoint(address: &str, port: i32, errors: &mut ErrorList) {
    let path = Path::new("localAPIEndpoint");
    if address.parse::<IpAddr>().is_err() {
        errors.invalid(&path.child("advertiseAddress"), &Value::from(address), "ip address is not valid");
    }
    if !(1..=65535).contains(&port) {
        errors.invalid(&path.child("bindPort"), &Value::from(port), "port number is not valid");
    }
}

fn certificate_key(key: &str, errors: &mut ErrorList) {
    if !key.is_empty() && !hex::decode(key).is_ok_and(|bytes| bytes.len() == 32) {
        errors.invalid(&Path::new("certificateKey"), &Value::from("<hidden>"), "must be 32 bytes in hexadecimal form");
    }
}

fn periods(host: &dyn Host, config: &ClusterConfiguration) {
    let default = super::Period::seconds(365 * 24 * 3600);
    let (leaf, ca) = (config.certificate_validity_period, config.ca_certificate_validity_period);
    if leaf.is_some_and(|leaf| leaf > default) {
        host.warn(&format!(
            "WARNING: the value {} of certificateValidityPeriod is longer than the recommended default value {default}\n",
            leaf.unwrap_or(default)
        ));
    }
    if leaf > ca {
        host.warn("WARNING: certificateValidityPeriod is longer than caCertificateValidityPeriod\n");
    }
}
