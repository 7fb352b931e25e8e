//! Volumes of storage drivers: the node's part.
//!
//! What is published is written down beside it, so that a later kubelet takes it down as this one would. In memory is
//! only what spares calls: which volumes this process has staged and published. Both calls may be repeated, and are
//! after a restart. Operations on one volume take turns: staging by one Pod never meets unstaging for another.

mod driver;
mod layout;
mod node;
mod request;
mod setup;
mod teardown;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

pub(crate) use layout::PLUGIN;
use layout::unique_name;
pub use node::CsiNodes;
pub(crate) use request::Wanted;
pub use setup::VolumeUse;
pub(crate) use setup::{ATTACH, Context};

use crate::events::Events;
use crate::objects::Objects;
use crate::paths::Paths;
use crate::platform::Platform;
use driver::Driver;
use layout::Layout;

/// A volume: driver and handle.
type VolumeKey = (String, String);
/// A volume of a Pod: UID and the name of the volume's directory.
type PlaceKey = (String, String);

/// Why a volume is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CsiError {
    /// A step failed.
    Step {
        /// As events name it.
        operation: &'static str,
        /// Cause.
        message: String,
    },
    /// Somebody else has to act first.
    Waiting(String),
    /// The node has as many volumes of the driver as it can have.
    Limit(String),
}

impl CsiError {
    fn set_up(message: impl Into<String>) -> Self {
        Self::Step { operation: "MountVolume.SetUp", message: message.into() }
    }
}

/// Drivers of this node and their volumes.
pub struct Csi {
    layout: Layout,
    platform: Arc<dyn Platform>,
    objects: Arc<dyn Objects>,
    events: Events,
    node: String,
    /// The controller attaches volumes to this node.
    attached_elsewhere: bool,
    drivers: Mutex<BTreeMap<String, Driver>>,
    turns: Mutex<HashMap<VolumeKey, Arc<Semaphore>>>,
    staged: Mutex<BTreeSet<VolumeKey>>,
    published: Mutex<BTreeSet<PlaceKey>>,
    /// Volumes that the attach side must leave attached, with the Pods that use them.
    in_use: Mutex<BTreeMap<String, BTreeSet<String>>>,
    /// What the Node in the API says is in use.
    reported: Mutex<BTreeSet<String>>,
    report: Notify,
    /// The CSINode exists.
    initialised: AtomicBool,
}

impl Csi {
    /// No drivers yet. `attached_elsewhere`: whether the controller attaches volumes to this node. What an earlier kubelet left in use counts as in use.
    pub fn new(
        paths: &Paths,
        platform: Arc<dyn Platform>,
        objects: Arc<dyn Objects>,
        events: Events,
        node: &str,
        attached_elsewhere: bool,
    ) -> Arc<Self> {
        let csi = Self {
            layout: Layout::new(paths.clone()),
            platform,
            objects,
            events,
            node: node.to_owned(),
            attached_elsewhere,
            drivers: Mutex::default(),
            turns: Mutex::default(),
            staged: Mutex::default(),
            published: Mutex::default(),
            in_use: Mutex::default(),
            reported: Mutex::default(),
            report: Notify::new(),
            initialised: AtomicBool::new(false),
        };
        match csi.layout.all() {
            Ok(found) => {
                for one in found.iter().filter(|one| !one.data.attachment.is_empty()) {
                    csi.use_by(&unique_name(&one.data.driver_name, &one.data.volume_handle), &one.uid);
                }
            }
            Err(error) => tracing::error!(%error, "reading which volumes of drivers are in use"),
        }
        Arc::new(csi)
    }

    /// This node.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    fn driver(&self, name: &str) -> Result<Driver, String> {
        let known = self.drivers.lock().get(name).cloned();
        known.ok_or_else(|| format!("driver name {name} not found in the list of registered CSI drivers"))
    }

    /// Waits until nobody works on a volume, and keeps others from it.
    async fn turn(&self, key: &VolumeKey) -> Option<OwnedSemaphorePermit> {
        let turn = Arc::clone(self.turns.lock().entry(key.clone()).or_insert_with(|| Arc::new(Semaphore::new(1))));
        // Semaphores of volumes are never closed.
        turn.acquire_owned().await.ok()
    }

    /// Forgets the turns of a volume that nobody waits for.
    fn forget_turns(&self, key: &VolumeKey) {
        let mut turns = self.turns.lock();
        if turns.get(key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(key);
        }
    }

    fn use_by(&self, volume: &str, uid: &str) {
        let fresh = self.in_use.lock().entry(volume.to_owned()).or_default().insert(uid.to_owned());
        if fresh && !self.reported.lock().contains(volume) {
            self.report.notify_one();
        }
    }

    fn unuse_by(&self, volume: &str, uid: &str) {
        let mut in_use = self.in_use.lock();
        if let Some(users) = in_use.get_mut(volume) {
            users.remove(uid);
            if users.is_empty() {
                in_use.remove(volume);
                self.report.notify_one();
            }
        }
    }

    /// Volumes to be left attached, as the Node lists them.
    pub fn in_use(&self) -> Vec<String> {
        self.in_use.lock().keys().cloned().collect()
    }

    /// The Node says now that these are in use.
    pub fn in_use_reported(&self, volumes: &[String]) {
        *self.reported.lock() = volumes.iter().cloned().collect();
    }

    /// Returns when the Node should say anew what is in use.
    pub async fn in_use_changed(&self) {
        self.report.notified().await;
    }

    /// What keeps the node from being ready.
    pub fn problem(&self) -> Option<String> {
        (!self.initialised.load(Ordering::Relaxed)).then(|| "CSINode is not yet initialized".to_owned())
    }

    /// There is no API to have a CSINode in.
    pub fn stand_alone(&self) {
        self.initialised.store(true, Ordering::Relaxed);
    }
}
