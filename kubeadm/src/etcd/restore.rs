//! A cluster's data from a snapshot, on this host, which then has the only member of a new cluster of etcd.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::local::Local;
use crate::{
    client::{Cluster, INTERVAL},
    config::join_host_port,
    constants::{ADMIN_CONF, TMP_DIR},
    error::{Context, Error, Result, fail},
    host::{Host, Program},
    kubelet,
    manifests::{self, present::Present},
};

/// Time for a program that handles all data.
const DATA: Duration = Duration::from_secs(1800);
/// Time for static Pods to end, and for them to come up again.
const PODS: Duration = Duration::from_secs(300);
/// How far revisions are set ahead where that is possible, so that none that a client may know comes twice.
const AHEAD: &str = "1000000000";

/// A restore that is being done.
pub struct Restore<'a> {
    /// This host.
    pub host: &'a dyn Host,
    /// The snapshot.
    pub snapshot: &'a Path,
    /// Directory of the installed programs.
    pub programs: &'a Path,
    member: Local,
    /// Port of the API server of this host, and its URL.
    port: u16,
    server: String,
    /// What was there before goes there.
    backup: PathBuf,
}

impl<'a> Restore<'a> {
    /// Looks at this host and changes nothing.
    pub fn prepare(host: &'a dyn Host, snapshot: &'a Path, programs: &'a Path) -> Result<Self> {
        if !host.exists(snapshot) {
            return fail!("there is no snapshot {}", snapshot.display());
        }
        let server = Present::read(host, "kube-apiserver")?;
        let port = server.flag("--secure-port").and_then(|port| port.parse().ok()).unwrap_or(6443);
        let Some(address) = server.flag("--advertise-address") else {
            return fail!("the manifest of kube-apiserver has no flag --advertise-address");
        };
        let server = format!("https://{}", join_host_port(address, port));
        let backup = Path::new(TMP_DIR).join(format!("kubeadm-restore-{}", host.now().unix_timestamp()));
        Ok(Self { host, snapshot, programs, member: Local::read(host)?, port, server, backup })
    }

    /// Does it. Until the new data is whole, nothing is changed; after that, what was there is kept.
    pub async fn run(&self) -> Result<()> {
        let (host, fresh) = (self.host, self.backup.join("new"));
        host.create_directory(&self.backup, 0o700).context("cannot make a directory for backups")?;
        host.line(&format!("[restore] Reading snapshot {:?}", self.snapshot.display().to_string()));
        tokio::task::block_in_place(|| self.unpack(&fresh))?;
        host.line("[restore] Stopping the control plane of this host");
        let stopped = self.stop().await;
        if let Err(cause) = stopped {
            manifests::COMPONENTS.iter().try_for_each(|name| self.put_back(name))?;
            return fail!("{cause}; the control plane was left as it was");
        }
        self.exchange(&fresh).await.with_context(|| {
            format!("the restore is not complete; manifests and data as they were are in {}", self.backup.display())
        })
    }

    async fn exchange(&self, fresh: &Path) -> Result<()> {
        let host = self.host;
        let old = self.backup.join("data");
        host.create_directory(&old, 0o700).context("cannot make a directory for backups")?;
        let (now, then) = (self.member.data.join("member"), fresh.join("member"));
        tokio::task::block_in_place(|| {
            if host.exists(&now) {
                run(host, "mv", &[&now, &old])?;
            }
            run(host, "mv", &[&then, &self.member.data])
        })?;
        host.line(&format!("[restore] The data that was there is kept in {:?}", old.display().to_string()));
        host.line("[restore] Starting etcd with the data of the snapshot");
        let mut alone = self.member.manifest.clone();
        alone.set_flag("--initial-cluster", &format!("{}={}", self.member.name, self.member.peer_url));
        alone.remove_flag("--initial-cluster-state");
        manifests::write(host, "etcd", &alone.to_yaml()?)?;
        let etcd = self.member.client(host).await?;
        until("etcd", async || etcd.check().await).await?;
        host.line("[restore] Starting the other components");
        manifests::COMPONENTS.iter().filter(|name| **name != "etcd").try_for_each(|name| self.put_back(name))?;
        until("the API server", async || {
            let api = Cluster::load(host, Path::new(ADMIN_CONF), Some(&self.server), INTERVAL).await?;
            api.text_once("/readyz").await.map(drop).map_err(|error| Error::new(crate::client::error_text(&error)))
        })
        .await?;
        // The kubelet knows revisions that may not have been yet.
        tokio::task::block_in_place(|| kubelet::restart(host, self.programs))
    }

    /// Makes a data directory of the snapshot.
    fn unpack(&self, into: &Path) -> Result<()> {
        let Some((tool, ahead)) = self.tool() else {
            return fail!(
                "neither etcdutl nor etcdctl is installed; one of them is needed to read a snapshot (Debian has etcdctl \
                 in its package etcd-client)"
            );
        };
        let (name, peer) = (&self.member.name, &self.member.peer_url);
        let mut words = vec![
            "snapshot".to_owned(),
            "restore".to_owned(),
            self.snapshot.display().to_string(),
            format!("--name={name}"),
            format!("--initial-cluster={name}={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--data-dir={}", into.display()),
        ];
        if ahead {
            words.extend([format!("--bump-revision={AHEAD}"), "--mark-compacted".to_owned()]);
        }
        done(self.host, &Program::new(tool.to_string_lossy(), words).within(DATA))
    }

    /// The program that reads snapshots, and whether it can set revisions ahead.
    fn tool(&self) -> Option<(PathBuf, bool)> {
        let tool = self.host.find_program("etcdutl").or_else(|| self.host.find_program("etcdctl"))?;
        let help = self.host.run(&Program::new(tool.to_string_lossy(), ["snapshot", "restore", "--help"])).ok()?;
        Some((tool, help.stdout.contains("--bump-revision") || help.stderr.contains("--bump-revision")))
    }

    fn kept(&self, name: &str) -> PathBuf {
        self.backup.join(format!("{name}.yaml"))
    }

    /// Takes the manifests away and waits until etcd and the API server are gone.
    async fn stop(&self) -> Result<()> {
        for name in manifests::COMPONENTS.iter().rev() {
            let path = manifests::path(name);
            if self.host.exists(&path) {
                self.host.rename(&path, &self.kept(name)).with_context(|| format!("cannot move {}", path.display()))?;
            }
        }
        until("etcd and the API server to end", async || {
            match [2379, self.port].iter().find(|p| !self.host.port_is_free(**p)) {
                Some(port) => fail!("port {port} is still in use"),
                None => Ok(()),
            }
        })
        .await
    }

    fn put_back(&self, name: &str) -> Result<()> {
        let kept = self.kept(name);
        if !self.host.exists(&kept) {
            return Ok(());
        }
        self.host
            .rename(&kept, &manifests::path(name))
            .with_context(|| format!("cannot put back the manifest of {name}"))
    }
}

/// Tries until it succeeds or time is over.
async fn until(what: &str, attempt: impl AsyncFn() -> Result<()>) -> Result<()> {
    let end = tokio::time::Instant::now() + PODS;
    loop {
        match attempt().await {
            Ok(()) => return Ok(()),
            Err(cause) if tokio::time::Instant::now() > end => {
                return fail!("gave up after {}s waiting for {what}: {cause}", PODS.as_secs());
            }
            Err(_) => tokio::time::sleep(INTERVAL).await,
        }
    }
}

fn run(host: &dyn Host, program: &str, paths: &[&Path]) -> Result<()> {
    done(host, &Program::new(program, paths.iter().map(|p| p.display().to_string())).within(DATA))
}

fn done(host: &dyn Host, program: &Program) -> Result<()> {
    let ended = host.run(program).with_context(|| format!("cannot run {}", program.name))?;
    if ended.success() { Ok(()) } else { fail!("{} failed: {}", program.name, ended.stderr.trim()) }
}
