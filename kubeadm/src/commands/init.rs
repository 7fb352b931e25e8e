//! `kubeadm init`.

use std::sync::Arc;

use super::{Given, dry, gates, pairs, programs, read_config};
use crate::{
    cli::{InitCommand, InitFlags, InitPhase, PhaseFlags},
    config::{
        ApiEndpoint, ApiServer, Arg, BootstrapToken, ClusterConfiguration, Configuration, DEFAULT_POD_SUBNET,
        EMBEDDED_STORE_ARG, HostPathMount, ImageSource, InitConfiguration, Networking, NodeRegistration, Patches,
        defaults::{self, Detect, GivenInit},
        documents::Strictness,
    },
    constants::{DEFAULT_REPOSITORY, EMBEDDED_STORE_DIR},
    error::{Result, fail},
    host::Host,
    phases::{
        init::{Addons, Init, PHASES},
        workflow::{self, Selection},
    },
    preflight,
};

pub(super) async fn run(host: Arc<dyn Host>, command: InitCommand, given: &Given) -> Result<()> {
    let (flags, phase, alone) = match command.phase {
        None => (command.flags, None, PhaseFlags::default()),
        Some(InitPhase::Phase { path, flags, alone }) => (*flags, Some(path), *alone),
    };
    let config = configuration(&*host, &flags, &alone).await?;
    let whole = phase.is_none();
    let mut init = prepare(host, config, flags, alone, given)?;
    match phase {
        Some(path) => workflow::run(PHASES, Selection::Only(&path), &mut init).await,
        None => {
            workflow::check_skipped(PHASES, &init.skipped)?;
            check_dependencies(&init.skipped)?;
            init.host.line(&format!("[init] Using Kubernetes version: {}", init.cluster().kubernetes_version));
            announce_network(&init);
            let skipped = init.skipped.clone();
            workflow::run(PHASES, Selection::Except(&skipped), &mut init).await
        }
    }?;
    if init.dry_run && whole {
        init.host.line("[dryrun] Finished dry-running successfully. Above are the resources that would be created");
    }
    Ok(())
}

fn announce_network(init: &Init) {
    if init.cluster().image_source() == ImageSource::Programs
        && init.cluster().networking.pod_subnet == DEFAULT_POD_SUBNET
    {
        init.host.line(&format!("[init] Using pod network {DEFAULT_POD_SUBNET}"));
    }
}

/// The configuration from the file or the flags.
async fn configuration(host: &dyn Host, flags: &InitFlags, alone: &PhaseFlags) -> Result<Configuration> {
    let mut given = match &flags.config {
        Some(path) => GivenInit::read(host, &read_config(host, path)?, Strictness::Warn)?,
        None => {
            let (init, cluster) = from_flags(flags, alone)?;
            GivenInit { init, cluster, kubelet: None, proxy: None }
        }
    };
    let cluster = &mut given.cluster;
    if flags.embedded_store && cluster.embedded_store().is_none() {
        embed_store(cluster);
    }
    let own_images = ["", DEFAULT_REPOSITORY].contains(&cluster.image_repository.as_str());
    if own_images && cluster.networking.pod_subnet.is_empty() {
        cluster.networking.pod_subnet = DEFAULT_POD_SUBNET.to_owned();
    }
    if !flags.node_name.is_empty() {
        given.init.node_registration.name.clone_from(&flags.node_name);
    }
    defaults::complete(host, given, Detect::Host).await
}

/// The API server keeps its data itself, in a directory of the host.
fn embed_store(cluster: &mut ClusterConfiguration) {
    let store = format!("{EMBEDDED_STORE_DIR}/store");
    cluster.api_server.extra_args.push(Arg { name: EMBEDDED_STORE_ARG.into(), value: store });
    cluster.api_server.extra_volumes.push(HostPathMount {
        name: "embedded-store".into(),
        host_path: EMBEDDED_STORE_DIR.into(),
        mount_path: EMBEDDED_STORE_DIR.into(),
        read_only: false,
        path_type: "DirectoryOrCreate".into(),
    });
}

fn from_flags(flags: &InitFlags, alone: &PhaseFlags) -> Result<(InitConfiguration, ClusterConfiguration)> {
    let arguments = |texts: &[String]| -> Result<Vec<Arg>> {
        Ok(pairs(texts)?.into_iter().map(|(name, value)| Arg { name, value }).collect())
    };
    let mut init = InitConfiguration {
        local_api_endpoint: ApiEndpoint {
            advertise_address: flags.apiserver_advertise_address.clone(),
            bind_port: flags.apiserver_bind_port,
        },
        node_registration: NodeRegistration {
            name: flags.node_name.clone(),
            cri_socket: flags.cri_socket.clone(),
            ..NodeRegistration::default()
        },
        certificate_key: flags.certificate_key.clone(),
        bootstrap_tokens: vec![BootstrapToken {
            token: flags.token.clone(),
            ttl: flags.token_ttl,
            ..BootstrapToken::default()
        }],
        ..InitConfiguration::default()
    };
    if !flags.patches.is_empty() {
        init.patches = Some(Patches { directory: flags.patches.clone() });
    }
    let mut cluster = ClusterConfiguration {
        kubernetes_version: flags.kubernetes_version.clone(),
        image_repository: flags.image_repository.clone(),
        certificates_dir: flags.cert_dir.clone(),
        control_plane_endpoint: flags.control_plane_endpoint.clone(),
        feature_gates: gates(&flags.feature_gates)?,
        networking: Networking {
            service_subnet: flags.service_cidr.clone(),
            pod_subnet: flags.pod_network_cidr.clone(),
            dns_domain: flags.service_dns_domain.clone(),
        },
        api_server: ApiServer {
            cert_sans: flags.apiserver_cert_extra_sans.clone(),
            extra_args: arguments(&alone.apiserver_extra_args)?,
            ..ApiServer::default()
        },
        ..ClusterConfiguration::default()
    };
    cluster.controller_manager.extra_args = arguments(&alone.controller_manager_extra_args)?;
    cluster.scheduler.extra_args = arguments(&alone.scheduler_extra_args)?;
    Ok((init, cluster))
}

fn prepare(
    host: Arc<dyn Host>,
    mut config: Configuration,
    flags: InitFlags,
    alone: PhaseFlags,
    given: &Given,
) -> Result<Init> {
    config.init.dry_run |= flags.dry_run;
    if given.has("patches") {
        config.init.patches = Some(Patches { directory: flags.patches });
    }
    let dry_run = config.init.dry_run;
    let ignored = preflight::ignored(
        flags.ignore_preflight_errors.iter().chain(&config.init.node_registration.ignore_preflight_errors),
    )?;
    let programs = programs(&*host, flags.bin_dir)?;
    let host = if dry_run { dry(host, "init")? } else { host };
    let mut init = Init::new(host, config, programs);
    init.ignored = ignored;
    if given.has("skip-phases") {
        init.skipped = flags.skip_phases;
    }
    if init.config.cluster.dns.disabled {
        init.skipped.push("addon/coredns".into());
    }
    if init.config.cluster.proxy.disabled {
        init.skipped.push("addon/kube-proxy".into());
    }
    init.upload_certs = flags.upload_certs;
    init.hide_token = flags.skip_token_print;
    init.hide_certificate_key = flags.skip_certificate_key_print;
    if let Some(directory) = alone.kubeconfig_dir {
        init.kubeconfig = directory.join("admin.conf");
        init.kubeconfig_dir = directory;
    }
    if let Some(file) = alone.kubeconfig {
        init.kubeconfig = file;
    }
    if alone.print_manifest {
        init.addons = Addons::Printed;
    }
    Ok(init)
}

/// What the join command tells about must have been made.
fn check_dependencies(skipped: &[String]) -> Result<()> {
    if workflow::is_skipped(skipped, "show-join-command") {
        return Ok(());
    }
    let needed = ["bootstrap-token", "upload-certs"];
    let missing: Vec<&str> = needed.into_iter().filter(|name| workflow::is_skipped(skipped, name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    fail!("unresolved dependencies:\n\tmissing [{}] phase(s) needed by \"show-join-command\" phase", missing.join(" "))
}
