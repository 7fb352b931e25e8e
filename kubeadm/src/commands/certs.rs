//! `kubeadm certs`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{
    no_subcommand,
    output::{self, Format, remaining, table},
    read_config,
};
use crate::{
    cli::{CertsAction, CertsFlags},
    client::Cluster,
    config::{
        ClusterConfiguration,
        defaults::{self, Detect, GivenInit},
        documents::Strictness,
    },
    constants::{DEFAULT_CRI_SOCKET, KUBERNETES_DIR, PKI_DIR},
    error::{Context, Error, Result, fail},
    fetch,
    host::Host,
    phases::{certs::Inputs, kubeconfigs, upload_certs},
    pki::{
        Key, Names,
        files::{key_path, write_key},
        issue::{self, Facts},
        renew::{Outcome, Place, Renewable, authorities, renewables},
        table::{Role, TABLE},
    },
};

pub(super) async fn run(host: Arc<dyn Host>, action: CertsAction, command: &mut clap::Command) -> Result<()> {
    let host = &*host;
    match action {
        CertsAction::CertificateKey => {
            host.line(&upload_certs::new_key(host));
            Ok(())
        }
        CertsAction::Renew { name: None, .. } => no_subcommand(host, command, &["certs", "renew"]),
        CertsAction::Renew { name: Some(name), of } => renew(host, &name, &of).await,
        CertsAction::CheckExpiration { of, output } => check(host, &of, Format::parse(&output)?).await,
        CertsAction::GenerateCsr { cert_dir, config, kubeconfig_dir } => {
            generate(host, &cert_dir, config, &kubeconfig_dir).await
        }
    }
}

/// The cluster's configuration: from the file, from the cluster, or the default.
async fn cluster(host: &dyn Host, flags: &CertsFlags, prefix: &str) -> Result<ClusterConfiguration> {
    let mut found = match &flags.config {
        Some(path) => GivenInit::read(host, &read_config(host, path)?, Strictness::Warn)?.cluster,
        None => {
            let path = fetch::admin_kubeconfig(host, flags.kubeconfig.as_deref());
            let read = async {
                let api = Cluster::load(host, &path, None, Duration::from_secs(5)).await?;
                fetch::announce(host, prefix);
                fetch::cluster(host, &api).await
            };
            match read.await {
                Ok(cluster) => cluster,
                Err(_) => {
                    host.line(&format!(
                        "[{prefix}] Error reading configuration from the Cluster. Falling back to default configuration"
                    ));
                    ClusterConfiguration::default()
                }
            }
        }
    };
    defaults::cluster_static(&mut found);
    if flags.cert_dir != PKI_DIR {
        found.certificates_dir.clone_from(&flags.cert_dir);
    }
    Ok(found)
}

async fn renew(host: &dyn Host, name: &str, flags: &CertsFlags) -> Result<()> {
    let found = cluster(host, flags, "renew").await?;
    host.line("");
    let place = Place {
        host,
        cluster: &found,
        pki: Path::new(&found.certificates_dir),
        kubeconfigs: Path::new(KUBERNETES_DIR),
        started: host.now(),
    };
    let all = renewables(&found);
    let chosen: Vec<&Renewable> = if name == "all" {
        all.iter().collect()
    } else {
        let one = all.iter().find(|one| one.name == name);
        vec![one.ok_or_else(|| Error::new(format!("unknown certificate {name:?}")))?]
    };
    for one in chosen {
        let outcome = tokio::task::block_in_place(|| place.renew(one))
            .with_context(|| format!("failed to renew certificate {}", one.name))?;
        host.line(&match outcome {
            Outcome::Renewed => format!("{} renewed", one.long_name),
            Outcome::Missing => format!("MISSING! {}", one.long_name),
            Outcome::External(ca) => format!("Detected external {ca}, {} can't be renewed", one.long_name),
        });
    }
    if name == "all" {
        host.line(
            "\nDone renewing certificates. You must restart the kube-apiserver, kube-controller-manager, kube-scheduler and \
             etcd, so that they can use the new certificates.",
        );
    }
    Ok(())
}

/// One line of the report.
struct Expiration {
    name: &'static str,
    facts: Option<Facts>,
    authority: Option<&'static str>,
    external: bool,
}

impl Expiration {
    fn seconds(&self, now: OffsetDateTime) -> i64 {
        self.facts.as_ref().map_or(0, |facts| (facts.lifetime.not_after - now).whole_seconds())
    }

    fn row(&self, now: OffsetDateTime) -> Vec<String> {
        let Some(facts) = &self.facts else {
            let mut row = vec![format!("!MISSING! {}", self.name), String::new(), String::new()];
            row.extend(self.authority.map(|_| String::new()));
            row.push(String::new());
            return row;
        };
        let mut row = vec![self.name.to_owned(), date(facts.lifetime.not_after), remaining(self.seconds(now))];
        row.extend(self.authority.map(ToOwned::to_owned));
        row.push(if self.external { "yes" } else { "no" }.to_owned());
        row
    }

    fn object(&self, now: OffsetDateTime) -> Value {
        let mut value = json!({"name": self.name, "externallyManaged": self.external});
        match &self.facts {
            Some(facts) => {
                value["expirationDate"] = machinery::time::format(facts.lifetime.not_after).into();
                value["residualTime"] = self.seconds(now).into();
            }
            None => {
                value["expirationDate"] = Value::Null;
                value["residualTime"] = 0.into();
                value["missing"] = true.into();
            }
        }
        if let Some(authority) = self.authority {
            value["caName"] = authority.into();
        }
        value
    }
}

/// `Jan 02, 2006 15:04 UTC`.
fn date(at: OffsetDateTime) -> String {
    let month = at.month().to_string();
    format!("{} {:02}, {} {:02}:{:02} UTC", &month[..3], at.day(), at.year(), at.hour(), at.minute())
}

async fn check(host: &dyn Host, flags: &CertsFlags, format: Format) -> Result<()> {
    let found = cluster(host, flags, "check-expiration").await?;
    let pki = Path::new(&found.certificates_dir);
    let now = host.now();
    let place = Place { host, cluster: &found, pki, kubeconfigs: Path::new(KUBERNETES_DIR), started: now };
    let external =
        |name: &str| authorities(&found).iter().find(|row| row.name == name).is_some_and(|row| place.is_external(row));
    let mut leaves = Vec::new();
    for one in renewables(&found) {
        let facts = place.facts(&one)?;
        leaves.push(Expiration {
            name: one.name,
            facts,
            authority: Some(one.authority),
            external: external(one.authority),
        });
    }
    let mut roots = Vec::new();
    for row in authorities(&found) {
        let facts = place.facts_of_authority(row)?;
        roots.push(Expiration { name: row.name, facts, authority: None, external: place.is_external(row) });
    }
    if format != Format::Text {
        let object = json!({
            "apiVersion": output::API_VERSION,
            "kind": "CertificateExpirationInfo",
            "certificates": leaves.iter().map(|e| e.object(now)).collect::<Vec<_>>(),
            "certificateAuthorities": roots.iter().map(|e| e.object(now)).collect::<Vec<_>>(),
        });
        host.say(&format.render(&object)?);
        return Ok(());
    }
    let rows = |header: &[&str], entries: &[Expiration]| {
        let mut rows = vec![header.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()];
        rows.extend(entries.iter().map(|e| e.row(now)));
        table(&rows, 10)
    };
    host.line("");
    host.say(&rows(
        &["CERTIFICATE", "EXPIRES", "RESIDUAL TIME", "CERTIFICATE AUTHORITY", "EXTERNALLY MANAGED"],
        &leaves,
    ));
    host.line("");
    host.say(&rows(&["CERTIFICATE AUTHORITY", "EXPIRES", "RESIDUAL TIME", "EXTERNALLY MANAGED"], &roots));
    Ok(())
}

/// Keys and signing requests for an authority that is kept elsewhere.
async fn generate(host: &dyn Host, cert_dir: &str, config: Option<PathBuf>, kubeconfig_dir: &Path) -> Result<()> {
    let mut given = match config {
        Some(path) => GivenInit::read(host, &read_config(host, &path)?, Strictness::Warn)?,
        None => GivenInit::default(),
    };
    if given.init.node_registration.cri_socket.is_empty() {
        given.init.node_registration.cri_socket = DEFAULT_CRI_SOCKET.into();
    }
    if given.cluster.certificates_dir.is_empty() {
        given.cluster.certificates_dir = cert_dir.to_owned();
    }
    let done = defaults::complete(host, given, Detect::Host).await?;
    let directory = Path::new(&done.cluster.certificates_dir);
    host.line(&format!("generating keys and CSRs in {}", directory.display()));
    let inputs = Inputs {
        host,
        cluster: &done.cluster,
        endpoint: &done.init.local_api_endpoint,
        node: &done.init.node_registration.name,
        started: host.now(),
    };
    for row in &TABLE {
        let Role::Leaf { names, .. } = row.role else { continue };
        if row.is_of_etcd() && !done.cluster.has_local_etcd() {
            continue;
        }
        let request = directory.join(format!("{}.csr", row.file));
        let key_file = key_path(directory, row.file);
        refuse_present(host, &[&key_file, &request])?;
        let key = tokio::task::block_in_place(|| Key::generate(done.cluster.algorithm()))?;
        let text = issue::request(&key, &inputs.subject(row), &inputs.names(names)?)?;
        write_key(host, &key_file, &key)?;
        host.put(&request, 0o600, text.as_bytes()).context("cannot write a certificate request")?;
        host.line(&format!("  {}", row.name));
    }
    let files = kubeconfigs::Inputs {
        host,
        cluster: &done.cluster,
        endpoint: &done.init.local_api_endpoint,
        node: &done.init.node_registration.name,
        started: host.now(),
        directory: kubeconfig_dir,
    };
    for file in ["admin.conf", "controller-manager.conf", "kubelet.conf", "scheduler.conf"] {
        let (path, request) = (kubeconfig_dir.join(file), kubeconfig_dir.join(format!("{file}.csr")));
        refuse_present(host, &[&path, &request])?;
        let (server, subject) = files.row(file)?;
        let key = tokio::task::block_in_place(|| Key::generate(done.cluster.algorithm()))?;
        let text = issue::request(&key, &subject, &Names::default())?;
        let content = files.without_certificate(&server, &subject, &key)?;
        host.put(&path, 0o600, content.as_bytes()).context("cannot write a kubeconfig file")?;
        host.put(&request, 0o600, text.as_bytes()).context("cannot write a certificate request")?;
        host.line(&format!("  {file}"));
    }
    Ok(())
}

fn refuse_present(host: &dyn Host, paths: &[&Path]) -> Result<()> {
    match paths.iter().find(|path| host.exists(path)) {
        Some(path) => fail!("{} already exists", path.display()),
        None => Ok(()),
    }
}
