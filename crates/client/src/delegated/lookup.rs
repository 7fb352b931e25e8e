//! The authorities that the cluster trusts, from the ConfigMap `kube-system/extension-apiserver-authentication`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use runtime::{
    Runtime,
    tls::{self, Authorities},
};

use super::{DelegatedError, callers::ProxyRules};
use crate::ApiErrorExt;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "extension-apiserver-authentication";
/// Time for one look.
const DEADLINE: Duration = Duration::from_secs(10);
/// Time between looks: while there is nothing yet, and afterwards.
const SOON: Duration = Duration::from_secs(5);
const LATER: Duration = Duration::from_secs(60);

/// What the ConfigMap said when it was last read. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct ClusterTrust(Arc<ArcSwapOption<Found>>);

struct Found {
    /// What it was made from.
    data: BTreeMap<String, String>,
    clients: Option<Arc<Authorities>>,
    proxies: Option<(Arc<Authorities>, ProxyRules)>,
}

impl ClusterTrust {
    /// Authorities of clients.
    pub(super) fn clients(&self) -> Option<Arc<Authorities>> {
        self.0.load().as_ref().and_then(|f| f.clients.clone())
    }

    /// Authorities of proxies, and how they speak.
    pub(super) fn proxies(&self) -> Option<(Arc<Authorities>, ProxyRules)> {
        self.0.load().as_ref().and_then(|f| f.proxies.clone())
    }

    fn take(&self, data: BTreeMap<String, String>) {
        if self.0.load().as_ref().is_some_and(|f| f.data == data) {
            return;
        }
        self.0.store(Some(Arc::new(read(data))));
    }
}

/// Reads it, and goes on doing so.
pub(super) async fn start(client: Client, tolerate: bool, runtime: &Runtime) -> Result<ClusterTrust, DelegatedError> {
    let trust = ClusterTrust::default();
    let api: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
    let found = match look(&api).await {
        Ok(data) => {
            trust.take(data);
            true
        }
        Err(why) if tolerate => {
            tracing::warn!(err = %why, "Error looking up in-cluster authentication configuration");
            tracing::warn!(
                "Continuing without authentication configuration. This may treat all requests as anonymous."
            );
            false
        }
        Err(why) => return Err(DelegatedError::Lookup(why)),
    };
    let (following, clock) = (trust.clone(), Arc::clone(&runtime.clock));
    runtime.tasks.spawn_cancellable("cluster authorities", async move {
        let mut pause = if found { LATER } else { SOON };
        loop {
            clock.sleep(pause).await;
            match look(&api).await {
                Ok(data) => {
                    following.take(data);
                    pause = LATER;
                }
                Err(why) => tracing::debug!(err = %why, "the cluster's authorities cannot be read"),
            }
        }
    });
    Ok(trust)
}

async fn look(api: &Api<ConfigMap>) -> Result<BTreeMap<String, String>, String> {
    match tokio::time::timeout(DEADLINE, api.get(NAME)).await {
        Ok(Ok(map)) => Ok(map.data.unwrap_or_default()),
        Ok(Err(error)) => Err(error.text()),
        Err(_) => Err(format!("configmaps {NAME:?}: no answer in time")),
    }
}

fn read(data: BTreeMap<String, String>) -> Found {
    let bundle = |key: &str| {
        let pem = data.get(key).filter(|p| !p.trim().is_empty())?;
        let loaded = tls::certificates(pem.as_bytes()).and_then(Authorities::new);
        if let Err(error) = &loaded {
            tracing::error!(%error, key, "a bundle of the cluster's authorities is not usable");
        }
        loaded.ok().map(Arc::new)
    };
    let list = |key: &str| -> Vec<String> {
        data.get(key).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    };
    let rules = ProxyRules {
        allowed_names: list("requestheader-allowed-names"),
        username: list("requestheader-username-headers"),
        uid: list("requestheader-uid-headers"),
        group: list("requestheader-group-headers"),
        extra_prefixes: list("requestheader-extra-headers-prefix"),
    };
    let clients = bundle("client-ca-file");
    let proxies = bundle("requestheader-client-ca-file").map(|authorities| (authorities, rules));
    Found { clients, proxies, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read() {
        let (pem, _) = tls::self_signed("ca", &["ca".into()], &[]).unwrap();
        let entry = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let found = read(BTreeMap::from([
            entry("requestheader-client-ca-file", &pem),
            entry("requestheader-allowed-names", r#"["front-proxy-client"]"#),
            entry("requestheader-username-headers", r#"["X-Remote-User"]"#),
            entry("client-ca-file", "nonsense"),
        ]));
        assert!(found.clients.is_none());
        let (_, rules) = found.proxies.unwrap();
        assert_eq!((rules.allowed_names, rules.group), (vec!["front-proxy-client".to_owned()], vec![]));
    }
}
