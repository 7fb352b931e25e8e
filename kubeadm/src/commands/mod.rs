//! The commands.

mod certs;
mod config;
mod etcd;
mod init;
mod join;
mod kubeconfig;
mod output;
mod reset;
mod token;
mod upgrade;
mod version;

use std::{path::PathBuf, sync::Arc};

use clap::{ArgMatches, CommandFactory, FromArgMatches, parser::ValueSource};

use runtime::CancellationToken;

use crate::{
    cli::{Cli, Command, UpkeepCommand},
    constants::TMP_DIR,
    error::{Context, Error, Result, fail},
    host::{Host, dry::DryHost},
    kubelet, phases, supervisor, upkeep,
};

/// Flags that may stand beside `--config`.
const BESIDE_CONFIG: [&str; 20] = [
    "config",
    "ignore-preflight-errors",
    "dry-run",
    "kubeconfig",
    "kubeconfig-dir",
    "node-name",
    "upload-certs",
    "print-manifest",
    "print-join-command",
    "rootfs",
    "v",
    "yes",
    "output",
    "bin-dir",
    "embedded-store",
    "force",
    "certificate-renewal",
    "etcd-upgrade",
    "old-config",
    "new-config",
];

/// Flags of the command that were given.
#[derive(Clone, Debug, Default)]
pub struct Given(Vec<String>);

impl Given {
    fn of(command: &clap::Command, matches: &ArgMatches) -> Self {
        let mut names = Vec::new();
        let (mut command, mut matches) = (command, matches);
        loop {
            for arg in command.get_arguments() {
                let id = arg.get_id().as_str();
                let is_given = matches.try_contains_id(id).unwrap_or(false)
                    && matches.value_source(id) == Some(ValueSource::CommandLine);
                if let (true, Some(long)) = (is_given, arg.get_long()) {
                    names.push(long.to_owned());
                }
            }
            let Some((name, below)) = matches.subcommand() else { break };
            let Some(next) = command.find_subcommand(name) else { break };
            (command, matches) = (next, below);
        }
        names.sort();
        names.dedup();
        Self(names)
    }

    /// Whether a flag was given.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|given| given == name)
    }

    /// Refuses flags that also live in the file.
    pub fn check_mixed(&self) -> Result<()> {
        if !self.has("config") {
            return Ok(());
        }
        let allowed = |name: &&String| BESIDE_CONFIG.contains(&name.as_str()) || name.starts_with("skip-");
        let mixed: Vec<&str> = self.0.iter().filter(|n| !allowed(n)).map(String::as_str).collect();
        if mixed.is_empty() {
            return Ok(());
        }
        fail!("can not mix '--config' with arguments [{}]", mixed.join(" "))
    }
}

/// The log verbosity of a command line, known before it is parsed.
pub fn verbosity(words: &[String]) -> i32 {
    let value = |at: usize| {
        let word = words[at].as_str();
        let rest = word.strip_prefix("--v").or_else(|| word.strip_prefix("-v"))?;
        match rest.strip_prefix('=').unwrap_or(rest) {
            "" => words.get(at + 1)?.parse().ok(),
            text => text.parse().ok(),
        }
    };
    (0..words.len()).rev().find_map(value).unwrap_or(0)
}

/// The command line with the phases in its help.
pub fn command() -> clap::Command {
    let workflow =
        |name: &str, outline: String| format!("The \"{name}\" command executes the following phases:\n{outline}");
    let init = workflow("init", phases::workflow::outline(phases::init::PHASES));
    let join = workflow("join [api-server-endpoint]", phases::workflow::outline(phases::join::PHASES));
    let reset = workflow("reset", phases::workflow::outline(phases::reset::PHASES));
    let apply = workflow("apply [version]", phases::workflow::outline(phases::upgrade::APPLY));
    let node = workflow("node", phases::workflow::outline(phases::upgrade::NODE));
    Cli::command()
        .mut_subcommand("init", |c| c.after_help(init))
        .mut_subcommand("join", |c| c.after_help(join))
        .mut_subcommand("reset", |c| c.after_help(reset))
        .mut_subcommand("upgrade", |c| {
            c.mut_subcommand("apply", |c| c.after_help(apply)).mut_subcommand("node", |c| c.after_help(node))
        })
}

/// Runs a command line. The result is the error to print.
pub async fn run(host: Arc<dyn Host>, words: Vec<String>, stop: CancellationToken) -> Result<()> {
    let mut command = command();
    let matches = match command.try_get_matches_from_mut(words) {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => {
            host.say(&error.render().to_string());
            return Ok(());
        }
        Err(error) => return Err(usage(&error)),
    };
    let cli = Cli::from_arg_matches(&matches).map_err(|error| usage(&error))?;
    let given = Given::of(&command, &matches);
    if let Some(root) = &cli.rootfs {
        host.change_root(root).with_context(|| format!("failed to chroot to {}", root.display()))?;
    }
    given.check_mixed()?;
    if let Some(Command::SuperviseKubelet { program }) = cli.command {
        return supervisor::run(&*host, program, stop).await;
    }
    if let Some(Command::Upkeep(command)) = cli.command {
        let settings = upkeep_settings(&*host, command)?;
        return upkeep::run(host, settings, stop).await;
    }
    tokio::select! {
        done = dispatch(host, cli.command, &given, &mut command) => done,
        () = stop.cancelled() => fail!("interrupted"),
    }
}

async fn dispatch(
    host: Arc<dyn Host>,
    chosen: Option<Command>,
    given: &Given,
    command: &mut clap::Command,
) -> Result<()> {
    match chosen {
        None => {
            host.say(&command.render_help().to_string());
            Ok(())
        }
        Some(Command::Init(init)) => init::run(host, *init, given).await,
        Some(Command::Join(join)) => join::run(host, *join, given).await,
        Some(Command::Reset(reset)) => reset::run(host, *reset, given).await,
        Some(Command::Upgrade(upgrade)) => upgrade::run(host, upgrade.action, given, command).await,
        Some(Command::StartKubelet(start)) => kubelet::ensure_running(&*host, &programs(&*host, start.bin_dir)?),
        Some(Command::StopKubelet) => kubelet::stop(&*host),
        Some(Command::Token(token)) => match token.action {
            Some(action) => token::run(&*host, action, token.kubeconfig.as_deref(), token.dry_run).await,
            None => no_subcommand(&*host, command, &["token"]),
        },
        Some(Command::Config(config)) => config::run(host, config, command).await,
        Some(Command::Certs(certs)) => match certs.action {
            Some(action) => certs::run(host, action, command).await,
            None => no_subcommand(&*host, command, &["certs"]),
        },
        Some(Command::Etcd(etcd)) => match etcd.action {
            Some(action) => etcd::run(&*host, action, command).await,
            None => no_subcommand(&*host, command, &["etcd"]),
        },
        Some(Command::Kubeconfig(kubeconfig)) => match kubeconfig.action {
            Some(action) => kubeconfig::run(&*host, action).await,
            None => no_subcommand(&*host, command, &["kubeconfig"]),
        },
        Some(Command::Version(version)) => version::run(&*host, &version.output),
        Some(Command::SuperviseKubelet { .. } | Command::Upkeep(_)) => Ok(()),
    }
}

fn upkeep_settings(host: &dyn Host, command: UpkeepCommand) -> Result<upkeep::Settings> {
    let node = match command.node_name.as_str() {
        "" => host.hostname().context("cannot find out the name of this host")?.trim().to_lowercase(),
        given => given.to_owned(),
    };
    Ok(upkeep::Settings {
        node,
        interval: command.interval.0,
        once: command.once,
        renew_at: command.renew_at,
        snapshots: command.snapshot_dir,
        snapshot_interval: command.snapshot_interval.0,
        kept: command.snapshots_kept,
        metrics: command.metrics_bind_address,
    })
}

/// Prints the help of a command that needs a subcommand.
fn no_subcommand(host: &dyn Host, command: &mut clap::Command, path: &[&str]) -> Result<()> {
    let known = path.iter().try_fold(&*command, |at, name| at.find_subcommand(name));
    let mut shown = known.unwrap_or(&*command).clone();
    host.say(&shown.render_help().to_string());
    fail!("subcommand is required")
}

/// What is wrong with a command line, in the usual words.
fn usage(error: &clap::Error) -> Error {
    use clap::error::{ContextKind, ErrorKind};
    let text = |kind| match error.get(kind) {
        Some(clap::error::ContextValue::String(text)) => text.clone(),
        Some(clap::error::ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    };
    let arg = text(ContextKind::InvalidArg);
    let first = error.render().to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    match error.kind() {
        ErrorKind::UnknownArgument if arg.starts_with('-') => Error::new(format!("unknown flag: {arg}")),
        ErrorKind::InvalidSubcommand => {
            Error::new(format!("unknown command {:?} for \"kubeadm\"", text(ContextKind::InvalidSubcommand)))
        }
        _ => Error::new(first),
    }
}

/// Directory of the installed programs: the given one, or that of kubeadm.
fn programs(host: &dyn Host, given: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(directory) = given {
        return Ok(directory);
    }
    let own = host.own_program().context("cannot find out where kubeadm is installed")?;
    Ok(own.parent().map(ToOwned::to_owned).unwrap_or_default())
}

/// The host of a dry run: what would be written goes below a directory that is told by a variable, or a new one.
fn dry(host: Arc<dyn Host>, command: &str) -> Result<Arc<dyn Host>> {
    let variable = format!("KUBEADM_{}_DRYRUN_DIR", command.to_uppercase());
    let fresh = || format!("{TMP_DIR}/kubeadm-{command}-dryrun{}", host.random_text(9));
    let directory = host.variable(&variable).unwrap_or_else(fresh);
    host.create_directory(directory.as_ref(), 0o700).context("couldn't create a directory for the dry run")?;
    Ok(Arc::new(DryHost::new(host, directory.into())))
}

/// Text of a configuration file.
fn read_config(host: &dyn Host, path: &std::path::Path) -> Result<String> {
    host.read_text(path).with_context(|| format!("unable to read config from {:?}", path.display().to_string()))
}

/// `name=value` pairs.
fn pairs(texts: &[String]) -> Result<Vec<(String, String)>> {
    texts
        .iter()
        .map(|text| match text.split_once('=') {
            Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
            None => fail!("{text:?} must be formatted as key=value"),
        })
        .collect()
}

/// Feature gates of a flag.
fn gates(texts: &[String]) -> Result<std::collections::BTreeMap<String, bool>> {
    pairs(texts)?
        .into_iter()
        .map(|(name, value)| match value.as_str() {
            "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok((name, true)),
            "false" | "0" | "f" | "F" | "FALSE" | "False" => Ok((name, false)),
            other => fail!("invalid value of {name}={other}"),
        })
        .collect()
}
