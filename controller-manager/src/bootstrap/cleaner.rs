//! Deletes bootstrap tokens at the moment they expire.

use std::{sync::Arc, time::Duration};

use ::controller::{Change, Informer, ObjectKey, Outcome, Reconcile, ReconcileError, Whole};
use client::{ApiErrorExt, CallError};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{DeleteParams, Preconditions},
};
use runtime::clock::Clock;

use super::{NAMESPACE, expiration, is_expired, tokens};
use crate::{
    StartError,
    context::{Context, now},
    table::Started,
};

const CONTROLLER: &str = "token-cleaner-controller";

/// Starts the controller.
pub(crate) async fn start(context: &Context) -> Result<Started, StartError> {
    let client = context.client("token-cleaner").await?;
    let secrets = tokens(context, &client);
    let queue = context.queue("token_cleaner");
    let keys = queue.clone();
    secrets.on_change(move |change| {
        if !matches!(change, Change::Deleted { .. }) {
            keys.add(change.object().key.clone());
        }
    });
    let cleaner = Cleaner { client, secrets: secrets.clone(), clock: Arc::clone(&context.clock) };
    context.drive(CONTROLLER, queue, 1, cleaner, &[&secrets]);
    Ok(Started::Running)
}

struct Cleaner {
    client: Client,
    secrets: Informer<Whole<Secret>>,
    clock: Arc<dyn Clock>,
}

impl Reconcile for Cleaner {
    type Key = ObjectKey;

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, ReconcileError> {
        let Some(secret) = self.secrets.get(key) else { return Ok(Outcome::Done) };
        let now = now(&*self.clock).0;
        if !is_expired(&secret, now) {
            let Ok(Some(end)) = expiration(&secret) else { return Ok(Outcome::Done) };
            let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
            return Ok(Outcome::After(left.max(Duration::from_secs(1))));
        }
        let preconditions = Preconditions { uid: Some(secret.uid.clone()), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let api: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        match api.delete(&key.name, &params).await {
            Err(error) if !error.is_not_found() && !error.is_conflict() => {
                Err(CallError::new(format!("delete {key}"), error).into())
            }
            _ => Ok(Outcome::Done),
        }
    }
}
