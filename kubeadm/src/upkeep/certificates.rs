//! Certificates that end soon are renewed, and what uses them is started anew.

use std::{path::Path, sync::Arc, time::Duration};

use time::OffsetDateTime;

use super::Upkeep;
use crate::{
    client::Cluster,
    config::ClusterConfiguration,
    constants::KUBERNETES_DIR,
    error::{Context, Error, Result},
    etcd::local::Local,
    host::Host,
    manifests::{self, COMPONENTS, present::Present},
    mirror::Mirrors,
    pki::{
        Lifetime,
        renew::{Outcome, Place, Renewable, authorities, of_component, renewables},
    },
};

/// The annotation that makes a manifest another one.
const RENEWED: &str = "kubeadm.kubernetes.io/certificates-renewed";
/// Time for a component to come back.
const RESTART: Duration = Duration::from_secs(300);
/// An authority that has less than this left is warned of: all that it signed has to be exchanged with it.
const AUTHORITY: time::Duration = time::Duration::days(180);
/// Without the API, only what has less than this left is renewed: others may be at work.
const LAST: time::Duration = time::Duration::hours(12);

/// Whether a certificate is to be renewed when `percent` of its life is left.
pub(super) fn is_due(life: &Lifetime, now: OffsetDateTime, percent: u32) -> bool {
    let (whole, left) = (life.not_after - life.not_before, life.not_after - now);
    left.whole_seconds() <= whole.whole_seconds().saturating_mul(i64::from(percent)) / 100
}

impl Upkeep {
    /// One round. `api` is `None` when the cluster cannot be reached.
    pub(super) async fn certificates(&mut self, api: Option<&Cluster>, cluster: &ClusterConfiguration) -> Result<()> {
        let host = Arc::clone(&self.host);
        let now = host.now();
        let pki = Path::new(&cluster.certificates_dir);
        let place = Place { host: &*host, cluster, pki, kubeconfigs: Path::new(KUBERNETES_DIR), started: now };
        self.authorities(api, &place, cluster).await?;
        let mut due = Vec::new();
        for one in renewables(cluster) {
            let Some(facts) = place.facts(&one)? else { continue };
            let end = facts.lifetime.not_after;
            self.metrics.ends(one.name, end);
            let is_last = end - now < LAST;
            if is_last || (api.is_some() && is_due(&facts.lifetime, now, self.settings.renew_at)) {
                due.push((one, end));
            }
        }
        for component in COMPONENTS.into_iter().chain(["administrators"]) {
            let of_it: Vec<_> = due.iter().filter(|(one, _)| of_component(component).contains(&one.name)).collect();
            if !of_it.is_empty() {
                self.renew(api, &place, component, &of_it).await?;
            }
        }
        Ok(())
    }

    async fn authorities(
        &mut self,
        api: Option<&Cluster>,
        place: &Place<'_>,
        cluster: &ClusterConfiguration,
    ) -> Result<()> {
        for row in authorities(cluster) {
            let Some(facts) = place.facts_of_authority(row)? else { continue };
            let end = facts.lifetime.not_after;
            self.metrics.ends(row.name, end);
            if end - place.started < AUTHORITY {
                let message = format!("Certificate authority {} ends at {}", row.name, machinery::time::format(end));
                self.tell(api, "Warning", "CertificateAuthorityExpiring", &message).await;
            }
        }
        Ok(())
    }

    /// Renews certificates of a component and starts it anew.
    async fn renew(
        &mut self,
        api: Option<&Cluster>,
        place: &Place<'_>,
        component: &str,
        due: &[&(Renewable, OffsetDateTime)],
    ) -> Result<()> {
        let mut renewed = Vec::new();
        for (one, end) in due {
            let outcome = tokio::task::block_in_place(|| place.renew(one))
                .with_context(|| format!("failed to renew certificate {}", one.name))?;
            match outcome {
                Outcome::Renewed => {
                    renewed.push(one.name);
                    if let Some(facts) = place.facts(one)? {
                        self.metrics.ends(one.name, facts.lifetime.not_after);
                    }
                }
                Outcome::Missing => {}
                Outcome::External(ca) => {
                    let end = machinery::time::format(*end);
                    let message = format!(
                        "Certificate {} ends at {end}, and the key of {ca} that signs it is kept elsewhere",
                        one.name
                    );
                    self.tell(api, "Warning", "CertificateExpiring", &message).await;
                }
            }
        }
        if renewed.is_empty() {
            return Ok(());
        }
        let names = renewed.join(", ");
        if COMPONENTS.contains(&component) {
            self.restart(api, component)
                .await
                .with_context(|| format!("{component} with new certificates ({names})"))?;
        }
        let message = format!("Renewed certificates of {component}: {names}");
        self.tell(api, "Normal", "CertificatesRenewed", &message).await;
        Ok(())
    }

    /// Gives a component's manifest another text, and waits until it runs again.
    async fn restart(&self, api: Option<&Cluster>, component: &str) -> Result<()> {
        let host = &*self.host;
        if !host.exists(&manifests::path(component)) {
            return Ok(());
        }
        let mut manifest = Present::read(host, component)?;
        manifest.annotate(RENEWED, &machinery::time::format(host.now()));
        let Some(api) = api else { return manifests::write(host, component, &manifest.to_yaml()?) };
        let mirrors = Mirrors { api, node: &self.settings.node };
        let old = mirrors.hash(component).await?;
        manifests::write(host, component, &manifest.to_yaml()?)?;
        mirrors.await_change(component, &old, RESTART).await?;
        if component == "etcd" {
            self.await_etcd(host).await?;
        }
        Ok(())
    }

    async fn await_etcd(&self, host: &dyn Host) -> Result<()> {
        let etcd = Local::read(host)?.client(host).await?;
        let end = tokio::time::Instant::now() + RESTART;
        loop {
            match etcd.check().await {
                Ok(()) => return Ok(()),
                Err(cause) if tokio::time::Instant::now() > end => {
                    return Err(Error::new(format!("etcd does not answer: {cause}")));
                }
                Err(_) => tokio::time::sleep(crate::client::INTERVAL).await,
            }
        }
    }
}
