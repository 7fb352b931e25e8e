//! The store that the flags name: opened, waited for, encrypted.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use machinery::GroupResource;
use runtime::Runtime;
use storage::{
    contract::Store,
    embedded::{EmbeddedOptions, EmbeddedStore},
    encrypted::EncryptedStore,
    etcd::{EtcdOptions, EtcdStore},
    metered::StoreMetrics,
};
use tokio_util::sync::CancellationToken;

use crate::{StartError, encryption, options::Options, storage_options::Override};

/// Time that the store has to tell its size.
const SIZE_PATIENCE: Duration = Duration::from_secs(5);
/// Pause between looks for the store.
const STORE_RETRY: Duration = Duration::from_millis(200);

/// Waits until the store answers: etcd is often started beside the server.
async fn answering(store: &dyn Store, patience: Duration, stop: &CancellationToken) -> Result<(), StartError> {
    let deadline = Instant::now() + patience;
    let mut told = false;
    while let Err(error) = store.ping().await {
        if stop.is_cancelled() || Instant::now() >= deadline {
            return Err(error.into());
        }
        if !told {
            tracing::warn!(err = %error, "waiting for the store");
            told = true;
        }
        stop.run_until_cancelled(tokio::time::sleep(STORE_RETRY)).await;
    }
    Ok(())
}

/// The store that the flags name. Waiting for it ends at `stop`, keeping it in shape when all is `finished`.
pub(crate) async fn open(
    options: &Options,
    stop: &CancellationToken,
    finished: &CancellationToken,
) -> Result<Arc<dyn Store>, StartError> {
    let storage = &options.storage;
    if !storage.is_shared() {
        let store = EmbeddedStore::open(&storage.embedded_store_dir, EmbeddedOptions::default()).await?;
        return Ok(Arc::new(store));
    }
    connected(options, &storage.etcd_servers, stop, finished).await
}

/// etcd servers, once they answer.
async fn connected(
    options: &Options,
    servers: &[String],
    stop: &CancellationToken,
    finished: &CancellationToken,
) -> Result<Arc<dyn Store>, StartError> {
    let storage = &options.storage;
    let mut etcd = EtcdOptions::new(servers.to_vec());
    etcd.ca_file.clone_from(&storage.etcd_cafile);
    etcd.cert_file.clone_from(&storage.etcd_certfile);
    etcd.key_file.clone_from(&storage.etcd_keyfile);
    etcd.lease_reuse = Some(Duration::from_secs(storage.lease_reuse_duration_seconds));
    let store = Arc::new(EtcdStore::connect(etcd).await?);
    answering(&*store, options.generic.storage_initialization_timeout, stop).await?;
    let interval = storage.etcd_compaction_interval;
    if interval.is_zero() {
        return Ok(store);
    }
    let (compacting, finished) = (Arc::clone(&store), finished.clone());
    tokio::spawn(finished.run_until_cancelled_owned(async move { compacting.keep_compacting(interval).await }));
    Ok(store)
}

/// Stores of single resources: one for all the resources that name the same servers.
#[derive(Default)]
pub(crate) struct Overrides {
    /// The stores, in the order of the flags.
    pub(crate) stores: Vec<Arc<dyn Store>>,
    /// Which of them a resource is in.
    pub(crate) places: BTreeMap<GroupResource, usize>,
}

impl Overrides {
    /// Connects to the servers that the flags name.
    pub(crate) async fn open(
        options: &Options,
        stop: &CancellationToken,
        finished: &CancellationToken,
    ) -> Result<Self, StartError> {
        let mut overrides = Self::default();
        let mut known: Vec<Vec<String>> = Vec::new();
        for Override { resource, servers } in options.storage.overrides().map_err(StartError::Flags)? {
            let place = match known.iter().position(|others| *others == servers) {
                Some(place) => place,
                None => {
                    overrides.stores.push(connected(options, &servers, stop, finished).await?);
                    known.push(servers);
                    known.len() - 1
                }
            };
            overrides.places.insert(resource, place);
        }
        Ok(overrides)
    }

    /// The store of each resource that has its own.
    pub(crate) fn by_resource(&self) -> BTreeMap<GroupResource, Arc<dyn Store>> {
        let store = |(resource, place): (&GroupResource, &usize)| {
            self.stores.get(*place).map(|store| (resource.clone(), Arc::clone(store)))
        };
        self.places.iter().filter_map(store).collect()
    }
}

/// The stores with the values of some resources encrypted, if the flags say so.
pub(crate) async fn seal(
    store: &mut Arc<dyn Store>,
    overrides: &mut Overrides,
    options: &Options,
    runtime: &Runtime,
    id: &str,
    stop: &CancellationToken,
) -> Result<(), StartError> {
    let storage = &options.storage;
    let Some(file) = &storage.encryption_provider_config else { return Ok(()) };
    let (prefix, reloads) = (storage.prefix(), storage.encryption_provider_config_automatic_reload);
    let in_use = encryption::InUse::start(file, prefix, reloads, (&runtime.registry, id), stop).await?;
    in_use.add_checks(&runtime.health);
    for store in std::iter::once(store).chain(&mut overrides.stores) {
        *store = Arc::new(EncryptedStore::new(Arc::clone(store), in_use.rules()));
    }
    Ok(())
}

/// Tells the metrics how large the store is, as often as the flags say, until `stop`.
pub(crate) fn tell_size(options: &Options, store: &Arc<dyn Store>, metrics: &StoreMetrics, stop: &CancellationToken) {
    let every = options.storage.etcd_db_metric_poll_interval;
    if every.is_zero() {
        return;
    }
    let (store, metrics) = (Arc::clone(store), metrics.clone());
    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        loop {
            match tokio::time::timeout(SIZE_PATIENCE, store.size_bytes()).await {
                Ok(Ok(bytes)) => metrics.set_size("etcd-0", bytes),
                Ok(Err(error)) => tracing::info!(%error, "the size of the store is not known"),
                Err(_) => tracing::info!("the store does not tell its size in time"),
            }
            tokio::time::sleep(every).await;
        }
    }));
}
