//! New certificates in the place of old ones.

use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use super::{
    Key, Lifetime,
    files::{certificate_path, key_path, read_authority, read_certificate, write_pair},
    issue::{self, Facts},
    table::{Role, Row, TABLE},
};
use crate::{
    config::ClusterConfiguration,
    error::{Context, Error, Result},
    host::Host,
    kubeconfig::{self, Credentials, Kubeconfig},
    yaml,
};

/// kubeconfig files with certificates that are renewed, and what they are for.
const FILES: [(&str, &str); 4] = [
    ("admin.conf", "certificate embedded in the kubeconfig file for the admin to use and for kubeadm itself"),
    ("controller-manager.conf", "certificate embedded in the kubeconfig file for the controller manager to use"),
    ("scheduler.conf", "certificate embedded in the kubeconfig file for the scheduler manager to use"),
    ("super-admin.conf", "certificate embedded in the kubeconfig file for the super-admin"),
];

/// A certificate that can be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewable {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub long_name: &'static str,
    /// Name of the authority that signs it.
    pub authority: &'static str,
    row: Option<&'static Row>,
}

/// All of them, sorted by name.
pub fn renewables(cluster: &ClusterConfiguration) -> Vec<Renewable> {
    let of_row = |row: &'static Row| match row.role {
        Role::Leaf { authority, .. } if cluster.has_local_etcd() || !row.is_of_etcd() => {
            Some(Renewable { name: row.name, long_name: row.long_name, authority, row: Some(row) })
        }
        _ => None,
    };
    let files = FILES.iter().map(|(name, long_name)| Renewable { name, long_name, authority: "ca", row: None });
    let mut all: Vec<_> = TABLE.iter().filter_map(of_row).chain(files).collect();
    all.sort_by_key(|one| one.name);
    all
}

/// Names of the certificates that are renewed with a component; those of administrators belong to none.
pub fn of_component(component: &str) -> &'static [&'static str] {
    match component {
        "etcd" => &["etcd-server", "etcd-peer", "etcd-healthcheck-client"],
        "kube-apiserver" => &["apiserver", "apiserver-kubelet-client", "front-proxy-client", "apiserver-etcd-client"],
        "kube-controller-manager" => &["controller-manager.conf"],
        "kube-scheduler" => &["scheduler.conf"],
        _ => &["admin.conf", "super-admin.conf"],
    }
}

/// The authorities.
pub fn authorities(cluster: &ClusterConfiguration) -> Vec<&'static Row> {
    let mut all: Vec<_> = TABLE
        .iter()
        .filter(|row| row.role == Role::Authority && (cluster.has_local_etcd() || !row.is_of_etcd()))
        .collect();
    all.sort_by_key(|row| row.name);
    all
}

/// Where certificates are, and until when new ones are good.
pub struct Place<'a> {
    /// This host.
    pub host: &'a dyn Host,
    /// The cluster.
    pub cluster: &'a ClusterConfiguration,
    /// Directory of certificates.
    pub pki: &'a Path,
    /// Directory of kubeconfig files.
    pub kubeconfigs: &'a Path,
    /// When this run began.
    pub started: OffsetDateTime,
}

/// What happened to a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is a new one.
    Renewed,
    /// There was none.
    Missing,
    /// Its authority is kept elsewhere.
    External(&'static str),
}

impl Place<'_> {
    /// What is known of an authority; `None` when it is not there.
    pub fn facts_of_authority(&self, row: &Row) -> Result<Option<Facts>> {
        let path = certificate_path(self.pki, row.file);
        match self.host.exists(&path) {
            true => Ok(Some(issue::facts(&read_certificate(self.host, &path)?)?)),
            false => Ok(None),
        }
    }

    fn file(&self, one: &Renewable) -> PathBuf {
        match one.row {
            Some(row) => certificate_path(self.pki, row.file),
            None => self.kubeconfigs.join(one.name),
        }
    }

    /// What is known of a certificate; `None` when it is not there.
    pub fn facts(&self, one: &Renewable) -> Result<Option<Facts>> {
        let path = self.file(one);
        if !self.host.exists(&path) {
            return Ok(None);
        }
        match one.row {
            Some(_) => Ok(Some(issue::facts(&read_certificate(self.host, &path)?)?)),
            None => Ok(Some(kubeconfig::certificate_facts(self.host, &path)?)),
        }
    }

    /// Whether the key of an authority is kept elsewhere.
    pub fn is_external(&self, authority: &Row) -> bool {
        !self.host.exists(&key_path(self.pki, authority.file))
    }

    /// Makes a new certificate and key with the subject, names and usage of the old one.
    pub fn renew(&self, one: &Renewable) -> Result<Outcome> {
        let Some(old) = self.facts(one)? else { return Ok(Outcome::Missing) };
        let Some(authority) = Row::named(one.authority) else { return Err(Error::new("unknown authority")) };
        if self.is_external(authority) {
            return Ok(Outcome::External(authority.file));
        }
        let signer = read_authority(self.host, self.pki, authority.file)?;
        let key = Key::generate(self.cluster.algorithm())?;
        let not_after = crate::phases::certs::leaf_end(self.cluster, self.started);
        match one.row {
            Some(row) => {
                let lifetime = Lifetime { not_before: self.started - time::Duration::minutes(5), not_after };
                let usage = old.usage.unwrap_or(issue::Usage::Client);
                let pair = signer.sign(self.host, key, &old.subject, usage, &old.names, lifetime)?;
                write_pair(self.host, self.pki, row.file, &pair)?;
            }
            None => {
                let path = self.file(one);
                let groups = &old.subject.organizations;
                let credentials = kubeconfig::client_credentials(
                    self.host,
                    &signer,
                    key,
                    &old.subject.common_name,
                    groups,
                    not_after,
                )?;
                self.replace(&path, &signer.pem(), &credentials)?;
            }
        }
        Ok(Outcome::Renewed)
    }

    /// Puts a new certificate, and the authority, into a kubeconfig file.
    fn replace(&self, path: &Path, ca: &str, credentials: &Credentials) -> Result<()> {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let Credentials::Certificate(certificate, key) = credentials else { return Ok(()) };
        let mut file = Kubeconfig::load(self.host, path)?;
        file.set("clusters", "cluster", |cluster| {
            cluster.insert("certificate-authority-data".into(), STANDARD.encode(ca).into());
        });
        file.set("users", "user", |user| {
            user.insert("client-certificate-data".into(), STANDARD.encode(certificate).into());
            user.insert("client-key-data".into(), STANDARD.encode(key).into());
        });
        self.host
            .put(path, 0o600, yaml::to_yaml(&file.0)?.as_bytes())
            .with_context(|| format!("failed to write {}", path.display()))
    }
}
