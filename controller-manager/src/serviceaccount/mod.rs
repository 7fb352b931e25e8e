//! The ServiceAccount `default` of every namespace.

use std::sync::Arc;

use ::controller::{Cached, Change, Informer, ObjectKey, Outcome, Reconcile, ReconcileError, Viewed, Whole};
use client::ApiErrorExt;
use k8s_openapi::{
    api::core::v1::{Namespace, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::PostParams};

use crate::{StartError, context::Context, table::Started};

const CONTROLLER: &str = "serviceaccount-controller";
const DEFAULT: &str = "default";

/// A ServiceAccount, of which only the identity matters.
pub(crate) struct AccountView;

impl Viewed for AccountView {
    type Object = ServiceAccount;

    fn project(_account: ServiceAccount) -> Self {
        Self
    }
}

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client(CONTROLLER).await?;
    let namespaces: Informer<Whole<Namespace>> = context.informers.get();
    let accounts: Informer<AccountView> = context.informers.get();
    let queue = context.queue("serviceaccount");
    let of_accounts = queue.clone();
    accounts.on_change(move |change| {
        if let Change::Deleted { old } = change
            && old.key.name == DEFAULT
        {
            of_accounts.add(ObjectKey::cluster(old.key.namespace.clone()));
        }
    });
    let of_namespaces = queue.clone();
    namespaces.on_change(move |change| {
        if !matches!(change, Change::Deleted { .. }) {
            of_namespaces.add(change.object().key.clone());
        }
    });
    let reconciler = Reconciler { client, namespaces: namespaces.clone(), accounts: accounts.clone() };
    context.drive(CONTROLLER, queue, 1, reconciler, &[&namespaces, &accounts]);
    Ok(Started::Running)
}

struct Reconciler {
    client: Client,
    namespaces: Informer<Whole<Namespace>>,
    accounts: Informer<AccountView>,
}

/// Whether a namespace takes new objects.
pub(crate) fn is_active(namespace: &Arc<Cached<Whole<Namespace>>>) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
        && namespace.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Terminating")
}

impl Reconcile for Reconciler {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let present = self.accounts.get(&ObjectKey::new(key.name.clone(), DEFAULT)).is_some();
        if present || !self.namespaces.get(key).as_ref().is_some_and(is_active) {
            return Ok(Outcome::Done);
        }
        let metadata =
            ObjectMeta { name: Some(DEFAULT.into()), namespace: Some(key.name.clone()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &key.name);
        match api.create(&PostParams::default(), &account).await {
            Err(e) if !(e.is_already_exists() || e.is_namespace_terminating() || e.is_not_found()) => Err(e.into()),
            _ => Ok(Outcome::Done),
        }
    }
}
