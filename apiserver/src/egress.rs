//! `--egress-selector-config-file`: the proxies by which this server reaches others.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use http::Uri;
use prometheus::Registry;
use registry::connect::egress::{Dialer, Egress, EgressMetrics, ProxyPlace, ProxyProtocol};
use runtime::{config_file, tls};
use rustls::pki_types::ServerName;
use serde::Deserialize;

use crate::StartError;

const VERSIONS: [&str; 3] =
    ["apiserver.k8s.io/v1beta1", "apiserver.k8s.io/v1alpha1", "apiserver.config.k8s.io/v1beta1"];
const NAMES: [&str; 4] = ["controlplane", "master", "etcd", "cluster"];
/// Authorities of proxies whose own are not named.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    egress_selections: Vec<Selection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selection {
    name: String,
    connection: Connection,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Connection {
    proxy_protocol: String,
    #[serde(default)]
    transport: Option<Transport>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Transport {
    #[serde(default)]
    tcp: Option<Tcp>,
    #[serde(default)]
    uds: Option<Uds>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Tcp {
    #[serde(default)]
    url: String,
    #[serde(default)]
    tls_config: Option<Tls>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Uds {
    #[serde(default)]
    uds_name: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Tls {
    ca_bundle: PathBuf,
    client_key: PathBuf,
    client_cert: PathBuf,
}

fn invalid(path: &str, value: &str, why: &str) -> String {
    format!("{path}: Invalid value: {value:?}: {why}")
}

fn required(path: &str, why: &str) -> String {
    format!("{path}: Required value: {why}")
}

fn decode(file: &Path) -> Result<File, String> {
    let read =
        config_file::read(file).and_then(|text| config_file::decode(&text, &VERSIONS, "EgressSelectorConfiguration"));
    read.map_err(|error| format!("failed to read egress selector config: {error}"))
}

/// All that is wrong with a file.
pub(crate) fn check(file: &Path) -> Vec<String> {
    decode(file).map_or_else(|why| vec![why], |file| file.problems())
}

impl File {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut seen: Vec<&str> = Vec::new();
        for (at, selection) in self.egress_selections.iter().enumerate() {
            let (path, name) = (format!("egressSelections[{at}]"), selection.name.as_str());
            if !NAMES.contains(&name) {
                problems.push(format!(
                    "{path}.name: Unsupported value: {name:?}: supported values: \"cluster\", \"controlplane\", \"etcd\""
                ));
            }
            if seen.contains(&name) {
                problems.push(format!("{path}.name: Duplicate value: {name:?}"));
            }
            seen.push(name);
            let connection = &selection.connection;
            problems.extend(connection.problem(&format!("{path}.connection")));
            if name == "etcd" && connection.proxy_protocol != "Direct" {
                problems.push(format!("{path}.connection.proxyProtocol: etcd is reached directly only"));
            }
        }
        problems
    }
}

impl Connection {
    fn problem(&self, path: &str) -> Option<String> {
        let transport = format!("{path}.transport");
        match (self.proxy_protocol.as_str(), &self.transport) {
            ("Direct", None) => None,
            ("Direct", Some(_)) => {
                Some(invalid(&transport, "direct", "Transport config should be absent for direct connect"))
            }
            (protocol @ ("HTTPConnect" | "GRPC"), None) => {
                Some(required(&transport, &format!("transport must be set for {protocol}")))
            }
            ("GRPC", Some(Transport { uds: None, .. })) => {
                Some(required(&format!("{transport}.uds"), "UDS must be set with GRPC"))
            }
            ("HTTPConnect", Some(Transport { tcp: Some(tcp), uds: Some(_) })) => {
                Some(invalid(&format!("{transport}.tcp"), &tcp.url, "TCP and UDS cannot both be set"))
            }
            ("HTTPConnect", Some(Transport { tcp: None, uds: None })) => {
                Some(required(&format!("{transport}.tcp"), "One of TCP or UDS must be set"))
            }
            ("HTTPConnect", Some(Transport { tcp: Some(tcp), uds: None })) => tcp.problem(&transport),
            ("HTTPConnect" | "GRPC", Some(Transport { uds: Some(uds), .. })) => {
                uds.uds_name.as_os_str().is_empty().then(|| {
                    invalid(&format!("{transport}.udsName"), "nil", "UDSName should be present for UDS connections")
                })
            }
            (other, _) => Some(format!(
                "{path}.protocol: Unsupported value: {other:?}: supported values: \"Direct\", \"GRPC\", \"HTTPConnect\""
            )),
        }
    }

    /// How a network is reached that this is chosen for.
    fn dialer(&self, metrics: &EgressMetrics) -> Result<Dialer, String> {
        let protocol = match self.proxy_protocol.as_str() {
            "HTTPConnect" => ProxyProtocol::HttpConnect,
            "GRPC" => ProxyProtocol::Grpc,
            _ => return Ok(Dialer::default()),
        };
        let place = match self.transport.as_ref() {
            Some(Transport { uds: Some(uds), .. }) => ProxyPlace::Unix(uds.uds_name.clone()),
            Some(Transport { tcp: Some(tcp), .. }) => tcp.place()?,
            _ => return Err("a proxy has no transport".into()),
        };
        Ok(Dialer::through(protocol, place, metrics.clone()))
    }
}

impl Tcp {
    fn problem(&self, path: &str) -> Option<String> {
        let config = format!("{path}.tlsConfig");
        match (&self.tls_config, self.url.split_once("://")) {
            (Some(_), Some(("http", _))) => {
                Some(invalid(&config, "nil", "TLSConfig config should not be present when using HTTP"))
            }
            (None, Some(("http", _))) => None,
            (None, Some(("https", _))) => Some(required(&config, "TLSConfig must be present when using HTTPS")),
            (Some(tls), Some(("https", _))) => tls.problem(&config),
            _ => Some(invalid(
                &format!("{path}.url"),
                &self.url,
                "supported connection protocols are http:// and https://",
            )),
        }
    }

    fn place(&self) -> Result<ProxyPlace, String> {
        let wrong = |why: String| format!("proxy {:?}: {why}", self.url);
        let uri: Uri = self.url.parse().map_err(|error: http::uri::InvalidUri| wrong(error.to_string()))?;
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let Some(files) = &self.tls_config else { return Ok(ProxyPlace::Tcp(host, port, None)) };
        let read = |file: &Path| tls::read(file).map_err(|error| wrong(error.to_string()));
        let bundle = if files.ca_bundle.as_os_str().is_empty() { Path::new(SYSTEM_ROOTS) } else { &files.ca_bundle };
        let (certificate, key) = (read(&files.client_cert)?, read(&files.client_key)?);
        let config = tls::client_config(&read(bundle)?, Some((certificate.as_slice(), key.as_slice())));
        let config = config.map_err(|error| wrong(error.to_string()))?;
        let name = ServerName::try_from(host.clone()).map_err(|error| wrong(error.to_string()))?;
        Ok(ProxyPlace::Tcp(host, port, Some((Arc::new(config), name))))
    }
}

impl Tls {
    fn problem(&self, path: &str) -> Option<String> {
        let shown = |file: &Path| file.display().to_string();
        let empty = |file: &Path| file.as_os_str().is_empty();
        let Self { ca_bundle, client_key, client_cert } = self;
        match () {
            () if !empty(ca_bundle) && !ca_bundle.exists() => {
                Some(invalid(&format!("{path}.caBundle"), &shown(ca_bundle), "TLS config ca bundle does not exist"))
            }
            () if empty(client_cert) => {
                Some(invalid(&format!("{path}.clientCert"), "nil", "Using TLS requires clientCert"))
            }
            () if !client_cert.exists() => {
                Some(invalid(&format!("{path}.clientCert"), &shown(client_cert), "TLS client cert does not exist"))
            }
            () if empty(client_key) => {
                Some(invalid(&format!("{path}.clientKey"), "nil", "Using TLS requires requires clientKey"))
            }
            () if !client_key.exists() => {
                Some(invalid(&format!("{path}.clientKey"), &shown(client_key), "TLS client key does not exist"))
            }
            () => None,
        }
    }
}

/// How networks are reached.
pub(crate) fn load(file: Option<&Path>, registry: &Registry) -> Result<Egress, StartError> {
    let metrics = EgressMetrics::register(registry)?;
    let Some(file) = file else { return Ok(Egress::default()) };
    let file = decode(file).map_err(StartError::Flags)?;
    let mut egress = Egress::default();
    for selection in &file.egress_selections {
        let dialer = selection.connection.dialer(&metrics).map_err(StartError::Flags)?;
        match selection.name.as_str() {
            "cluster" => egress.cluster = dialer,
            "controlplane" | "master" => egress.control_plane = dialer,
            _ => {}
        }
    }
    Ok(egress)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(name: &str, connection: &str) -> String {
        let text = format!(
            "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\n\
             egressSelections: [{{name: {name}, connection: {connection}}}]\n"
        );
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("egress.yaml");
        std::fs::write(&file, text).unwrap();
        check(&file).join("\n")
    }

    #[test]
    fn proxies_are_described_whole() {
        for (name, connection, why) in [
            ("cluster", "{proxyProtocol: Direct}", ""),
            ("cluster", "{proxyProtocol: GRPC, transport: {uds: {udsName: /s}}}", ""),
            ("controlplane", "{proxyProtocol: HTTPConnect, transport: {uds: {udsName: /s}}}", ""),
            ("cluster", "{proxyProtocol: HTTPConnect, transport: {tcp: {url: 'http://p:1'}}}", ""),
            ("cluster", "{proxyProtocol: HTTPConnect}", "transport must be set for HTTPConnect"),
            ("cluster", "{proxyProtocol: HTTPConnect, transport: {}}", "One of TCP or UDS must be set"),
            ("cluster", "{proxyProtocol: GRPC, transport: {tcp: {url: 'http://p'}}}", "UDS must be set with GRPC"),
            ("cluster", "{proxyProtocol: GRPC, transport: {uds: {}}}", "UDSName should be present"),
            (
                "cluster",
                "{proxyProtocol: HTTPConnect, transport: {tcp: {url: 'https://p'}}}",
                "egressSelections[0].connection.transport.tlsConfig: Required value: TLSConfig must be present when \
                 using HTTPS",
            ),
            (
                "cluster",
                "{proxyProtocol: HTTPConnect, transport: {tcp: {url: 'https://p', tlsConfig: {clientCert: /none}}}}",
                "TLS client cert does not exist",
            ),
            ("cluster", "{proxyProtocol: HTTPConnect, transport: {tcp: {url: 'ftp://p'}}}", "http:// and https://"),
            ("cluster", "{proxyProtocol: Direct, transport: {uds: {udsName: /s}}}", "absent for direct connect"),
            ("etcd", "{proxyProtocol: GRPC, transport: {uds: {udsName: /s}}}", "etcd is reached directly only"),
            ("cluster", "{proxyProtocol: Carrier}", "Unsupported value: \"Carrier\""),
            ("moon", "{proxyProtocol: Direct}", "egressSelections[0].name: Unsupported value: \"moon\""),
            ("cluster", "{proxyProtocol: Direct, more: 1}", "failed to read egress selector config"),
        ] {
            let told = problems(name, connection);
            assert_eq!(told.is_empty(), why.is_empty(), "{name} {connection}: {told}");
            assert!(told.contains(why), "{name} {connection}: {told}");
        }
    }
}
