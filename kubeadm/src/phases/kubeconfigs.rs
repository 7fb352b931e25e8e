//! kubeconfig files of `/etc/kubernetes`.

use std::path::Path;

use time::OffsetDateTime;

use super::{certs, init::Init};
use crate::{
    config::{ApiEndpoint, ClusterConfiguration},
    constants::CLUSTER_ADMINS,
    error::{Context, Result, fail},
    host::Host,
    kubeconfig::{self, Contents},
    pki::{
        Key, Subject,
        files::{certificate_path, read_authority, read_certificate},
        key::pem,
    },
};

/// Files in the order they are made.
pub const FILES: [&str; 5] =
    ["admin.conf", "super-admin.conf", "kubelet.conf", "controller-manager.conf", "scheduler.conf"];

/// What the files are made from.
pub struct Inputs<'a> {
    /// This host.
    pub host: &'a dyn Host,
    /// The cluster.
    pub cluster: &'a ClusterConfiguration,
    /// Where the API server of this host listens.
    pub endpoint: &'a ApiEndpoint,
    /// Name of this node.
    pub node: &'a str,
    /// When this run began.
    pub started: OffsetDateTime,
    /// Directory of the files.
    pub directory: &'a Path,
}

impl Inputs<'_> {
    /// Server and user of a file.
    pub fn row(&self, file: &str) -> Result<(String, Subject)> {
        let user = |name: &str, groups: &[&str]| Subject {
            common_name: name.to_owned(),
            organizations: groups.iter().map(|g| (*g).to_owned()).collect(),
        };
        let (shared, local) = (self.cluster.endpoint(self.endpoint), self.endpoint.url());
        Ok(match file {
            "admin.conf" => (shared, user("kubernetes-admin", &[CLUSTER_ADMINS])),
            "super-admin.conf" => (shared, user("kubernetes-super-admin", &["system:masters"])),
            "kubelet.conf" => (local, user(&format!("system:node:{}", self.node), &["system:nodes"])),
            "controller-manager.conf" => (local, user("system:kube-controller-manager", &[])),
            "scheduler.conf" => (local, user("system:kube-scheduler", &[])),
            other => return fail!("unknown kubeconfig file {other:?}"),
        })
    }

    /// Makes a file that is not there.
    pub fn ensure(&self, file: &str) -> Result<()> {
        let path = self.directory.join(file);
        let pki = Path::new(&self.cluster.certificates_dir);
        let (server, subject) = self.row(file)?;
        let ca = read_certificate(self.host, &certificate_path(pki, "ca"))
            .context("couldn't create a kubeconfig; the CA files couldn't be loaded")?;
        if self.host.exists(&path) {
            kubeconfig::check_existing(self.host, &path, &ca, &server)?;
            let shown = path.display();
            if certs::is_external_ca(self.host, pki, "ca") {
                self.host.line(&format!("[kubeconfig] External CA mode: Using user provided {shown}"));
            } else {
                self.host.line(&format!("[kubeconfig] Using existing kubeconfig file: {:?}", shown.to_string()));
            }
            return Ok(());
        }
        if certs::is_external_ca(self.host, pki, "ca") {
            return fail!("the {} file does not exists or it is not valid", path.display());
        }
        let authority = read_authority(self.host, pki, "ca")?;
        let text = self.text(&authority, &server, &subject, &pem("CERTIFICATE", &ca))?;
        self.host.line(&format!("[kubeconfig] Writing {file:?} kubeconfig file"));
        self.host
            .put(&path, 0o600, text.as_bytes())
            .with_context(|| format!("failed to save kubeconfig file {:?} on disk", path.display().to_string()))
    }

    /// A file with a key but no certificate yet; the authority is put in when it is known here.
    pub fn without_certificate(&self, server: &str, subject: &Subject, key: &Key) -> Result<String> {
        let path = certificate_path(Path::new(&self.cluster.certificates_dir), "ca");
        let ca = if self.host.exists(&path) {
            pem("CERTIFICATE", &read_certificate(self.host, &path)?)
        } else {
            String::new()
        };
        let user = &subject.common_name;
        let credentials = kubeconfig::Credentials::Certificate(String::new(), key.to_pem()?);
        let contents = Contents { cluster: &self.cluster.cluster_name, server, ca: &ca, user, credentials };
        let mut file = kubeconfig::Kubeconfig(contents.to_value());
        file.set("users", "user", |user| {
            user.remove("client-certificate-data");
        });
        if ca.is_empty() {
            file.set("clusters", "cluster", |cluster| {
                cluster.remove("certificate-authority-data");
            });
        }
        crate::yaml::to_yaml(&file.0)
    }

    fn text(&self, authority: &crate::pki::Authority, server: &str, subject: &Subject, ca: &str) -> Result<String> {
        let key = Key::generate(self.cluster.algorithm())?;
        let end = certs::leaf_end(self.cluster, self.started);
        let user = &subject.common_name;
        let credentials = kubeconfig::client_credentials(self.host, authority, key, user, &subject.organizations, end)?;
        Contents { cluster: &self.cluster.cluster_name, server, ca, user, credentials }.to_yaml()
    }
}

pub(super) async fn announce(init: &mut Init) -> Result<()> {
    let directory = init.kubeconfig_dir.display().to_string();
    init.host.line(&format!("[kubeconfig] Using kubeconfig folder {directory:?}"));
    Ok(())
}

pub(super) async fn one(init: &mut Init, file: &'static str) -> Result<()> {
    let inputs = Inputs {
        host: &*init.host,
        cluster: &init.config.cluster,
        endpoint: &init.config.init.local_api_endpoint,
        node: init.node(),
        started: init.started,
        directory: &init.kubeconfig_dir,
    };
    tokio::task::block_in_place(|| inputs.ensure(file))
}
