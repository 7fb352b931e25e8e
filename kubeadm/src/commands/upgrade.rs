//! `kubeadm upgrade`.

use std::{path::PathBuf, sync::Arc};

use super::{
    Given as Flags, dry, no_subcommand,
    output::{self, Format, table},
    programs, read_config,
};
use crate::{
    cli::upgrade::{
        ApplyFlags, ApplyPhase, CommonFlags, DiffFlags, NodeFlags, NodePhase, PlanFlags, UnstableFlags, UpgradeAction,
    },
    config::{
        Patches, Timeouts, UpgradeConfiguration, UpgradeNode,
        documents::{Documents, Strictness},
        version::{self, Lookup, Version},
    },
    error::{Error, Result, fail},
    host::Host,
    phases::{
        upgrade::{APPLY, Given, NODE, Options, Upgrade, farewell, plan, policy::Allowed, read},
        upload::cluster_document,
        workflow::{self, Selection},
    },
    preflight,
};

pub(super) async fn run(
    host: Arc<dyn Host>,
    action: Option<UpgradeAction>,
    given: &Flags,
    command: &mut clap::Command,
) -> Result<()> {
    match action {
        None => no_subcommand(&*host, command, &["upgrade"]),
        Some(UpgradeAction::Apply { version, flags, phase }) => match phase {
            None => apply(host, version, *flags, None, given).await,
            Some(ApplyPhase::Phase { path, flags }) => apply(host, version, *flags, Some(path), given).await,
        },
        Some(UpgradeAction::Node { flags, phase }) => match phase {
            None => node(host, *flags, None, given).await,
            Some(NodePhase::Phase { path, flags }) => node(host, *flags, Some(path), given).await,
        },
        Some(UpgradeAction::Plan { version, flags }) => make_plan(host, version, *flags).await,
        Some(UpgradeAction::Diff { version, flags }) => diff(host, version, flags).await,
    }
}

/// The UpgradeConfiguration of a file.
fn configuration(host: &dyn Host, path: Option<&PathBuf>) -> Result<UpgradeConfiguration> {
    let Some(path) = path else { return Ok(UpgradeConfiguration::default()) };
    let mut documents = Documents::read(host, &read_config(host, path)?, Strictness::Warn)?;
    let Some(config) = documents.decode(host, "UpgradeConfiguration", Strictness::Warn)? else {
        return fail!("no UpgradeConfiguration found in the supplied config");
    };
    documents.report_unused(host);
    Ok(config)
}

fn allowed(flags: UnstableFlags, experimental: Option<bool>, candidates: Option<bool>) -> Allowed {
    Allowed {
        experimental: flags.allow_experimental_upgrades || experimental == Some(true),
        candidates: flags.allow_release_candidate_upgrades || candidates == Some(true),
    }
}

/// What flags and file say of certificates and etcd. Nobody is asked.
fn options(flags: &CommonFlags, file: &UpgradeNode) -> Options {
    Options {
        allowed: Allowed::default(),
        certificate_renewal: flags.certificate_renewal && file.certificate_renewal != Some(false),
        etcd: flags.etcd_upgrade && file.etcd_upgrade != Some(false),
        force: false,
        yes: true,
    }
}

/// A workflow that can start.
struct Prepared {
    given: Given,
    ignored: Vec<String>,
    skipped: Vec<String>,
}

fn prepare(
    host: Arc<dyn Host>,
    flags: CommonFlags,
    file: UpgradeNode,
    timeouts: Option<Timeouts>,
    given: &Flags,
) -> Result<Prepared> {
    let dry_run = flags.dry_run || file.dry_run == Some(true);
    let ignored = preflight::ignored(flags.ignore_preflight_errors.iter().chain(&file.ignore_preflight_errors))?;
    let programs = programs(&*host, flags.bin_dir)?;
    let kubeconfig = Given::kubeconfig_of(&*host, flags.kubeconfig);
    let host = if dry_run { dry(host, "upgrade")? } else { host };
    let patches = if given.has("patches") { Some(Patches { directory: flags.patches }) } else { file.patches };
    Ok(Prepared {
        given: Given {
            host,
            kubeconfig,
            programs,
            dry_run,
            patches,
            timeouts,
            image_pull_policy: if file.image_pull_policy.is_empty() {
                "IfNotPresent".into()
            } else {
                file.image_pull_policy
            },
            prefix: "upgrade",
        },
        ignored,
        skipped: if given.has("skip-phases") { flags.skip_phases } else { file.skip_phases },
    })
}

async fn apply(
    host: Arc<dyn Host>,
    version: Option<String>,
    flags: ApplyFlags,
    phase: Option<Vec<String>>,
    given: &Flags,
) -> Result<()> {
    let config = configuration(&*host, flags.common.config.as_ref())?;
    let file = config.apply;
    let target = version.or_else(|| Some(file.kubernetes_version).filter(|v| !v.is_empty()));
    let print = flags.print_config || file.print_config == Some(true);
    let allowed = allowed(flags.unstable, file.allow_experimental_upgrades, file.allow_rc_upgrades);
    let force = flags.force || file.force_upgrade == Some(true);
    let shared = UpgradeNode {
        certificate_renewal: file.certificate_renewal,
        dry_run: file.dry_run,
        etcd_upgrade: file.etcd_upgrade,
        ignore_preflight_errors: file.ignore_preflight_errors,
        skip_phases: file.skip_phases,
        patches: file.patches,
        image_pull_policy: file.image_pull_policy,
        image_pull_serial: file.image_pull_serial,
    };
    let options = Options { allowed, force, yes: flags.yes, ..options(&flags.common, &shared) };
    let prepared = prepare(host, flags.common, shared, config.timeouts, given)?;
    let mut upgrade = read(prepared.given, options).await?;
    upgrade.init.ignored = prepared.ignored;
    upgrade.init.skipped = prepared.skipped;
    if !upgrade.is_control_plane {
        return fail!("this is not a control plane node; use 'kubeadm upgrade node' on worker nodes");
    }
    choose(&mut upgrade, target).await?;
    if print {
        upgrade.init.host.say(&cluster_document(upgrade.init.cluster())?);
    }
    if let Some(path) = phase {
        return workflow::run(APPLY, Selection::Only(&path), &mut upgrade).await;
    }
    let skipped = upgrade.init.skipped.clone();
    workflow::run(APPLY, Selection::Except(&skipped), &mut upgrade).await?;
    farewell(&upgrade);
    Ok(())
}

/// Puts the target into the configuration; without one it is the version of this program.
async fn choose(upgrade: &mut Upgrade, target: Option<String>) -> Result<()> {
    let host = upgrade.init.host.clone();
    let version = match target {
        Some(text) => match Version::parse(&text) {
            Some(version) => version,
            None => parsed(&version::resolve(&*host, &text, Lookup::Network).await?)?,
        },
        None => Version::own(),
    };
    upgrade.init.config.cluster.kubernetes_version = version.to_string();
    Ok(())
}

fn parsed(text: &str) -> Result<Version> {
    Version::parse(text).ok_or_else(|| Error::new(format!("could not parse version {text:?}")))
}

async fn node(host: Arc<dyn Host>, flags: NodeFlags, phase: Option<Vec<String>>, given: &Flags) -> Result<()> {
    let config = configuration(&*host, flags.common.config.as_ref())?;
    let options = options(&flags.common, &config.node);
    let prepared = prepare(host, flags.common, config.node, config.timeouts, given)?;
    let mut upgrade = read(prepared.given, options).await?;
    upgrade.init.ignored = prepared.ignored;
    if let Some(path) = phase {
        return workflow::run(NODE, Selection::Only(&path), &mut upgrade).await;
    }
    workflow::run(NODE, Selection::Except(&prepared.skipped), &mut upgrade).await?;
    let host = &*upgrade.init.host;
    if upgrade.init.dry_run {
        host.line("[upgrade/successful] Finished dryrunning successfully!");
        return Ok(());
    }
    host.line("[upgrade] The configuration for this node was successfully updated!");
    host.line("[upgrade] Now you should go ahead and upgrade the kubelet package using your package manager.");
    Ok(())
}

/// Reads the cluster for a command that changes nothing.
async fn look(
    host: Arc<dyn Host>,
    kubeconfig: Option<PathBuf>,
    timeouts: Option<Timeouts>,
    options: Options,
    dry_run: bool,
    prefix: &'static str,
) -> Result<Upgrade> {
    let given = Given {
        kubeconfig: Given::kubeconfig_of(&*host, kubeconfig),
        programs: programs(&*host, None)?,
        host,
        dry_run,
        patches: None,
        timeouts,
        image_pull_policy: String::new(),
        prefix,
    };
    read(given, options).await
}

async fn make_plan(host: Arc<dyn Host>, version: Option<String>, flags: PlanFlags) -> Result<()> {
    let format = Format::parse(&flags.output)?;
    let config = configuration(&*host, flags.config.as_ref())?;
    let file = config.plan;
    let ignored = preflight::ignored(flags.ignore_preflight_errors.iter().chain(&file.ignore_preflight_errors))?;
    let allowed = allowed(flags.unstable, file.allow_experimental_upgrades, file.allow_rc_upgrades);
    let print = flags.print_config || file.print_config == Some(true);
    // Of structured output only the object is heard.
    host.hush(format != Format::Text);
    host.line("[preflight] Running pre-flight checks.");
    preflight::report(&*host, &[preflight::checks::privileged(&*host)], &ignored)?;
    let etcd = file.etcd_upgrade != Some(false);
    let options = Options { allowed, certificate_renewal: false, etcd, force: false, yes: true };
    let dry_run = file.dry_run == Some(true);
    let mut upgrade = look(host.clone(), flags.kubeconfig, config.timeouts, options, dry_run, "upgrade/config").await?;
    upgrade.init.ignored = ignored;
    if print {
        host.say(&cluster_document(upgrade.init.cluster())?);
    }
    upgrade.check_health().await?;
    host.line("[upgrade] Fetching available versions to upgrade to");
    host.line(&format!("[upgrade/versions] Cluster version: {}", upgrade.from));
    host.line(&format!("[upgrade/versions] kubeadm version: {}", Version::own()));
    let wanted = version.or_else(|| Some(file.kubernetes_version).filter(|v| !v.is_empty()));
    let wanted = wanted.map(|text| parsed(&text)).transpose()?;
    let api = upgrade.init.api().await?;
    let running = plan::Running::read(&api).await?;
    let targets = plan::targets(&upgrade, wanted).await;
    let found: Vec<plan::Available> =
        targets.into_iter().map(|(text, version)| running.against(&upgrade, text, version)).collect();
    if format != Format::Text {
        host.hush(false);
        host.say(&format.render(&plan::object_of(&found, output::API_VERSION))?);
        return Ok(());
    }
    host.line("");
    if !found.is_empty() {
        host.say(&plan::text_of(&found, |rows| table(rows, 0)));
    }
    Ok(())
}

async fn diff(host: Arc<dyn Host>, version: Option<String>, flags: DiffFlags) -> Result<()> {
    let config = configuration(&*host, flags.config.as_ref())?;
    let target = version.or_else(|| Some(config.diff.kubernetes_version).filter(|v| !v.is_empty()));
    let options =
        Options { allowed: Allowed::default(), certificate_renewal: false, etcd: true, force: false, yes: true };
    let mut upgrade = look(host, flags.kubeconfig, config.timeouts, options, false, "upgrade/diff").await?;
    choose(&mut upgrade, target).await?;
    let context = if config.diff.context_lines > 0 { config.diff.context_lines } else { flags.context_lines };
    let text = plan::diff(&upgrade, usize::try_from(context).unwrap_or(0))?;
    upgrade.init.host.say(&text);
    Ok(())
}
