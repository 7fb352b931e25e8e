//! Drivers that come and go, and what they leave in the API.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::resource::v1::ResourceSlice;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client};
use proto::dra::dra_plugin_client::DraPluginClient;
use tokio_util::sync::CancellationToken;

use super::Claims;
use crate::api::limited;
use crate::plugins::{self, Handler, Plugin};

const VERSION: &str = "v1.DRAPlugin";
/// Time in which a driver may come back before what it published is removed.
const ABSENCE: Duration = Duration::from_secs(30);

/// Takes drivers of dynamic resources.
#[derive(Clone)]
pub struct ClaimDrivers {
    claims: Arc<Claims>,
    client: Option<Client>,
    node: String,
    stop: CancellationToken,
}

impl ClaimDrivers {
    /// For a node; without a client there is nothing to clean up.
    pub fn new(claims: Arc<Claims>, client: Option<Client>, node: &str, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { claims, client, node: node.to_owned(), stop })
    }

    /// Removes what all drivers published before this kubelet started: none of them is usable until it registers, and
    /// publishes anew.
    pub async fn clean_up(self: Arc<Self>) {
        self.remove_slices(None).await;
    }

    /// Removes the slices of a driver, or of all. A node may do no more with slices that it does not name.
    async fn remove_slices(&self, driver: Option<&str>) {
        let Some(client) = &self.client else { return };
        let api: Api<ResourceSlice> = Api::all(client.clone());
        let mut fields = format!("spec.nodeName={}", self.node);
        if let Some(driver) = driver {
            fields.push_str(&format!(",spec.driver={driver}"));
        }
        let selected = ListParams::default().fields(&fields);
        if let Err(error) = limited(api.delete_collection(&DeleteParams::default(), &selected)).await {
            tracing::warn!(%error, fields, "removing resource slices");
        }
    }
}

#[async_trait]
impl Handler for ClaimDrivers {
    async fn register(&self, plugin: &Plugin) -> Result<(), String> {
        if !plugin.versions.iter().any(|version| version == VERSION) {
            return Err(format!(
                "the DRA driver {} does not support {VERSION}, only {:?}",
                plugin.name, plugin.versions
            ));
        }
        let channel = plugins::connect(&plugin.endpoint).map_err(|error| error.to_string())?;
        self.claims.plugins.lock().insert(plugin.name.clone(), DraPluginClient::new(channel));
        Ok(())
    }

    async fn deregister(&self, plugin: &Plugin) {
        self.claims.plugins.lock().remove(&plugin.name);
        let again = self.clone();
        let driver = plugin.name.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = again.stop.cancelled() => {}
                () = tokio::time::sleep(ABSENCE) => {
                    let is_back = again.claims.plugins.lock().contains_key(&driver);
                    if !is_back {
                        again.remove_slices(Some(&driver)).await;
                    }
                }
            }
        });
    }
}
