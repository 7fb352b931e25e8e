//! `kubeadm join`.

use std::sync::Arc;

use super::{Given, dry, programs, read_config};
use crate::{
    cli::{JoinCommand, JoinFlags, JoinPhase},
    config::{
        ApiEndpoint, Discovery, FileDiscovery, JoinConfiguration, JoinControlPlane, NodeRegistration, Patches,
        TokenDiscovery,
        defaults::{self, Detect},
        documents::Strictness,
        validate,
    },
    error::Result,
    host::Host,
    phases::{
        join::{Join, PHASES, farewell},
        workflow::{self, Selection},
    },
    preflight,
};

pub(super) async fn run(host: Arc<dyn Host>, command: JoinCommand, given: &Given) -> Result<()> {
    let (flags, phase, endpoint) = match command.phase {
        None => (command.flags, None, command.endpoint),
        Some(JoinPhase::Phase { mut path, flags }) => {
            let endpoint = path.iter().position(|word| word.contains(':')).map(|at| path.remove(at));
            (*flags, Some(path), endpoint)
        }
    };
    let config = configuration(&*host, &flags, endpoint, given)?;
    let mut join = prepare(host, config, flags, given)?;
    match phase {
        Some(path) => return workflow::run(PHASES, Selection::Only(&path), &mut join).await,
        None => {
            let skipped = join.skipped.clone();
            workflow::run(PHASES, Selection::Except(&skipped), &mut join).await?;
        }
    }
    if !join.dry_run {
        join.host.say(&farewell(&join, join.cluster()));
    }
    Ok(())
}

fn configuration(
    host: &dyn Host,
    flags: &JoinFlags,
    endpoint: Option<String>,
    given: &Given,
) -> Result<JoinConfiguration> {
    let mut join = match &flags.config {
        Some(path) => defaults::join_from_text(host, &read_config(host, path)?, Strictness::Warn)?,
        None => from_flags(host, flags, endpoint, given),
    };
    if !flags.node_name.is_empty() {
        join.node_registration.name.clone_from(&flags.node_name);
    }
    defaults::join(host, &mut join, Detect::Host)?;
    validate::join(&join)?;
    Ok(join)
}

fn from_flags(host: &dyn Host, flags: &JoinFlags, endpoint: Option<String>, given: &Given) -> JoinConfiguration {
    let or_token = |own: &String| if own.is_empty() { flags.token.clone() } else { own.clone() };
    let by_token = flags.discovery_file.is_empty();
    let discovery = Discovery {
        bootstrap_token: by_token.then(|| TokenDiscovery {
            token: or_token(&flags.discovery_token),
            api_server_endpoint: endpoint.unwrap_or_default(),
            ca_cert_hashes: flags.discovery_token_ca_cert_hash.clone(),
            unsafe_skip_ca_verification: flags.discovery_token_unsafe_skip_ca_verification,
        }),
        file: (!by_token).then(|| FileDiscovery { kube_config_path: flags.discovery_file.clone() }),
        tls_bootstrap_token: or_token(&flags.tls_bootstrap_token),
    };
    if !flags.control_plane {
        for name in ["apiserver-advertise-address", "apiserver-bind-port", "certificate-key"] {
            if given.has(name) {
                host.warn(&format!(
                    "[preflight] WARNING: --control-plane is also required when passing control-plane related flags such \
                     as [{name}]\n"
                ));
            }
        }
    }
    JoinConfiguration {
        node_registration: NodeRegistration {
            name: flags.node_name.clone(),
            cri_socket: flags.cri_socket.clone(),
            ..NodeRegistration::default()
        },
        discovery,
        control_plane: flags.control_plane.then(|| JoinControlPlane {
            local_api_endpoint: ApiEndpoint {
                advertise_address: flags.apiserver_advertise_address.clone(),
                bind_port: flags.apiserver_bind_port,
            },
            certificate_key: flags.certificate_key.clone(),
        }),
        ..JoinConfiguration::default()
    }
}

fn prepare(host: Arc<dyn Host>, mut config: JoinConfiguration, flags: JoinFlags, given: &Given) -> Result<Join> {
    config.dry_run |= flags.dry_run;
    if given.has("patches") {
        config.patches = Some(Patches { directory: flags.patches });
    }
    let ignored = preflight::ignored(
        flags.ignore_preflight_errors.iter().chain(&config.node_registration.ignore_preflight_errors),
    )?;
    let programs = programs(&*host, flags.bin_dir)?;
    let host = if config.dry_run { dry(host, "join")? } else { host };
    let mut join = Join::new(host, config, programs);
    join.ignored = ignored;
    if given.has("skip-phases") {
        join.skipped = flags.skip_phases;
    }
    Ok(join)
}
