//! Removing what is not needed any more: images, dead containers and sandboxes, logs of Pods that are gone.

mod containers;
mod images;
mod logs;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use containers::ContainerPolicy;
pub use images::{ImageGc, ImagePolicy};

use crate::cri::CriError;
use crate::events::EventType;
use crate::services::Services;
use crate::workers::Workers;

const CONTAINER_PERIOD: Duration = Duration::from_secs(60);
const IMAGE_PERIOD: Duration = Duration::from_secs(300);

/// A collection that did not reach its aim.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// The runtime.
    #[error(transparent)]
    Runtime(#[from] CriError),
    /// The file system of images is not known.
    #[error("non-existent image filesystem")]
    NoFileSystem,
    /// Its size makes no sense.
    #[error("invalid capacity 0 on image filesystem")]
    Capacity,
    /// What could be removed was not enough.
    #[error(
        "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found {freed} bytes eligible to free."
    )]
    NotEnough {
        /// Bytes wanted.
        wanted: u64,
        /// Bytes freed.
        freed: u64,
    },
}

/// Collects garbage.
pub struct Gc {
    services: Arc<Services>,
    workers: Arc<Workers>,
    policy: ContainerPolicy,
    images: Arc<ImageGc>,
}

impl Gc {
    /// With the policy of the flags.
    pub fn new(
        services: Arc<Services>,
        workers: Arc<Workers>,
        policy: ContainerPolicy,
        images: Arc<ImageGc>,
    ) -> Arc<Self> {
        Arc::new(Self { services, workers, policy, images })
    }

    /// Collects until stopped.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            ((), ()) = async { tokio::join!(self.containers(), self.images()) } => {}
        }
    }

    async fn containers(&self) {
        let mut failures = 0_u32;
        loop {
            tokio::time::sleep(CONTAINER_PERIOD).await;
            match self.collect_containers().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    tracing::error!(error = util::chain(&error), failures, "container garbage collection failed");
                    self.services.events.node(EventType::Warning, "ContainerGCFailed", error.to_string());
                }
            }
        }
    }

    async fn images(&self) {
        let mut failures = 0_u32;
        loop {
            tokio::time::sleep(IMAGE_PERIOD).await;
            match self.images.collect().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    tracing::error!(error = util::chain(&error), failures, "image garbage collection failed");
                    // The first time there may be no statistics yet.
                    if failures > 1 {
                        self.services.events.node(EventType::Warning, "ImageGCFailed", error.to_string());
                    }
                }
            }
        }
    }

    /// Dead containers, sandboxes and logs, by policy.
    pub async fn collect_containers(&self) -> Result<(), GcError> {
        self.remove_containers(&self.policy).await
    }

    /// All dead containers, whatever the policy keeps.
    pub async fn remove_dead_containers(&self) -> Result<(), GcError> {
        self.remove_containers(&ContainerPolicy { all: true, ..self.policy.clone() }).await
    }

    /// All images that are not used, whatever their age.
    pub async fn remove_unused_images(&self) -> Result<(), GcError> {
        self.images.remove_unused().await
    }

    async fn remove_containers(&self, policy: &ContainerPolicy) -> Result<(), GcError> {
        if !self.workers.is_complete() {
            return Ok(());
        }
        containers::collect(&self.services, &self.workers, policy).await?;
        let (services, workers) = (Arc::clone(&self.services), Arc::clone(&self.workers));
        let cleaned = tokio::task::spawn_blocking(move || {
            logs::remove(&services.paths, |uid| workers.is_gone(uid));
        });
        if let Err(error) = cleaned.await {
            tracing::error!(%error, "logs of pods that are gone");
        }
        Ok(())
    }
}
