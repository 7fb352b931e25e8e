//! `kubeadm config`.

use std::{path::PathBuf, sync::Arc};

use serde::Serialize;
use serde_json::json;

use super::{gates, no_subcommand, output, output::Format, programs, read_config};
use crate::{
    cli::{ComponentFlags, ConfigAction, ConfigCommand, ImagesAction, ImagesFlags, PrintAction},
    config::{
        API_VERSION, ClusterConfiguration, Configuration, Discovery, JoinConfiguration, ResetConfiguration, Timeouts,
        TokenDiscovery, UpgradeConfiguration,
        defaults::{self, Detect, GivenInit},
        documents::{Documents, Strictness},
        validate,
        version::Version,
    },
    constants::{DEFAULT_CRI_SOCKET, PKI_DIR},
    cri::Cri,
    error::{Context, Result, fail},
    host::Host,
    images::{
        self,
        supply::{Policy, Supply},
    },
    token, yaml,
};

pub(super) async fn run(host: Arc<dyn Host>, config: ConfigCommand, command: &mut clap::Command) -> Result<()> {
    let host = &*host;
    match config.action {
        None => no_subcommand(host, command, &["config"]),
        Some(ConfigAction::Print { what: None }) => no_subcommand(host, command, &["config", "print"]),
        Some(ConfigAction::Images { action: None }) => no_subcommand(host, command, &["config", "images"]),
        Some(ConfigAction::Print { what: Some(what) }) => print(host, what).await,
        Some(ConfigAction::Images { action: Some(action) }) => images(host, action).await,
        Some(ConfigAction::Migrate { old_config, new_config, allow_experimental_api: _ }) => {
            if old_config.is_empty() {
                return fail!("the --old-config flag is mandatory");
            }
            let text = migrate(host, &read_config(host, old_config.as_ref())?).await?;
            if new_config.is_empty() {
                host.say(&text);
                return Ok(());
            }
            host.put(new_config.as_ref(), 0o644, text.as_bytes())
                .with_context(|| format!("failed to write the new configuration to the file {new_config:?}"))
        }
        Some(ConfigAction::Validate { config, allow_deprecated_api, allow_experimental_api: _ }) => {
            if config.is_empty() {
                return fail!("the --config flag is mandatory");
            }
            let text = read_config(host, config.as_ref())?;
            let deprecated = "kubeadm.k8s.io/v1beta3";
            if !allow_deprecated_api && text.lines().any(|line| line.trim() == format!("apiVersion: {deprecated}")) {
                return fail!("your configuration file uses a deprecated API spec: {deprecated:?}");
            }
            migrate(host, &text).await?;
            host.line("ok");
            Ok(())
        }
    }
}

fn document<T: Serialize>(kind: &str, value: &T) -> Result<String> {
    yaml::document(API_VERSION, kind, value)
}

/// Documents of the current version with everything resolved.
async fn migrate(host: &dyn Host, text: &str) -> Result<String> {
    let mut documents = Documents::read(host, text, Strictness::Fail)?;
    let kinds: Vec<String> = documents.kinds().map(ToOwned::to_owned).collect();
    let mut out = Vec::new();
    let has = |kind: &str| kinds.iter().any(|k| k == kind);
    if has("InitConfiguration") || has("ClusterConfiguration") {
        let given = GivenInit {
            init: documents.decode(host, "InitConfiguration", Strictness::Fail)?.unwrap_or_default(),
            cluster: documents.decode(host, "ClusterConfiguration", Strictness::Fail)?.unwrap_or_default(),
            kubelet: documents.take("KubeletConfiguration"),
            proxy: documents.take("KubeProxyConfiguration"),
        };
        let done = defaults::complete(host, given, Detect::Host).await?;
        out.push(document("ClusterConfiguration", &done.cluster)?);
        out.push(document("InitConfiguration", &done.init)?);
    }
    if let Some(mut join) = documents.decode::<JoinConfiguration>(host, "JoinConfiguration", Strictness::Fail)? {
        defaults::join(host, &mut join, Detect::Host)?;
        validate::join(&join)?;
        out.push(document("JoinConfiguration", &join)?);
    }
    if let Some(mut reset) = documents.decode::<ResetConfiguration>(host, "ResetConfiguration", Strictness::Fail)? {
        complete_reset(&mut reset);
        reset.cri_socket = defaults::runtime_socket(host, &reset.cri_socket)?;
        out.push(document("ResetConfiguration", &reset)?);
    }
    if let Some(mut upgrade) =
        documents.decode::<UpgradeConfiguration>(host, "UpgradeConfiguration", Strictness::Fail)?
    {
        complete_upgrade(&mut upgrade);
        out.push(document("UpgradeConfiguration", &upgrade)?);
    }
    if out.is_empty() {
        return fail!("no InitConfiguration or ClusterConfiguration kind was found in the configuration file");
    }
    Ok(out.join("---\n"))
}

fn complete_reset(reset: &mut ResetConfiguration) {
    if reset.certificates_dir.is_empty() {
        reset.certificates_dir = PKI_DIR.to_owned();
    }
    reset.timeouts = Some(Timeouts::completed(reset.timeouts.take()));
}

fn complete_upgrade(upgrade: &mut UpgradeConfiguration) {
    let pulled = |policy: &mut String, serial: &mut Option<bool>| {
        if policy.is_empty() {
            "IfNotPresent".clone_into(policy);
        }
        serial.get_or_insert(true);
    };
    pulled(&mut upgrade.apply.image_pull_policy, &mut upgrade.apply.image_pull_serial);
    pulled(&mut upgrade.node.image_pull_policy, &mut upgrade.node.image_pull_serial);
    for done in [
        &mut upgrade.apply.certificate_renewal,
        &mut upgrade.apply.etcd_upgrade,
        &mut upgrade.node.certificate_renewal,
        &mut upgrade.node.etcd_upgrade,
        &mut upgrade.plan.etcd_upgrade,
    ] {
        done.get_or_insert(true);
    }
    upgrade.timeouts = Some(Timeouts::completed(upgrade.timeouts.take()));
}

/// Defaults with placeholders for what only a host knows.
async fn placeholders(host: &dyn Host) -> Result<Configuration> {
    let (major, minor) = Version::own().minor();
    let cluster =
        ClusterConfiguration { kubernetes_version: format!("{major}.{minor}.0"), ..ClusterConfiguration::default() };
    defaults::complete(host, GivenInit { cluster, ..GivenInit::default() }, Detect::Placeholders).await
}

async fn print(host: &dyn Host, what: PrintAction) -> Result<()> {
    let text = match what {
        PrintAction::InitDefaults(flags) => {
            let done = placeholders(host).await?;
            let mut documents =
                vec![document("ClusterConfiguration", &done.cluster)?, document("InitConfiguration", &done.init)?];
            documents.reverse();
            documents.extend(components(&done, &flags)?);
            documents.join("---\n")
        }
        PrintAction::JoinDefaults => {
            let mut join = JoinConfiguration {
                discovery: Discovery {
                    bootstrap_token: Some(TokenDiscovery {
                        token: token::PLACEHOLDER.into(),
                        api_server_endpoint: "kube-apiserver:6443".into(),
                        unsafe_skip_ca_verification: true,
                        ..TokenDiscovery::default()
                    }),
                    ..Discovery::default()
                },
                ..JoinConfiguration::default()
            };
            defaults::join(host, &mut join, Detect::Placeholders)?;
            document("JoinConfiguration", &join)?
        }
        PrintAction::ResetDefaults => {
            let mut reset =
                ResetConfiguration { cri_socket: DEFAULT_CRI_SOCKET.into(), ..ResetConfiguration::default() };
            complete_reset(&mut reset);
            document("ResetConfiguration", &reset)?
        }
        PrintAction::UpgradeDefaults => {
            let mut upgrade = UpgradeConfiguration::default();
            complete_upgrade(&mut upgrade);
            document("UpgradeConfiguration", &upgrade)?
        }
    };
    host.say(&text);
    Ok(())
}

fn components(done: &Configuration, flags: &ComponentFlags) -> Result<Vec<String>> {
    flags
        .component_configs
        .iter()
        .map(|kind| match kind.as_str() {
            "KubeletConfiguration" => done.kubelet.yaml(),
            "KubeProxyConfiguration" => done.proxy.yaml(),
            _ => fail!("--component-configs needs to contain some of [KubeProxyConfiguration KubeletConfiguration]"),
        })
        .collect()
}

/// The cluster whose images are meant.
async fn of(host: &dyn Host, flags: &ImagesFlags) -> Result<Configuration> {
    let mut given = match &flags.config {
        Some(path) => GivenInit::read(host, &read_config(host, path)?, Strictness::Warn)?,
        None => GivenInit {
            cluster: ClusterConfiguration {
                image_repository: flags.image_repository.clone(),
                kubernetes_version: flags.kubernetes_version.clone(),
                feature_gates: gates(&flags.feature_gates)?,
                ..ClusterConfiguration::default()
            },
            ..GivenInit::default()
        },
    };
    if given.init.node_registration.cri_socket.is_empty() {
        given.init.node_registration.cri_socket = DEFAULT_CRI_SOCKET.into();
    }
    defaults::complete(host, given, Detect::Host).await
}

async fn images(host: &dyn Host, action: ImagesAction) -> Result<()> {
    match action {
        ImagesAction::List { of: flags, output } => {
            let format = Format::parse(&output)?;
            let done = of(host, &flags).await?;
            let names: Vec<String> =
                images::required(host, &done.cluster).into_iter().map(|image| image.reference).collect();
            if format == Format::Text {
                names.iter().for_each(|name| host.line(name));
                return Ok(());
            }
            let object = json!({"apiVersion": output::API_VERSION, "kind": "Images", "images": names});
            host.say(&format.render(&object)?);
            Ok(())
        }
        ImagesAction::Pull { of: flags, cri_socket, bin_dir } => pull(host, &flags, &cri_socket, bin_dir).await,
    }
}

async fn pull(host: &dyn Host, flags: &ImagesFlags, socket: &str, bin_dir: Option<PathBuf>) -> Result<()> {
    let done = of(host, flags).await?;
    let socket = match (socket, &flags.config) {
        ("", Some(_)) => done.init.node_registration.cri_socket.clone(),
        (given, _) => defaults::runtime_socket(host, given)?,
    };
    let cri = Cri::new(&socket)?;
    let programs = programs(host, bin_dir)?;
    let policy = Policy::of(&done.init.node_registration);
    let supply = Supply { host, cri: &cri, cluster: &done.cluster, programs: &programs, policy };
    for image in images::required(host, &done.cluster) {
        supply.bring(&image).await.with_context(|| format!("failed to pull image {:?}", image.reference))?;
        host.line(&format!("[config/images] Pulled {}", image.reference));
    }
    Ok(())
}
