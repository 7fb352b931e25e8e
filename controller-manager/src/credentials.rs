//! Clients of single controllers: with `--use-service-account-credentials` each works under an account of its own in
//! kube-system, so that RBAC bounds it to what its role `system:controller:<name>` allows.

use std::{sync::Arc, time::Duration};

use client::{ApiErrorExt, ClientMetrics, Connection, Reload};
use k8s_openapi::{
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::ServiceAccount,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, Client, api::PostParams};
use runtime::{clock::Clock, tasks::TaskGroup};
use util::Backoff;

use crate::{COMPONENT, StartError, options::Options};

const NAMESPACE: &str = "kube-system";
/// Life of a token, and the part of it after which the next one is asked for.
const LIFE: Duration = Duration::from_secs(3600);
const RENEW_AFTER: f64 = 0.8;
const RETRY: Backoff = Backoff::doubling(Duration::from_secs(1), Duration::from_secs(60));

/// Accounts whose names differ from those of their controllers.
const ACCOUNTS: &[(&str, &str)] = &[
    ("persistentvolume-binder-controller", "persistent-volume-binder"),
    ("persistentvolumeclaim-protection-controller", "pvc-protection-controller"),
    ("persistentvolume-protection-controller", "pv-protection-controller"),
    ("endpoints-controller", "endpoint-controller"),
    ("endpointslice-mirroring-controller", "endpointslicemirroring-controller"),
    ("replicationcontroller-controller", "replication-controller"),
    ("daemonset-controller", "daemon-set-controller"),
    ("serviceaccount-controller", "service-account-controller"),
    ("garbage-collector-controller", "generic-garbage-collector"),
    ("root-ca-certificate-publisher-controller", "root-ca-cert-publisher"),
    ("pod-garbage-collector-controller", "pod-garbage-collector"),
    ("token-cleaner-controller", "token-cleaner"),
    ("bootstrap-signer-controller", "bootstrap-signer"),
    ("service-cidr-controller", "service-cidrs-controller"),
    ("horizontal-pod-autoscaler-controller", "horizontal-pod-autoscaler"),
    ("resourceclaim-controller", "resource-claim-controller"),
    ("persistentvolume-attach-detach-controller", "attachdetach-controller"),
    ("persistentvolume-expander-controller", "expand-controller"),
    ("legacy-serviceaccount-token-cleaner-controller", "legacy-service-account-token-cleaner"),
];

/// The account of a controller.
fn account_of(controller: &str) -> &str {
    ACCOUNTS.iter().find(|(name, _)| *name == controller).map_or(controller, |(_, account)| account)
}

/// Makes clients: one for each controller, so that none waits for the requests of another.
pub(crate) struct Clients {
    options: Arc<Options>,
    metrics: ClientMetrics,
}

impl Clients {
    pub(crate) fn new(options: Arc<Options>, metrics: ClientMetrics) -> Self {
        Self { options, metrics }
    }

    fn connection(&self, user: &str) -> Connection {
        Connection::of(COMPONENT, user, &self.options.client, Some(self.metrics.clone()))
    }

    /// A client with the credentials of the process.
    pub(crate) async fn plain(&self, user: &str) -> Result<Client, client::ClientError> {
        client::connect(&self.options.client, &self.connection(user)).await
    }

    /// The client of a controller, under its own account if the flags say so.
    pub(crate) async fn of(
        &self,
        controller: &str,
        tasks: &TaskGroup,
        clock: &Arc<dyn Clock>,
    ) -> Result<Client, StartError> {
        let root = self.plain(controller).await?;
        if !self.options.accounts.use_service_account_credentials {
            return Ok(root);
        }
        let account = Account {
            root,
            name: account_of(controller).to_owned(),
            options: Arc::clone(&self.options),
            connection: self.connection(controller),
            clock: Arc::clone(clock),
        };
        let first = account.client().await?;
        let (client, reload) = client::reloadable(first);
        tasks.spawn_cancellable(format!("token of {}", account.name), account.renew(reload));
        Ok(client)
    }
}

/// An account in kube-system, used with the credentials of the process until there is a token.
struct Account {
    root: Client,
    name: String,
    options: Arc<Options>,
    connection: Connection,
    clock: Arc<dyn Clock>,
}

impl Account {
    /// A client with a new token; the account is made if it is missing.
    async fn client(&self) -> Result<Client, StartError> {
        let token = self.token().await.map_err(client::ClientError::Client)?;
        Ok(client::connect_with_token(&self.options.client, &self.connection, &token).await?)
    }

    async fn token(&self) -> Result<String, kube::Error> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.root.clone(), NAMESPACE);
        let seconds = i64::try_from(LIFE.as_secs()).ok();
        let spec = TokenRequestSpec { expiration_seconds: seconds, ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let params = PostParams::default();
        let ask = || accounts.create_token_request(&self.name, &params, &request);
        let answer = match ask().await {
            Err(error) if error.is_not_found() => {
                self.create(&accounts).await?;
                ask().await?
            }
            other => other?,
        };
        Ok(answer.status.and_then(|status| status.token).unwrap_or_default())
    }

    async fn create(&self, accounts: &Api<ServiceAccount>) -> Result<(), kube::Error> {
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        match accounts.create(&PostParams::default(), &account).await {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(()),
        }
    }

    /// Replaces the token before it ends, for ever.
    async fn renew(self, reload: Reload) {
        let mut failures = 0;
        loop {
            let pause = if failures == 0 { LIFE.mul_f64(RENEW_AFTER) } else { RETRY.jittered(failures - 1) };
            self.clock.sleep(pause).await;
            match self.client().await {
                Ok(client) => {
                    reload.replace(client);
                    failures = 0;
                }
                Err(error) => {
                    failures += 1;
                    tracing::warn!(error = util::chain(&error), account = self.name, "cannot renew a token");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_have_the_names_of_roles() {
        assert_eq!(account_of("endpoints-controller"), "endpoint-controller");
        assert_eq!(account_of("deployment-controller"), "deployment-controller");
    }
}
