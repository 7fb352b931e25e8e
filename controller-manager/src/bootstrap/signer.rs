//! Signs `kube-public/cluster-info` with every bootstrap token that may be used for it.

use std::{collections::BTreeMap, sync::Arc};

use ::controller::{Informer, InformerConfig, ObjectKey, Outcome, Reconcile, ReconcileError, Whole, start_informer};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use runtime::clock::Clock;

use super::{NAMESPACE, PREFIX, TYPE, is_expired, jws, text, tokens};
use crate::{
    StartError,
    context::{Context, now},
    table::Started,
};

const CONTROLLER: &str = "bootstrap-signer-controller";
const PUBLIC: &str = "kube-public";
const NAME: &str = "cluster-info";
const KUBECONFIG: &str = "kubeconfig";
const SIGNATURE: &str = "jws-kubeconfig-";

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client("bootstrap-signer").await?;
    let secrets = tokens(context, &client);
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), PUBLIC);
    let config = InformerConfig { fields: format!("metadata.name={NAME}"), ..InformerConfig::default() };
    let maps = start_informer(&context.tasks, api, config, &[], Whole);
    let queue = context.queue("bootstrap_signer_queue");
    let the_map = || ObjectKey::new(PUBLIC.to_owned(), NAME.to_owned());
    let (a, b) = (queue.clone(), queue.clone());
    secrets.on_change(move |_| a.add(the_map()));
    maps.on_change(move |_| b.add(the_map()));
    let signer = Signer { client, secrets: secrets.clone(), maps: maps.clone(), clock: Arc::clone(&context.clock) };
    context.drive(CONTROLLER, queue, 1, signer, &[&secrets, &maps]);
    Ok(Started::Running)
}

struct Signer {
    client: Client,
    secrets: Informer<Whole<Secret>>,
    maps: Informer<Whole<ConfigMap>>,
    clock: Arc<dyn Clock>,
}

/// Id and secret of a token that signs now.
fn signing(secret: &Secret, now: Timestamp) -> Option<(String, String)> {
    let (id, value) = (text(secret, "token-id"), text(secret, "token-secret"));
    let named = secret.metadata.name.as_deref() == Some(&format!("{PREFIX}{id}"));
    let usable = secret.type_.as_deref() == Some(TYPE)
        && secret.metadata.namespace.as_deref() == Some(NAMESPACE)
        && secret.metadata.deletion_timestamp.is_none()
        && text(secret, "usage-bootstrap-signing") == "true"
        && !is_expired(secret, now);
    (named && usable && !id.is_empty() && !value.is_empty()).then_some((id, value))
}

/// The data of the ConfigMap with the signatures it should have; `None` if it has them, or nothing to sign.
fn signed(data: &BTreeMap<String, String>, tokens: &[(String, String)]) -> Option<BTreeMap<String, String>> {
    let content = data.get(KUBECONFIG)?;
    let mut wanted: BTreeMap<String, String> =
        data.iter().filter(|(key, _)| !key.starts_with(SIGNATURE)).map(|(k, v)| (k.clone(), v.clone())).collect();
    for (id, secret) in tokens {
        wanted.insert(format!("{SIGNATURE}{id}"), jws::detached(content, id, secret));
    }
    (wanted != *data).then_some(wanted)
}

impl Reconcile for Signer {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(map) = self.maps.get(key) else { return Ok(Outcome::Done) };
        let now = now(&*self.clock).0;
        let tokens: Vec<_> = self.secrets.list().iter().filter_map(|secret| signing(secret, now)).collect();
        let Some(data) = signed(&map.data.clone().unwrap_or_default(), &tokens) else { return Ok(Outcome::Done) };
        let mut new = ConfigMap::clone(&map);
        new.data = Some(data);
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), PUBLIC);
        match api.replace(NAME, &PostParams::default(), &new).await {
            Err(error) => Err(client::CallError::new(format!("update {key}"), error).into()),
            Ok(_) => Ok(Outcome::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(pairs: &[(&str, &str)]) -> Secret {
        let mut secret = Secret { type_: Some(TYPE.to_owned()), ..Secret::default() };
        secret.metadata.name = Some("bootstrap-token-abcdef".to_owned());
        secret.metadata.namespace = Some(NAMESPACE.to_owned());
        let data = pairs.iter().map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec())));
        secret.data = Some(data.collect());
        secret
    }

    #[test]
    fn only_usable_tokens_sign() {
        let now = Timestamp::from_second(1_000_000_000).unwrap();
        let base = [("token-id", "abcdef"), ("token-secret", "0123456789abcdef"), ("usage-bootstrap-signing", "true")];
        assert!(signing(&secret(&base), now).is_some());
        assert!(signing(&secret(&base[..2]), now).is_none());
        let with = |end| secret(&[base[0], base[1], base[2], ("expiration", end)]);
        assert!(signing(&with("2100-01-01T00:00:00Z"), now).is_some());
        assert!(signing(&with("2000-01-01T00:00:00Z"), now).is_none());
        assert!(signing(&with("tomorrow"), now).is_none());
        assert!(signing(&secret(&[("token-id", "ghijkl"), base[1], base[2]]), now).is_none());
    }

    #[test]
    fn signatures_are_added_and_removed() {
        let data: BTreeMap<_, _> = [("kubeconfig", "content"), ("jws-kubeconfig-gone00", "old")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        let tokens = [("abcdef".to_owned(), "0123456789abcdef".to_owned())];
        let new = signed(&data, &tokens).unwrap();
        assert_eq!(new.keys().collect::<Vec<_>>(), ["jws-kubeconfig-abcdef", "kubeconfig"]);
        assert_eq!(signed(&new, &tokens), None);
        assert_eq!(signed(&BTreeMap::new(), &tokens), None);
    }
}
