//! The store that the flags name: opened, waited for, encrypted.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use runtime::Runtime;
use storage::{
    contract::Store,
    embedded::{EmbeddedOptions, EmbeddedStore},
    encrypted::EncryptedStore,
    etcd::{EtcdOptions, EtcdStore},
    metered::StoreMetrics,
};
use tokio_util::sync::CancellationToken;

use crate::{StartError, encryption, options::Options};

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
    if options.etcd_servers.is_empty() {
        let store = EmbeddedStore::open(&options.embedded_store_dir, EmbeddedOptions::default()).await?;
        return Ok(Arc::new(store));
    }
    let mut etcd = EtcdOptions::new(options.etcd_servers.clone());
    etcd.ca_file.clone_from(&options.etcd_cafile);
    etcd.cert_file.clone_from(&options.etcd_certfile);
    etcd.key_file.clone_from(&options.etcd_keyfile);
    etcd.lease_reuse = Some(Duration::from_secs(options.lease_reuse_duration_seconds));
    let store = Arc::new(EtcdStore::connect(etcd).await?);
    answering(&*store, options.generic.storage_initialization_timeout, stop).await?;
    let interval = options.etcd_compaction_interval;
    if interval.is_zero() {
        return Ok(store);
    }
    let (compacting, finished) = (Arc::clone(&store), finished.clone());
    tokio::spawn(finished.run_until_cancelled_owned(async move { compacting.keep_compacting(interval).await }));
    Ok(store)
}

/// The store with the values of some resources encrypted, if the flags say so.
pub(crate) async fn sealed(
    store: Arc<dyn Store>,
    options: &Options,
    runtime: &Runtime,
    id: &str,
    stop: &CancellationToken,
) -> Result<Arc<dyn Store>, StartError> {
    let Some(file) = &options.encryption_provider_config else { return Ok(store) };
    let (prefix, reloads) =
        (options.etcd_prefix.trim_end_matches('/'), options.encryption_provider_config_automatic_reload);
    let in_use = encryption::InUse::start(file, prefix, reloads, (&runtime.registry, id), stop).await?;
    in_use.add_checks(&runtime.health);
    Ok(Arc::new(EncryptedStore::new(store, in_use.rules())))
}

/// Tells the metrics how large the store is, as often as the flags say, until `stop`.
pub(crate) fn tell_size(options: &Options, store: &Arc<dyn Store>, metrics: &StoreMetrics, stop: &CancellationToken) {
    let every = options.etcd_db_metric_poll_interval;
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
