//! Brings the images of a node into its container runtime.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Image, Purpose, archive, builds_dns, builds_etcd, layer, recipe};
use crate::{
    config::{ClusterConfiguration, ImageSource, NodeRegistration},
    cri::Cri,
    error::{Context, Error, Result, fail},
    host::{Host, Program},
};

/// Attempts for each pull.
const PULLS: u32 = 5;
/// Namespace of containerd that Kubernetes uses.
const NAMESPACE: &str = "k8s.io";

/// Whether an image is there whatever the policy says, or is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Always.
    Always,
    /// When it is absent or, for images made here, when the programs have changed.
    IfNotPresent,
    /// Never.
    Never,
}

impl Policy {
    /// By its name in the configuration.
    pub fn of(node: &NodeRegistration) -> Self {
        match node.image_pull_policy.as_str() {
            "Always" => Self::Always,
            "Never" => Self::Never,
            _ => Self::IfNotPresent,
        }
    }
}

/// The way images come.
pub struct Supply<'a> {
    /// This host.
    pub host: &'a dyn Host,
    /// Its container runtime.
    pub cri: &'a Cri,
    /// The cluster.
    pub cluster: &'a ClusterConfiguration,
    /// Directory of the installed programs.
    pub programs: &'a Path,
    /// When images are brought.
    pub policy: Policy,
}

impl Supply<'_> {
    /// Whether an image is made here.
    pub fn is_built(&self, image: &Image) -> bool {
        match image.purpose {
            Purpose::Dns => builds_dns(self.cluster),
            Purpose::Etcd => builds_etcd(self.cluster),
            _ => self.cluster.image_source() == ImageSource::Programs,
        }
    }

    /// Brings one image.
    pub async fn bring(&self, image: &Image) -> Result<()> {
        if self.policy == Policy::Never {
            return Ok(());
        }
        if self.is_built(image) {
            return self.build(image).await;
        }
        if self.policy == Policy::IfNotPresent && self.cri.image_id(&image.reference).await?.is_some() {
            return Ok(());
        }
        self.pull(&image.reference).await
    }

    async fn pull(&self, reference: &str) -> Result<()> {
        let mut last = None;
        for _ in 0..PULLS {
            match self.cri.pull(reference).await {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::new("no attempt was made")))
    }

    async fn build(&self, image: &Image) -> Result<()> {
        let is_installed = recipe::installed(self.host, image.purpose, self.programs).is_some();
        if matches!(image.purpose, Purpose::Addon(_)) && !is_installed {
            return Ok(());
        }
        let present = self.cri.image_id(&image.reference).await?;
        let own = crate::images::tag(runtime::version::git_version());
        let versioned = !matches!(image.purpose, Purpose::Pause | Purpose::Etcd);
        if versioned && !image.reference.ends_with(&format!(":{own}")) {
            return match present {
                Some(_) => Ok(()),
                None => {
                    fail!("the installed programs are {own}; the image of another version cannot be made from them")
                }
            };
        }
        let recipe = recipe::recipe(self.host, image.purpose, self.programs)?;
        let layer = layer::pack(self.host, &recipe)?;
        let mut references = vec![image.reference.clone()];
        if image.purpose == Purpose::Pause {
            references.extend(self.cri.sandbox_image().await?.filter(|name| *name != image.reference));
        }
        let archive = archive::archive(&layer, &recipe.entrypoint, &references)?;
        drop(layer);
        let mut all_current = self.policy != Policy::Always;
        for reference in &references {
            all_current &= self.cri.image_id(reference).await?.as_deref() == Some(archive.id.as_str());
        }
        if all_current {
            return Ok(());
        }
        if self.cri.name().await? != "containerd" {
            return fail!(
                "images made from the installed programs can only be imported into containerd; use --image-repository \
                 with other container runtimes"
            );
        }
        self.import(&archive.bytes)?;
        self.await_image(&image.reference).await
    }

    /// Imports an archive through containerd's own tool.
    fn import(&self, archive: &[u8]) -> Result<()> {
        let Some(socket) = self.cri.socket() else { return fail!("the container runtime has no socket") };
        let directory = PathBuf::from("/var/tmp");
        self.host.create_directory(&directory, 0o1777).context("cannot make a temporary directory")?;
        let file = directory.join(format!("kubeadm-image-{}.tar", self.host.random_text(8)));
        self.host.write(&file, 0o600, archive).context("cannot write an image archive")?;
        let socket = socket.to_string_lossy().into_owned();
        let path = file.to_string_lossy().into_owned();
        let args = ["--address", &socket, "--namespace", NAMESPACE, "images", "import", &path];
        let ended = self.host.run(&Program::new("ctr", args).within(Duration::from_secs(300)));
        self.host.remove(&file).context("cannot remove an image archive")?;
        let ended = ended.context("cannot run ctr")?;
        if !ended.success() {
            return fail!("ctr images import: {}", ended.stderr.trim());
        }
        Ok(())
    }

    /// The runtime takes notice of an import a moment later.
    async fn await_image(&self, reference: &str) -> Result<()> {
        for _ in 0..50 {
            if self.cri.image_id(reference).await?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        fail!("the container runtime does not know image {reference} after its import")
    }
}
