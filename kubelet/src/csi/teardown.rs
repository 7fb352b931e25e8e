//! Taking volumes of drivers down.

use super::driver::Driver;
use super::layout::{Found, Lifecycle};
use super::{Csi, VolumeKey, Wanted};
use crate::cri::CriError;
use crate::volumes::blocking;

impl Csi {
    /// Unpublishes everything of a Pod, and unstages what nobody else on the node uses. What fails does not keep the
    /// rest; all that failed is answered.
    pub(crate) async fn tear_down(&self, uid: &str) -> Result<(), Vec<String>> {
        let (layout, owner) = (self.layout.clone(), uid.to_owned());
        let found = blocking(move || layout.of_pod(&owner)).await.map_err(|error| vec![error])?;
        let mut errors = Vec::new();
        for one in &found {
            let key = (one.data.driver_name.clone(), one.data.volume_handle.clone());
            let turn = self.turn(&key).await;
            let result = self.one(one, &key).await;
            drop(turn);
            self.forget_turns(&key);
            if let Err(error) = result {
                errors.push(format!("volume {:?}: {error}", one.data.spec_name));
            }
        }
        if errors.is_empty() {
            self.forget(uid);
            return Ok(());
        }
        Err(errors)
    }

    async fn one(&self, found: &Found, key: &VolumeKey) -> Result<(), String> {
        let data = &found.data;
        let driver = self.driver(&data.driver_name)?;
        let target = match found.block {
            true => self.layout.device_target(&found.uid, &data.spec_name),
            false => self.layout.target(&found.uid, &data.spec_name),
        };
        unless_gone(driver.unpublish(&data.volume_handle, &target).await)?;
        self.published.lock().remove(&(found.uid.clone(), data.spec_name.clone()));
        if data.lifecycle == Lifecycle::Persistent && self.is_last(found).await? {
            self.unstage(&driver, found, key).await?;
        }
        let (layout, found) = (self.layout.clone(), found.clone());
        let (platform, spec_name) = (std::sync::Arc::clone(&self.platform), data.spec_name.clone());
        blocking(move || {
            // What the driver left mounted is not for the kubelet to take apart.
            if platform.mounts_below(&target)?.is_empty() {
                return layout.remove_target(&found);
            }
            Err(std::io::Error::other(format!("{spec_name} is still mounted after it was unpublished")))
        })
        .await
    }

    /// Whether no other Pod of this node has the volume.
    async fn is_last(&self, found: &Found) -> Result<bool, String> {
        let layout = self.layout.clone();
        let all = blocking(move || layout.all()).await?;
        Ok(!all.iter().any(|other| {
            other.uid != found.uid
                && other.data.driver_name == found.data.driver_name
                && other.data.volume_handle == found.data.volume_handle
        }))
    }

    async fn unstage(&self, driver: &Driver, found: &Found, key: &VolumeKey) -> Result<(), String> {
        if !driver.abilities.stage {
            return Ok(());
        }
        let data = &found.data;
        let spec_name = found.block.then_some(data.spec_name.as_str());
        let staging = self.layout.staging(&data.driver_name, &data.volume_handle, spec_name);
        unless_gone(driver.unstage(&data.volume_handle, &staging).await)?;
        self.staged.lock().remove(key);
        let (layout, block) = (self.layout.clone(), found.block);
        blocking(move || layout.remove_staging(&staging, block)).await
    }

    /// A Pod has nothing of any driver any more.
    fn forget(&self, uid: &str) {
        self.published.lock().retain(|(owner, _)| owner != uid);
        let volumes: Vec<String> = self.in_use();
        volumes.iter().for_each(|volume| self.unuse_by(volume, uid));
    }

    /// Whether another Pod of this node has a volume.
    pub(crate) async fn is_used_by_other(&self, uid: &str, wanted: &Wanted) -> bool {
        let layout = self.layout.clone();
        let all = match blocking(move || layout.all()).await {
            Ok(all) => all,
            Err(error) => {
                tracing::warn!(error, "who uses a volume is unknown");
                return true;
            }
        };
        all.iter().any(|other| {
            other.uid != uid && other.data.driver_name == wanted.driver && other.data.volume_handle == wanted.handle
        })
    }

    /// Whether the Pod still has a volume of a driver.
    pub(crate) fn has(&self, uid: &str) -> bool {
        self.layout.of_pod(uid).map_or(true, |found| !found.is_empty())
    }
}

/// A volume that the driver does not know is as good as taken down.
fn unless_gone(result: Result<(), CriError>) -> Result<(), String> {
    match result {
        Err(error) if !error.is_not_found() => Err(error.to_string()),
        _ => Ok(()),
    }
}
