//! `--egress-selector-config-file`: how this server reaches others. It reaches all of them directly; a file that wants
//! proxies is refused.

use std::path::Path;

use runtime::config_file;
use serde::Deserialize;
use serde_json::Value;

const VERSIONS: [&str; 3] =
    ["apiserver.k8s.io/v1beta1", "apiserver.k8s.io/v1alpha1", "apiserver.config.k8s.io/v1beta1"];
const NAMES: [&str; 4] = ["controlplane", "master", "etcd", "cluster"];

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
    transport: Option<Value>,
}

/// All that is wrong with a file.
pub(crate) fn check(file: &Path) -> Vec<String> {
    match config_file::read(file) {
        Ok(text) => problems(&text),
        Err(error) => vec![format!("failed to read egress selector config: {error}")],
    }
}

fn problems(text: &str) -> Vec<String> {
    let file: File = match config_file::decode(text, &VERSIONS, "EgressSelectorConfiguration") {
        Ok(file) => file,
        Err(error) => return vec![format!("failed to read egress selector config: {error}")],
    };
    let mut problems = Vec::new();
    for (at, selection) in file.egress_selections.iter().enumerate() {
        let path = format!("egressSelections[{at}]");
        if !NAMES.contains(&selection.name.as_str()) {
            problems.push(format!(
                "{path}.name: Unsupported value: {:?}: supported values: \"cluster\", \"controlplane\", \"etcd\"",
                selection.name
            ));
        }
        let connection = &selection.connection;
        match connection.proxy_protocol.as_str() {
            "Direct" if connection.transport.is_some() => {
                problems.push(format!(
                    "{path}.connection.transport: Invalid value: \"direct\": Transport config should be \
                                       absent for direct connect"
                ));
            }
            "Direct" => {}
            "HTTPConnect" | "GRPC" => problems.push(format!(
                "{path}.connection.proxyProtocol: {}: this server reaches others directly only",
                connection.proxy_protocol
            )),
            other => problems.push(format!(
                "{path}.connection.protocol: Unsupported value: {other:?}: supported values: \"Direct\", \"GRPC\", \
                 \"HTTPConnect\""
            )),
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_direct_connections_are_taken() {
        let file = |name: &str, protocol: &str| {
            format!(
                "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\n\
                 egressSelections: [{{name: {name}, connection: {{proxyProtocol: {protocol}}}}}]\n"
            )
        };
        assert_eq!(problems(&file("cluster", "Direct")), Vec::<String>::new());
        for (name, protocol, why) in [
            ("cluster", "HTTPConnect", "directly only"),
            ("etcd", "GRPC", "directly only"),
            ("cluster", "Carrier", "Unsupported value: \"Carrier\""),
            ("moon", "Direct", "egressSelections[0].name: Unsupported value: \"moon\""),
        ] {
            assert!(problems(&file(name, protocol)).join("\n").contains(why), "{name} {protocol}");
        }
        assert!(problems("kind: Pod").join("\n").contains("failed to read egress selector config"));
    }
}
