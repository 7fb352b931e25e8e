//! Tokens in Secrets of type `kubernetes.io/service-account-token`: filled in, and removed with their account.

pub(crate) mod legacy;
mod signer;

use ::controller::{Change, Informer, InformerConfig, ObjectKey, Outcome, Queue, Reconcile, ReconcileError, Viewed};
use client::{ApiErrorExt, CallError};
use k8s_openapi::{
    ByteString,
    api::core::v1::{Secret, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
};

use crate::{StartError, context::Context, serviceaccount::AccountView, table::Started};
use signer::Signer;

const CONTROLLER: &str = "serviceaccount-token-controller";
const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// A token Secret, without the token.
pub(crate) struct TokenView {
    account: ObjectKey,
    account_uid: String,
    has_token: bool,
    has_namespace: bool,
    root_ca: Option<Vec<u8>>,
}

impl Viewed for TokenView {
    type Object = Secret;

    fn project(secret: Secret) -> Self {
        let annotation = |name: &str| {
            secret.metadata.annotations.as_ref().and_then(|all| all.get(name)).cloned().unwrap_or_default()
        };
        let namespace = secret.metadata.namespace.clone().unwrap_or_default();
        let data = secret.data.as_ref();
        let has = |key: &str| data.and_then(|data| data.get(key)).is_some_and(|value| !value.0.is_empty());
        Self {
            account: ObjectKey::new(namespace, annotation(ACCOUNT_NAME)),
            account_uid: annotation(ACCOUNT_UID),
            has_token: has("token"),
            has_namespace: has("namespace"),
            root_ca: data.and_then(|data| data.get("ca.crt")).map(|pem| pem.0.clone()),
        }
    }

    fn config() -> InformerConfig {
        InformerConfig { fields: format!("type={TYPE}"), ..InformerConfig::default() }
    }
}

/// Starts the controller, with the credentials of the process: it makes those of the others.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let accounts = &context.options.accounts;
    let Some(path) = &accounts.service_account_private_key_file else { return Ok(Started::Skipped) };
    let file = |path: &std::path::Path| {
        std::fs::read(path).map_err(|source| StartError::File { path: path.to_owned(), source })
    };
    let wrong = |error: String| StartError::Flags(format!("error reading key file {}: {error}", path.display()));
    let signer = Signer::from_pem(&file(path)?).map_err(wrong)?;
    let root_ca = accounts.root_ca_file.as_deref().map(file).transpose()?.unwrap_or_default();
    let secrets: Informer<TokenView> = context.informers.get();
    let accounts: Informer<AccountView> = context.informers.get();
    let queue: Queue<Task> = context.queue("serviceaccount_tokens_secret");
    let (a, b, of_account) = (queue.clone(), queue.clone(), secrets.clone());
    secrets.on_change(move |change| {
        let key = change.object().key.clone();
        a.add(match change {
            Change::Deleted { old } => Task::Unlist { account: old.account.clone(), uid: old.account_uid.clone(), key },
            _ => Task::Look(key),
        });
    });
    accounts.on_change(move |change| {
        let account = &change.object().key;
        for secret in of_account.in_namespace(&account.namespace).iter().filter(|secret| secret.account == *account) {
            b.add(Task::Look(secret.key.clone()));
        }
    });
    let client = context.watching_client().await?;
    let tokens = Tokens { client, secrets: secrets.clone(), accounts: accounts.clone(), signer, root_ca };
    let workers = context.options.workers.concurrent_serviceaccount_token_syncs;
    context.drive(CONTROLLER, queue, workers, tokens, &[&secrets, &accounts]);
    Ok(Started::Running)
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Task {
    /// A Secret is there.
    Look(ObjectKey),
    /// A Secret is gone: the account that it was for lists it no more.
    Unlist { account: ObjectKey, uid: String, key: ObjectKey },
}

struct Tokens {
    client: Client,
    secrets: Informer<TokenView>,
    accounts: Informer<AccountView>,
    signer: Signer,
    root_ca: Vec<u8>,
}

/// What is to be done about a Secret.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Nothing,
    Remove,
    Fill,
}

/// `account`: UID of the ServiceAccount that the Secret names.
fn plan(secret: &TokenView, account: Option<&str>, root_ca: &[u8]) -> Plan {
    let Some(account) = account else { return Plan::Remove };
    if !secret.account_uid.is_empty() && secret.account_uid != account {
        return Plan::Remove;
    }
    let right_ca = root_ca.is_empty() || secret.root_ca.as_deref() == Some(root_ca);
    let complete = secret.has_token && secret.has_namespace && right_ca && !secret.account_uid.is_empty();
    if complete { Plan::Nothing } else { Plan::Fill }
}

impl Tokens {
    async fn fill(&self, api: &Api<Secret>, name: &str, account: &ObjectKey, uid: &str) -> Result<(), CallError> {
        client::modify(api, name, |secret: &mut Secret| {
            let secret_name = secret.metadata.name.clone().unwrap_or_default();
            let annotations = secret.metadata.annotations.get_or_insert_default();
            if annotations.get(ACCOUNT_NAME) != Some(&account.name) {
                return false;
            }
            annotations.insert(ACCOUNT_UID.to_owned(), uid.to_owned());
            let data = secret.data.get_or_insert_default();
            let missing = |value: Option<&ByteString>| value.is_none_or(|value| value.0.is_empty());
            if missing(data.get("token")) {
                match self.signer.sign(&account.namespace, &account.name, uid, &secret_name) {
                    Ok(token) => drop(data.insert("token".to_owned(), ByteString(token.into_bytes()))),
                    Err(error) => tracing::error!(%error, secret = secret_name, "cannot sign a token"),
                }
            }
            if missing(data.get("namespace")) {
                data.insert("namespace".to_owned(), ByteString(account.namespace.clone().into_bytes()));
            }
            if !self.root_ca.is_empty() {
                data.insert("ca.crt".to_owned(), ByteString(self.root_ca.clone()));
            }
            true
        })
        .await
        .map(drop)
    }
}

impl Reconcile for Tokens {
    type Key = Task;

    async fn reconcile(&self, task: &Task) -> Result<Outcome, ReconcileError> {
        match task {
            Task::Look(key) => self.look(key).await,
            Task::Unlist { account, uid, key } => self.unlist(account, uid, key).await,
        }
    }
}

/// The account without a Secret in its list; whether it was there. `uid` is empty if the account may be any of the name.
fn remove_secret(account: &mut ServiceAccount, uid: &str, secret: &str) -> bool {
    if !uid.is_empty() && account.metadata.uid.as_deref() != Some(uid) {
        return false;
    }
    let Some(listed) = account.secrets.as_mut() else { return false };
    let before = listed.len();
    listed.retain(|reference| reference.name.as_deref() != Some(secret));
    before != listed.len()
}

impl Tokens {
    async fn unlist(&self, account: &ObjectKey, uid: &str, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        if self.secrets.get(key).is_some() || self.accounts.get(account).is_none() {
            return Ok(Outcome::Done);
        }
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &account.namespace);
        match client::modify(&api, &account.name, |account| remove_secret(account, uid, &key.name)).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(Outcome::Done),
        }
    }

    /// UID of an account, as the server knows it now: informers may not have seen it yet.
    async fn live_account(&self, key: &ObjectKey) -> Result<Option<String>, CallError> {
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &key.namespace);
        let found = api.get_metadata_opt(&key.name).await;
        let found = found.map_err(|error| CallError::new(format!("get ServiceAccount {key}"), error))?;
        Ok(found.and_then(|account| account.metadata.uid))
    }

    async fn look(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(secret) = self.secrets.get(key) else { return Ok(Outcome::Done) };
        let mut uid = self.accounts.get(&secret.account).map(|account| account.uid.clone());
        if !secret.account.name.is_empty() && plan(&secret, uid.as_deref(), &self.root_ca) == Plan::Remove {
            uid = self.live_account(&secret.account).await?;
        }
        let uid = uid.as_deref();
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &key.namespace);
        let done = match plan(&secret, uid, &self.root_ca) {
            Plan::Nothing => return Ok(Outcome::Done),
            Plan::Fill => self.fill(&api, &key.name, &secret.account, uid.unwrap_or_default()).await,
            Plan::Remove => {
                let preconditions = Preconditions { uid: Some(secret.uid.clone()), resource_version: None };
                let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                let deleted = api.delete(&key.name, &params).await;
                deleted.map(drop).map_err(|error| CallError::new(format!("delete {key}"), error))
            }
        };
        match done {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.into()),
            _ => Ok(Outcome::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_lose_references_to_what_is_gone() {
        for (uid, secret, left) in
            [("u", "a", vec!["b"]), ("", "b", vec!["a"]), ("v", "a", vec!["a", "b"]), ("u", "c", vec!["a", "b"])]
        {
            let account = serde_json::json!({"metadata": {"uid": "u"}, "secrets": [{"name": "a"}, {"name": "b"}]});
            let mut account: ServiceAccount = serde_json::from_value(account).unwrap();
            let removed = remove_secret(&mut account, uid, secret);
            let names: Vec<String> = account.secrets.unwrap().into_iter().filter_map(|r| r.name).collect();
            assert_eq!((names, removed), (left.iter().map(|n| (*n).to_owned()).collect(), left.len() == 1));
        }
    }

    fn secret(uid: &str, has_token: bool, root_ca: &str) -> TokenView {
        TokenView {
            account: ObjectKey::new("ns".to_owned(), "sa".to_owned()),
            account_uid: uid.to_owned(),
            has_token,
            has_namespace: true,
            root_ca: Some(root_ca.as_bytes().to_vec()),
        }
    }

    #[test]
    fn secrets_follow_their_account() {
        for (found, account, wanted) in [
            (secret("u", true, "ca"), Some("u"), Plan::Nothing),
            (secret("", false, "ca"), Some("u"), Plan::Fill),
            (secret("u", true, "old"), Some("u"), Plan::Fill),
            (secret("u", true, "ca"), Some("other"), Plan::Remove),
            (secret("u", true, "ca"), None, Plan::Remove),
        ] {
            assert_eq!(plan(&found, account, b"ca"), wanted);
        }
    }
}
