//! New manifests of the control plane, one after the other; when one does not come up, the old ones are put back.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::Upgrade;
use crate::{
    audit,
    client::Cluster,
    config::{Period, Timeouts},
    constants::{KUBERNETES_DIR, TMP_DIR},
    error::{Context, Error, Result, fail},
    etcd::Etcd,
    host::{Host, Program},
    manifests::{self, control_plane, etcd as etcd_manifest},
    mirror::Mirrors,
    patches::Patches,
    pki::renew::{self, Outcome, Place, renewables},
    yaml,
};

/// Longest time for a copy of etcd's data.
const COPY: Duration = Duration::from_secs(600);
/// Attempts to see a restored etcd again, and the time between them.
const ETCD_ATTEMPTS: u32 = 10;
const ETCD_PORT: u16 = 2379;
const ETCD_PAUSE: Duration = Duration::from_secs(15);

/// Directories of one upgrade.
struct Places {
    fresh: PathBuf,
    backup: PathBuf,
    etcd_backup: PathBuf,
}

impl Places {
    fn of(upgrade: &Upgrade) -> Self {
        let stamp = stamp(upgrade);
        let tmp = Path::new(TMP_DIR);
        Self {
            fresh: tmp.join(format!("kubeadm-upgraded-manifests{}", upgrade.init.host.random_text(9))),
            backup: tmp.join(format!("kubeadm-backup-manifests-{stamp}")),
            etcd_backup: tmp.join(format!("kubeadm-backup-etcd-{stamp}")),
        }
    }
}

/// `YYYY-MM-DD-hh-mm-ss` of the start of this run.
pub(super) fn stamp(upgrade: &Upgrade) -> String {
    let at = upgrade.init.started;
    let (month, day) = (u8::from(at.month()), at.day());
    format!("{}-{month:02}-{day:02}-{:02}-{:02}-{:02}", at.year(), at.hour(), at.minute(), at.second())
}

/// The new manifest of a component.
pub(super) fn manifest(upgrade: &Upgrade, name: &str) -> Result<Value> {
    let init = &upgrade.init;
    let endpoint = &init.config.init.local_api_endpoint;
    let pod = if name == "etcd" {
        let inputs = etcd_manifest::Inputs {
            host: &*init.host,
            cluster: init.cluster(),
            endpoint,
            node: init.node(),
            members: &[],
            timeouts: init.timeouts(),
        };
        inputs.static_pod()
    } else {
        let inputs =
            control_plane::Inputs { host: &*init.host, cluster: init.cluster(), endpoint, timeouts: init.timeouts() };
        inputs.component(name)?
    };
    let patched = |patches: &Patches| patches.apply(&*init.host, pod.name, pod.to_value());
    init.patches.as_ref().map_or_else(|| Ok(pod.to_value()), patched)
}

/// One run of the phase.
struct Swap<'a> {
    upgrade: &'a Upgrade,
    api: &'a Cluster,
    places: Places,
    moved: Vec<&'static str>,
}

pub(super) async fn run(upgrade: &mut Upgrade) -> Result<()> {
    let host = upgrade.init.host.clone();
    let patience = Timeouts::manifests(upgrade.init.timeouts());
    let version = upgrade.init.cluster().kubernetes_version.clone();
    upgrade.init.patches()?;
    if upgrade.init.dry_run {
        host.line(&format!("[dryrun] Would upgrade your static Pod-hosted control plane to version {version:?}"));
        return Ok(());
    }
    host.line(&format!(
        "[upgrade/control-plane] Upgrading your static Pod-hosted control plane to version {version:?} (timeout: {})...",
        Period(patience)
    ));
    let api = upgrade.init.api().await?;
    audit::ensure(&*host, &upgrade.init.pki())?;
    let places = Places::of(upgrade);
    host.line(&format!(
        "[upgrade/staticpods] Writing new Static Pod manifests to {:?}",
        places.fresh.display().to_string()
    ));
    let fresh = places.fresh.clone();
    Swap { upgrade, api: &api, places, moved: Vec::new() }.all(patience).await?;
    renew_for(upgrade, "admin")?;
    host.remove(&fresh).context("cannot remove the directory of new manifests")?;
    host.line("[upgrade/control-plane] The control plane instance for this node was successfully upgraded!");
    Ok(())
}

/// Renews the certificates of a component.
fn renew_for(upgrade: &Upgrade, component: &str) -> Result<()> {
    if !upgrade.options.certificate_renewal {
        return Ok(());
    }
    let init = &upgrade.init;
    let pki = init.pki();
    let place = Place {
        host: &*init.host,
        cluster: init.cluster(),
        pki: &pki,
        kubeconfigs: Path::new(KUBERNETES_DIR),
        started: init.started,
    };
    for one in renewables(init.cluster()).iter().filter(|one| renew::of_component(component).contains(&one.name)) {
        let outcome = tokio::task::block_in_place(|| place.renew(one))
            .with_context(|| format!("failed to renew certificates for component {component:?}"))?;
        init.host.line(&match outcome {
            Outcome::Renewed => format!("[upgrade/staticpods] Renewing {} certificate", one.name),
            Outcome::Missing => continue,
            Outcome::External(ca) => {
                format!("[upgrade/staticpods] External {ca} detected, {} certificate can't be renewed", one.name)
            }
        });
    }
    Ok(())
}

impl Swap<'_> {
    fn host(&self) -> &dyn Host {
        &*self.upgrade.init.host
    }

    async fn all(&mut self, patience: Duration) -> Result<()> {
        for name in manifests::COMPONENTS {
            let is_etcd = name == "etcd";
            if is_etcd && !(self.upgrade.init.cluster().has_local_etcd() && self.upgrade.options.etcd) {
                continue;
            }
            let outcome = match is_etcd {
                true => self.etcd(patience).await,
                false => self.component(name, patience).await,
            };
            if let Err(cause) = outcome {
                return self.recover(is_etcd, &cause).await;
            }
        }
        Ok(())
    }

    /// etcd keeps a copy of its data until it runs again.
    async fn etcd(&mut self, patience: Duration) -> Result<()> {
        let data = self.upgrade.init.cluster().local_etcd().data_dir;
        self.host()
            .create_directory(&self.places.etcd_backup, 0o700)
            .context("cannot make a directory for a backup")?;
        copy(self.host(), Path::new(&data), &self.places.etcd_backup).context("failed to back up etcd data")?;
        self.component("etcd", patience).await?;
        let etcd = Etcd::of_cluster(self.host(), self.api, self.upgrade.init.cluster()).await?;
        self.host().line("[upgrade/etcd] Waiting for etcd to become available");
        etcd.check().await.context("fatal error when trying to upgrade the etcd cluster")
    }

    async fn component(&mut self, name: &'static str, patience: Duration) -> Result<()> {
        let host = self.upgrade.init.host.clone();
        host.line(&format!("[upgrade/staticpods] Preparing for {name:?} upgrade"));
        let fresh = manifest(self.upgrade, name)?;
        let path = manifests::path(name);
        let old = host.read_text(&path).with_context(|| format!("failed to read manifest for {name:?}"))?;
        if yaml::parse(&old)? == fresh {
            host.line(&format!("[upgrade/staticpods] Current and new manifests of {name} are equal, skipping upgrade"));
            return Ok(());
        }
        renew_for(self.upgrade, name)?;
        let mirrors = Mirrors { api: self.api, node: self.upgrade.init.node() };
        let hash = mirrors.hash(name).await?;
        let written = self.places.fresh.join(format!("{name}.yaml"));
        let backup = self.places.backup.join(format!("{name}.yaml"));
        host.create_directory(&self.places.fresh, 0o700).context("cannot make a directory for manifests")?;
        host.create_directory(&self.places.backup, 0o700).context("cannot make a directory for backups")?;
        host.write(&written, 0o600, yaml::to_yaml(&fresh)?.as_bytes()).context("cannot write a manifest")?;
        host.rename(&path, &backup).context("cannot back up a manifest")?;
        self.moved.push(name);
        host.rename(&written, &path).context("cannot move a manifest")?;
        host.line(&format!(
            "[upgrade/staticpods] Moving new manifest to {:?} and backing up old manifest to {:?}",
            path.display().to_string(),
            backup.display().to_string()
        ));
        host.line("[upgrade/staticpods] Waiting for the kubelet to restart the component");
        host.line(&format!("[upgrade/staticpods] This can take up to {}", Period(patience)));
        mirrors.await_change(name, &hash, patience).await?;
        host.line(&format!("[upgrade/staticpods] Component {name:?} upgraded successfully!"));
        Ok(())
    }

    /// Puts the old manifests back. etcd's stays unless etcd is what failed.
    async fn recover(&self, etcd_failed: bool, cause: &Error) -> Result<()> {
        let host = self.host();
        let mut errors = vec![cause.to_string()];
        if etcd_failed && self.moved.contains(&"etcd") {
            errors.extend(self.restore_etcd().await.err().map(|e| e.to_string()));
        }
        for name in self.moved.iter().filter(|name| **name != "etcd") {
            errors.extend(self.put_back(host, name).err().map(|e| e.to_string()));
        }
        fail!(
            "couldn't upgrade control plane. kubeadm has tried to recover everything into the earlier state. Errors faced: \
             [{}]",
            errors.join(", ")
        )
    }

    fn put_back(&self, host: &dyn Host, name: &str) -> Result<()> {
        let backup = self.places.backup.join(format!("{name}.yaml"));
        host.rename(&backup, &manifests::path(name)).with_context(|| format!("cannot put back the manifest of {name}"))
    }

    async fn restore_etcd(&self) -> Result<()> {
        let host = self.host();
        let data = self.upgrade.init.cluster().local_etcd().data_dir;
        host.line("[upgrade/etcd] Failed to upgrade etcd, restoring its data");
        // The new etcd has to be gone before its files change below it.
        host.remove(&manifests::path("etcd")).context("cannot remove etcd's manifest")?;
        for _ in 0..ETCD_ATTEMPTS {
            if host.port_is_free(ETCD_PORT) {
                break;
            }
            tokio::time::sleep(ETCD_PAUSE).await;
        }
        host.empty(Path::new(&data)).context("cannot empty etcd's directory")?;
        copy(host, &self.places.etcd_backup, Path::new(&data)).context("cannot restore etcd's data")?;
        self.put_back(host, "etcd")?;
        let mut last = Error::new("no attempt was made");
        for _ in 0..ETCD_ATTEMPTS {
            let etcd = Etcd::of_cluster(host, self.api, self.upgrade.init.cluster()).await;
            match async { etcd?.check().await }.await {
                Ok(()) => return Ok(()),
                Err(error) => last = error,
            }
            tokio::time::sleep(ETCD_PAUSE).await;
        }
        Err(last)
    }
}

/// Copies what a directory holds into another one, with owners and modes.
fn copy(host: &dyn Host, from: &Path, to: &Path) -> Result<()> {
    let words = ["-a".to_owned(), format!("{}/.", from.display()), to.display().to_string()];
    let ended = host.run(&Program::new("cp", words).within(COPY)).context("cannot run cp")?;
    if ended.success() { Ok(()) } else { fail!("{}", ended.stderr.trim()) }
}
