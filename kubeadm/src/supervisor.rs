//! Keeps a kubelet running where no init system does: `kubeadm supervise-kubelet`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use runtime::CancellationToken;

use crate::{
    constants::{KUBELET_CONFIG, KUBELET_DIR},
    error::{Context, Result},
    host::{Daemon, Host, Stop},
    kubelet,
};

/// Name of the subcommand.
pub const COMMAND: &str = "supervise-kubelet";
/// Where the id of the supervisor is kept.
pub const PID_FILE: &str = "/var/lib/kubelet/kubeadm-supervisor.pid";
/// Where the id of its kubelet is kept.
const KUBELET_PID_FILE: &str = "/var/lib/kubelet/kubelet.pid";
/// Output of both.
pub const LOG_FILE: &str = "/var/log/kubelet.log";
/// Before a kubelet that ended is started again, as by systemd's unit.
const RESTART: Duration = Duration::from_secs(10);
/// How long a process may take to end.
const GRACE: Duration = Duration::from_secs(15);
const GLANCE: Duration = Duration::from_millis(200);

/// The process of a pid file, if it still is what it was.
fn running(host: &dyn Host, file: &str, is_it: impl Fn(&[String]) -> bool) -> Option<u32> {
    let pid = host.read_text(Path::new(file)).ok()?.trim().parse().ok()?;
    is_it(&host.command_of(pid)?).then_some(pid)
}

fn is_kubelet(command: &[String]) -> bool {
    let program = command.first().is_some_and(|program| program.ends_with("kubelet"));
    program && command.iter().any(|arg| *arg == format!("--config={KUBELET_CONFIG}"))
}

fn is_supervisor(command: &[String]) -> bool {
    command.iter().any(|word| word == COMMAND)
}

/// The supervisor of this host.
pub fn supervisor(host: &dyn Host) -> Option<u32> {
    running(host, PID_FILE, is_supervisor)
}

/// The kubelet of this host.
pub fn kubelet(host: &dyn Host) -> Option<u32> {
    running(host, KUBELET_PID_FILE, is_kubelet)
}

/// Starts a supervisor in the background.
pub fn start(host: &dyn Host, kubelet: &Path) -> Result<()> {
    let program = host.own_program().context("cannot find out where kubeadm is installed")?;
    let args = vec![COMMAND.to_owned(), kubelet.to_string_lossy().into_owned()];
    let pid = host
        .start(&Daemon { program, args, log: LOG_FILE.into() })
        .context("couldn't start the supervisor of the kubelet")?;
    note(host, PID_FILE, pid)
}

/// Ends the supervisor and its kubelet.
pub fn stop(host: &dyn Host) -> Result<()> {
    if let Some(pid) = supervisor(host) {
        end(host, pid, is_supervisor)?;
    }
    // A supervisor that was killed leaves its kubelet behind.
    if let Some(pid) = kubelet(host) {
        end(host, pid, is_kubelet)?;
    }
    for file in [PID_FILE, KUBELET_PID_FILE] {
        host.remove(Path::new(file)).with_context(|| format!("couldn't remove {file}"))?;
    }
    Ok(())
}

/// Asks a process to end, then makes it.
fn end(host: &dyn Host, pid: u32, is_it: impl Fn(&[String]) -> bool) -> Result<()> {
    let alive = || host.command_of(pid).is_some_and(|command| is_it(&command));
    host.stop(pid, Stop::Gracefully).context("couldn't stop the kubelet")?;
    // The supervisor itself gives its kubelet the same time.
    let rounds = 2 * GRACE.as_millis() / GLANCE.as_millis();
    for _ in 0..rounds {
        if !alive() {
            return Ok(());
        }
        host.pause(GLANCE);
    }
    host.stop(pid, Stop::Now).context("couldn't stop the kubelet")
}

fn note(host: &dyn Host, file: &str, pid: u32) -> Result<()> {
    host.create_directory(Path::new(KUBELET_DIR), 0o755).context("couldn't make the kubelet's directory")?;
    host.put(Path::new(file), 0o644, format!("{pid}\n").as_bytes()).with_context(|| format!("couldn't write {file}"))
}

/// Runs the kubelet until told to stop; one that ends is started again.
pub async fn run(host: &dyn Host, program: PathBuf, stop: CancellationToken) -> Result<()> {
    note(host, PID_FILE, std::process::id())?;
    while !stop.is_cancelled() {
        let pid = match kubelet(host) {
            // That of a supervisor that was killed.
            Some(pid) => pid,
            None => {
                let daemon = Daemon { program: program.clone(), args: kubelet::arguments(host), log: LOG_FILE.into() };
                let pid = host.start(&daemon).context("couldn't start the kubelet")?;
                note(host, KUBELET_PID_FILE, pid)?;
                pid
            }
        };
        while host.command_of(pid).is_some() && !stop.is_cancelled() {
            wait(&stop, GLANCE).await;
        }
        if !stop.is_cancelled() {
            host.warn("kubeadm: the kubelet ended, it is started again in 10s\n");
            wait(&stop, RESTART).await;
        }
    }
    match kubelet(host) {
        Some(pid) => tokio::task::block_in_place(|| end(host, pid, is_kubelet)),
        None => Ok(()),
    }
}

async fn wait(stop: &CancellationToken, duration: Duration) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(duration) => {}
    }
}
