//! New certificates before the old ones expire.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use rand::Rng;
use rcgen::KeyPair;
use runtime::tls::ServingCertificate;
use tokio_util::sync::CancellationToken;

use super::request::{self, Wanted};
use super::store::{Pair, PairStore};
use super::{CertificateError, Purpose, content};
use crate::api;
use crate::metrics::METRICS;
use crate::node::SharedFacts;

/// Time for somebody to sign.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Pauses after failures: doubling from the first, then always the last.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LAST_PAUSE: Duration = Duration::from_secs(32);
/// How often a serving certificate is compared with the node's addresses.
const ADDRESS_PERIOD: Duration = Duration::from_secs(10);
/// How long the kubelet goes on with an expired client certificate.
const EXPIRED_GRACE: Duration = Duration::from_secs(5 * 60);

/// What a new pair is given to.
pub enum Use {
    /// Requests to the apiserver: the kubeconfig is read anew.
    Client {
        /// The client in use.
        reload: client::Reload,
        /// Its kubeconfig.
        kubeconfig: PathBuf,
        /// User agent, rates, metrics.
        connection: Box<client::Connection>,
        /// Whether a restart could get a certificate by bootstrap.
        can_bootstrap: bool,
        /// Whether the stored pair is the kubeconfig's own, which is replaced at once.
        seeded: bool,
    },
    /// The kubelet's server.
    Server(Arc<ServingCertificate>),
}

/// Keeps one certificate fresh.
pub struct Rotation {
    /// Client for the requests.
    pub client: Client,
    /// Where pairs are kept.
    pub store: PairStore,
    /// What the pair is for.
    pub usage: Use,
    /// Name and addresses of the node.
    pub facts: SharedFacts,
}

/// When a pair is replaced: after 70 to 90 percent of its life. `share` is between 0 and 1.
fn deadline(pair: &Pair, share: f64) -> Timestamp {
    let life = pair.not_after.duration_since(pair.not_before).as_secs_f64();
    let after = SignedDuration::try_from_secs_f64(life * (0.7 + 0.2 * share)).unwrap_or(SignedDuration::ZERO);
    pair.not_before.checked_add(after).unwrap_or(pair.not_after)
}

impl Rotation {
    fn purpose(&self) -> Purpose {
        match self.usage {
            Use::Client { .. } => Purpose::Client,
            Use::Server(_) => Purpose::Server,
        }
    }

    /// Runs until stopped; ends early, cancelling `stop`, when only a new start can help.
    pub async fn run(self, stop: CancellationToken) {
        let purpose = self.purpose();
        let (expiry, errors) = match purpose {
            Purpose::Client => (&METRICS.client_expiry, &METRICS.client_renew_errors),
            Purpose::Server => (&METRICS.server_expiry, &METRICS.server_renew_errors),
        };
        let with_deadline = |pair: Pair| {
            expiry.set(pair.not_after);
            let due = deadline(&pair, rand::rng().random());
            (pair, due)
        };
        let mut current = self.usable().map(with_deadline);
        let mut failures = 0;
        loop {
            let wait = if failures > 0 { pause(failures) } else { self.until_due(current.as_ref()) };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            if failures == 0 && current.as_ref().is_some_and(|(pair, due)| !self.is_due(pair, *due)) {
                continue;
            }
            match self.rotate(&stop).await {
                Ok(new) => {
                    if let Some((old, _)) = current.as_ref().filter(|_| purpose == Purpose::Server) {
                        let life = Timestamp::now().duration_since(old.not_before);
                        METRICS.node.server_rotation.observe(life.as_secs_f64());
                    }
                    (current, failures) = (Some(with_deadline(new)), 0);
                }
                Err(error) => {
                    failures += 1;
                    errors.inc();
                    tracing::error!(error = util::chain(&error), "certificate rotation");
                    if self.store.current().is_some_and(|pair| self.is_hopeless(&pair)) {
                        tracing::error!(
                            "the client certificate has expired: stopping, so that bootstrap can begin anew"
                        );
                        return stop.cancel();
                    }
                }
            }
        }
    }

    /// The stored pair, unless it only stands in for one that is still to be asked for.
    fn usable(&self) -> Option<Pair> {
        let seeded = matches!(self.usage, Use::Client { seeded: true, .. });
        self.store.current().filter(|_| !seeded)
    }

    /// Time until the next look at the pair.
    fn until_due(&self, current: Option<&(Pair, Timestamp)>) -> Duration {
        let Some((_, due)) = current else { return Duration::ZERO };
        let left = Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO);
        if self.purpose() == Purpose::Server { left.min(ADDRESS_PERIOD) } else { left }
    }

    fn is_due(&self, pair: &Pair, due: Timestamp) -> bool {
        Timestamp::now() >= due || (self.purpose() == Purpose::Server && !self.names_node(pair))
    }

    fn is_hopeless(&self, pair: &Pair) -> bool {
        let expired = Timestamp::now().duration_since(pair.not_after);
        matches!(self.usage, Use::Client { can_bootstrap: true, .. })
            && Duration::try_from(expired).is_ok_and(|expired| expired >= EXPIRED_GRACE)
    }

    fn wanted<'a>(&self, node: &'a str) -> Wanted<'a> {
        let purpose = self.purpose();
        let (mut names, mut addresses) = (Vec::new(), Vec::new());
        if purpose == Purpose::Server {
            names.push(node.to_owned());
            addresses.clone_from(&self.facts.get().addresses);
            addresses.sort_unstable();
        }
        Wanted { node, purpose, names, addresses }
    }

    /// Whether a serving certificate has all addresses of the node.
    fn names_node(&self, pair: &Pair) -> bool {
        use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
        let Ok(chain) = runtime::tls::certificates(&pair.pem) else { return false };
        let Some(Ok((_, parsed))) = chain.first().map(|first| X509Certificate::from_der(first)) else { return false };
        let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
        let has = |bytes: &[u8]| {
            names.value.general_names.iter().any(|n| matches!(n, GeneralName::IPAddress(b) if *b == bytes))
        };
        self.facts.get().addresses.iter().all(|address| match address {
            std::net::IpAddr::V4(v4) => has(&v4.octets()),
            std::net::IpAddr::V6(v6) => has(&v6.octets()),
        })
    }

    async fn rotate(&self, stop: &CancellationToken) -> Result<Pair, CertificateError> {
        let node = self.facts.get().name.clone();
        let wanted = self.wanted(&node);
        if wanted.purpose == Purpose::Server && wanted.addresses.is_empty() {
            return Err(content("serving certificate", "the node has no address yet"));
        }
        let key = KeyPair::generate().map_err(|error| content("key", error))?;
        let certificate = request::certificate(&self.client, &wanted, &key, None, PATIENCE, stop).await?;
        let key = key.serialize_pem();
        let pair = self.store.update(&certificate, key.as_bytes(), Timestamp::now())?;
        match &self.usage {
            Use::Server(serving) => {
                serving.replace(&certificate, key.as_bytes()).map_err(|error| content("serving certificate", error))?;
            }
            Use::Client { reload, kubeconfig, connection, .. } => {
                let path = self.store.current_path();
                let client = api::client_with_pair(kubeconfig, &path, connection)
                    .await
                    .map_err(|error| content("kubeconfig", error))?;
                reload.replace(client);
            }
        }
        tracing::info!(purpose = ?wanted.purpose, "certificate rotated");
        Ok(pair)
    }
}

fn pause(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => FIRST_PAUSE.saturating_mul(1 << (n - 1).min(4)).min(LAST_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_replaced_late_in_their_life() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let pair = Pair { pem: Vec::new(), not_before: at(1000), not_after: at(2000) };
        assert_eq!(deadline(&pair, 0.0), at(1700));
        assert_eq!(deadline(&pair, 1.0), at(1900));
    }

    #[test]
    fn failures_are_spaced() {
        let pauses: Vec<u64> = (0..8).map(|failures| pause(failures).as_secs()).collect();
        assert_eq!(pauses, [0, 2, 4, 8, 16, 32, 32, 32]);
    }
}
