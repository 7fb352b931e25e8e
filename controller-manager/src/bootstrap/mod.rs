//! Bootstrap tokens: signatures of cluster-info for joining nodes, removal of tokens that have expired.

mod cleaner;
mod jws;
mod signer;

pub(crate) use cleaner::start as start_cleaner;
pub(crate) use signer::start as start_signer;

use ::controller::{Informer, InformerConfig, Whole, start_informer};
use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use kube::{Api, Client};

use crate::context::Context;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const PREFIX: &str = "bootstrap-token-";

/// The token Secrets.
fn tokens(context: &Context, client: &Client) -> Informer<Whole<Secret>> {
    let api: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let config = InformerConfig { fields: format!("type={TYPE}"), ..InformerConfig::default() };
    start_informer(&context.tasks, api, config, &[], Whole)
}

fn text(secret: &Secret, key: &str) -> String {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()).unwrap_or_default()
}

/// When a token ends; `Err` if it says something that is no time.
fn expiration(secret: &Secret) -> Result<Option<Timestamp>, ()> {
    match text(secret, "expiration").as_str() {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| ()),
    }
}

/// Whether a token is over; one that cannot be read counts as over.
fn is_expired(secret: &Secret, now: Timestamp) -> bool {
    expiration(secret).map_or(true, |end| end.is_some_and(|end| end <= now))
}
