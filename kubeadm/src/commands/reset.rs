//! `kubeadm reset`.

use std::sync::Arc;

use super::{Given, read_config};
use crate::{
    cli::{ResetCommand, ResetPhase},
    config::{
        ResetConfiguration, defaults,
        documents::{Documents, Strictness},
    },
    constants::ADMIN_CONF,
    error::{Result, fail},
    host::Host,
    kubelet,
    phases::{
        reset::{FAREWELL, PHASES, Reset, read_cluster},
        workflow::{self, Selection},
    },
    preflight,
};

pub(super) async fn run(host: Arc<dyn Host>, command: ResetCommand, given: &Given) -> Result<()> {
    let (flags, phase) = match command.phase {
        None => (command.flags, None),
        Some(ResetPhase::Phase { path, flags }) => (*flags, Some(path)),
    };
    let mut config = match &flags.config {
        None => ResetConfiguration::default(),
        Some(path) => {
            let mut documents = Documents::read(&*host, &read_config(&*host, path)?, Strictness::Warn)?;
            let Some(config) = documents.decode(&*host, "ResetConfiguration", Strictness::Warn)? else {
                return fail!("no ResetConfiguration found in the supplied config");
            };
            documents.report_unused(&*host);
            config
        }
    };
    config.force |= flags.force;
    config.dry_run |= flags.dry_run;
    config.cleanup_tmp_dir |= flags.cleanup_tmp_dir;
    if !flags.cri_socket.is_empty() {
        config.cri_socket.clone_from(&flags.cri_socket);
    }
    let kubeconfig = flags.kubeconfig.clone().unwrap_or_else(|| ADMIN_CONF.into());
    let cluster = if host.exists(&kubeconfig) { read_cluster(&*host, &kubeconfig).await } else { None };
    config.certificates_dir = match (&cluster, config.certificates_dir.as_str()) {
        _ if given.has("cert-dir") => flags.cert_dir.clone(),
        (Some(cluster), "") => cluster.certificates_dir.clone(),
        (None, "") => flags.cert_dir.clone(),
        (_, own) => own.to_owned(),
    };
    let cri_socket = socket(&*host, &config.cri_socket)?;
    let ignored = preflight::ignored(flags.ignore_preflight_errors.iter().chain(&config.ignore_preflight_errors))?;
    let skipped = if given.has("skip-phases") { flags.skip_phases } else { config.skip_phases.clone() };
    let mut reset = Reset { host, config, ignored, kubeconfig, cluster, cri_socket };
    match phase {
        Some(path) => workflow::run(PHASES, Selection::Only(&path), &mut reset).await,
        None => {
            workflow::run(PHASES, Selection::Except(&skipped), &mut reset).await?;
            reset.host.say(FAREWELL);
            Ok(())
        }
    }
}

/// The given endpoint, the one the kubelet was told, or the one that is there.
fn socket(host: &dyn Host, given: &str) -> Result<String> {
    if given.is_empty()
        && let Some(endpoint) = kubelet::told_endpoint(host)
    {
        return Ok(endpoint);
    }
    defaults::runtime_socket(host, given)
}
