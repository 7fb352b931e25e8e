//! Getting volumes of drivers ready for a Pod.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::CSIDriver;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::json;

use super::driver::{Driver, Request};
use super::layout::{Lifecycle, VolumeData, attachment_name, unique_name};
use super::request::{SecretName, TOKENS, Wanted};
use super::{Csi, CsiError};
use crate::events::EventType;
use crate::pods;
use crate::pods::quantity;
use crate::volumes::{ChangePolicy, Tokens, blocking, give_to_group};

/// The Pod that wants a volume.
pub(crate) struct Context<'a> {
    pub pod: &'a Pod,
    pub tokens: &'a Tokens,
    /// Group that files are given to, and how thoroughly.
    pub group: Option<(u32, ChangePolicy)>,
    /// The claim and the size of the volume behind it.
    pub claim: Option<(&'a PersistentVolumeClaim, Option<Quantity>)>,
}

/// The step that puts a volume within the node's reach.
pub(crate) const ATTACH: &str = "AttachVolume.Attach";
/// The code of errors of drivers that have no room left.
const EXHAUSTED: i32 = tonic::Code::ResourceExhausted as i32;
const STAGE: &str = "MountVolume.MountDevice";
const MAP: &str = "MapVolume.MapPodDevice";

impl Csi {
    /// Makes a volume ready and answers where it is: a directory, or the link to a device.
    pub(crate) async fn set_up(&self, wanted: &Wanted, context: &Context<'_>) -> Result<PathBuf, CsiError> {
        let uid = pods::uid(context.pod);
        let driver = self.driver(&wanted.driver).map_err(|error| unknown(wanted, &error))?;
        let object = self.objects.csi_driver(&wanted.driver).await;
        let object = object.map_err(|error| CsiError::set_up(error.to_string()))?;
        wanted
            .check_lifecycle(object.as_ref())
            .map_err(|message| CsiError::Step { operation: "MountVolume.NewMounter initialization", message })?;
        let publish_context = self.attached(wanted, object.as_ref(), uid).await?;
        let key = (wanted.driver.clone(), wanted.handle.clone());
        let turn = self.turn(&key).await;
        let work = Work { csi: self, wanted, context, driver: &driver, object: object.as_ref(), publish_context };
        let staging = work.stage().await?;
        let path = work.publish(staging.as_deref()).await?;
        work.expand(&path, staging.as_deref()).await?;
        drop(turn);
        Ok(path)
    }

    /// Waits for whoever attaches volumes; answers what it found out about this one.
    async fn attached(
        &self,
        wanted: &Wanted,
        object: Option<&CSIDriver>,
        uid: &str,
    ) -> Result<BTreeMap<String, String>, CsiError> {
        let required = object.is_none_or(|driver| driver.spec.attach_required != Some(false));
        if wanted.lifecycle == Lifecycle::Ephemeral || !required {
            return Ok(BTreeMap::new());
        }
        if !self.attached_elsewhere {
            // Volumes of drivers are attached by the controller alone, and this node is not in its care.
            let message = "attaching volumes from the kubelet is not supported".to_owned();
            return Err(CsiError::Step { operation: ATTACH, message });
        }
        let volume = unique_name(&wanted.driver, &wanted.handle);
        self.use_by(&volume, uid);
        let failed = |error: crate::objects::ObjectError| CsiError::set_up(error.to_string());
        if !self.published.lock().contains(&(uid.to_owned(), wanted.spec_name.clone())) {
            if !self.reported.lock().contains(&volume) {
                return Err(CsiError::Waiting(format!(
                    "volume {volume} has not been added to the list of VolumesInUse in the node's volume status"
                )));
            }
            let attached = self.objects.node(&self.node).await.map_err(failed)?.status.and_then(|s| s.volumes_attached);
            if !attached.iter().flatten().any(|one| one.name == volume) {
                self.check_limit(wanted).await?;
                return Err(CsiError::Waiting(format!("volume {volume} is not attached according to node status")));
            }
        }
        let name = attachment_name(&wanted.handle, &wanted.driver, &self.node);
        let Some(attachment) = self.objects.attachment(&name).await.map_err(failed)? else {
            return Err(CsiError::Waiting(format!("volumeattachments.storage.k8s.io {name:?} not found")));
        };
        match attachment.status {
            Some(status) if status.attached => Ok(status.attachment_metadata.unwrap_or_default()),
            Some(status) => {
                let error = status.attach_error.and_then(|error| error.message);
                Err(CsiError::Waiting(error.unwrap_or_else(|| "volume is not attached yet".to_owned())))
            }
            None => Err(CsiError::Waiting("volume is not attached yet".to_owned())),
        }
    }
}

impl Csi {
    /// Whether a volume that is not attached could not be, because the node has as many as it can have.
    async fn check_limit(&self, wanted: &Wanted) -> Result<(), CsiError> {
        let name = attachment_name(&wanted.handle, &wanted.driver, &self.node);
        let found = self.objects.attachment(&name).await.ok().flatten();
        let error = found.and_then(|found| found.status?.attach_error);
        match error {
            Some(error) if error.error_code == Some(EXHAUSTED) => {
                Err(CsiError::Limit(error.message.unwrap_or_default()))
            }
            _ => Ok(()),
        }
    }
}

/// A driver that is not there, in the words of the step that needs it first.
fn unknown(wanted: &Wanted, error: &str) -> CsiError {
    let (operation, step) = match (wanted.lifecycle, wanted.block) {
        (Lifecycle::Ephemeral, _) => ("MountVolume.SetUp", "mounter.SetUpAt failed to get CSI client"),
        (_, false) => (STAGE, "attacher.MountDevice failed to create newCsiDriverClient"),
        (_, true) => ("MapVolume.SetUpDevice", "blockMapper.SetUpDevice failed to get CSI client"),
    };
    CsiError::Step { operation, message: format!("kubernetes.io/csi: {step}: {error}") }
}

/// One volume of one Pod, while it is this task's turn.
struct Work<'a> {
    csi: &'a Csi,
    wanted: &'a Wanted,
    context: &'a Context<'a>,
    driver: &'a Driver,
    object: Option<&'a CSIDriver>,
    publish_context: BTreeMap<String, String>,
}

impl Work<'_> {
    fn uid(&self) -> &str {
        pods::uid(self.context.pod)
    }

    fn data(&self) -> VolumeData {
        let Wanted { spec_name, handle, driver, lifecycle, .. } = self.wanted;
        let attachment = match lifecycle {
            Lifecycle::Persistent => attachment_name(handle, driver, &self.csi.node),
            Lifecycle::Ephemeral => String::new(),
        };
        VolumeData {
            spec_name: spec_name.clone(),
            volume_handle: handle.clone(),
            driver_name: driver.clone(),
            node_name: self.csi.node.clone(),
            attachment,
            lifecycle: *lifecycle,
        }
    }

    /// The group, if the driver sees to it itself.
    fn drivers_group(&self) -> Option<u32> {
        self.context.group.filter(|_| self.driver.abilities.mount_group).map(|(group, _)| group)
    }

    async fn secrets(&self, name: Option<&SecretName>) -> Result<BTreeMap<String, String>, String> {
        let Some((namespace, name)) = name else { return Ok(BTreeMap::new()) };
        let secret = self.csi.objects.secret(namespace, name).await;
        let secret = secret.map_err(|error| format!("failed to get secret {namespace}/{name}: {error}"))?;
        let data = secret.data.iter().flatten();
        Ok(data.map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned())).collect())
    }

    fn request<'b>(
        &'b self,
        staging: Option<&'b Path>,
        secrets: &'b BTreeMap<String, String>,
        context: &'b BTreeMap<String, String>,
    ) -> Request<'b> {
        Request {
            handle: &self.wanted.handle,
            publish_context: &self.publish_context,
            context,
            secrets,
            staging,
            capability: self.wanted.capability(self.driver.abilities, self.drivers_group()),
        }
    }

    /// Stages the volume on the node, once for all Pods.
    async fn stage(&self) -> Result<Option<PathBuf>, CsiError> {
        let Wanted { driver, handle, spec_name, block, .. } = self.wanted;
        if self.wanted.lifecycle == Lifecycle::Ephemeral || !self.driver.abilities.stage {
            return Ok(None);
        }
        let staging = self.csi.layout.staging(driver, handle, block.then_some(spec_name));
        let key = (driver.clone(), handle.clone());
        if self.csi.staged.lock().contains(&key) {
            return Ok(Some(staging));
        }
        let operation = if *block { "MapVolume.SetUpDevice" } else { STAGE };
        let failed = |message: String| CsiError::Step { operation, message };
        let (layout, data, dir, block) = (self.csi.layout.clone(), self.data(), staging.clone(), *block);
        // The note for the Pod comes first: whatever staging leaves is then cleaned up after it.
        let uid = self.uid().to_owned();
        blocking(move || {
            layout.prepare_target(&uid, &data, block)?;
            layout.prepare_staging(&dir, &data, block)
        })
        .await
        .map_err(failed)?;
        let secrets = self.secrets(self.wanted.stage_secret.as_ref()).await.map_err(failed)?;
        let request = self.request(Some(&staging), &secrets, &self.wanted.attributes);
        self.driver.stage(request).await.map_err(|error| failed(error.to_string()))?;
        self.csi.staged.lock().insert(key);
        Ok(Some(staging))
    }

    /// Publishes the volume for the Pod: the first time, and for drivers that want it every time.
    async fn publish(&self, staging: Option<&Path>) -> Result<PathBuf, CsiError> {
        let (uid, name, block) = (self.uid().to_owned(), self.wanted.spec_name.clone(), self.wanted.block);
        let place = (uid.clone(), name.clone());
        let done = self.csi.published.lock().contains(&place);
        let again = self.object.is_some_and(|driver| driver.spec.requires_republish == Some(true));
        let (target, ready) = match block {
            true => (self.csi.layout.device_target(&uid, &name), self.csi.layout.device_link(&uid, &name)),
            false => (self.csi.layout.target(&uid, &name), self.csi.layout.target(&uid, &name)),
        };
        if done && !again {
            return Ok(ready);
        }
        let operation = if block { MAP } else { "MountVolume.SetUp" };
        let failed = |message: String| CsiError::Step { operation, message };
        let mut context = self.wanted.context(self.context.pod, self.object);
        let mut secrets = self.secrets(self.wanted.publish_secret.as_ref()).await.map_err(failed)?;
        if let Some(tokens) = self.tokens().await.map_err(failed)? {
            let hidden = self.object.is_some_and(|o| o.spec.service_account_token_in_secrets == Some(true));
            if hidden { &mut secrets } else { &mut context }.insert(TOKENS.to_owned(), tokens);
        }
        let (layout, data) = (self.csi.layout.clone(), self.data());
        let owner = uid.clone();
        blocking(move || layout.prepare_target(&owner, &data, block).map(drop)).await.map_err(failed)?;
        let request = self.request(staging, &secrets, &context);
        let published = self.driver.publish(request, &target, self.wanted.read_only).await;
        if let Err(error) = published {
            if !done {
                return Err(failed(format!("rpc error: {}", error.to_string().trim_start_matches("rpc error: "))));
            }
            // What works is left alone.
            tracing::warn!(pod = pods::describe(self.context.pod), volume = name, %error, "publishing again");
            return Ok(ready);
        }
        if !done {
            self.finish(&target).await.map_err(failed)?;
            self.csi.published.lock().insert(place);
        }
        Ok(ready)
    }

    /// What follows the first publication: the group, or the link to the device.
    async fn finish(&self, target: &Path) -> Result<(), String> {
        let (layout, uid, name) = (self.csi.layout.clone(), self.uid().to_owned(), self.wanted.spec_name.clone());
        if self.wanted.block {
            return blocking(move || layout.link_device(&uid, &name).map(drop)).await;
        }
        let group = self.context.group.filter(|_| self.drivers_group().is_none());
        let Some((group, policy)) = group.filter(|_| self.wanted.wants_group(self.object)) else { return Ok(()) };
        give_to_group(&self.csi.events, self.context.pod, &name, target, (group, policy)).await
    }

    /// Tokens of the Pod's account for the audiences that the driver names.
    async fn tokens(&self) -> Result<Option<String>, String> {
        let asked = self.object.and_then(|driver| driver.spec.token_requests.as_deref()).unwrap_or_default();
        if asked.is_empty() {
            return Ok(None);
        }
        let mut tokens = BTreeMap::new();
        for one in asked {
            let issued = self.context.tokens.of_audience(
                self.context.pod,
                &one.audience,
                one.expiration_seconds,
                &*self.csi.objects,
            );
            let (token, expires) = issued.await.map_err(|error| error.to_string())?;
            let expires = expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            tokens.insert(one.audience.clone(), json!({ "token": token, "expirationTimestamp": expires }));
        }
        serde_json::to_string(&tokens).map(Some).map_err(|error| error.to_string())
    }

    /// Lets the file system grow to the size that the volume has got, and tells the claim.
    async fn expand(&self, path: &Path, staging: Option<&Path>) -> Result<(), CsiError> {
        let Some((claim, Some(size))) = self.context.claim.as_ref() else { return Ok(()) };
        let told = claim.status.as_ref().and_then(|status| status.capacity.as_ref()?.get("storage"));
        let grown = told.is_some_and(|told| quantity::value(told) < quantity::value(size));
        if !grown || self.wanted.read_only {
            return Ok(());
        }
        let pod = self.context.pod;
        if self.driver.abilities.expand {
            let failed = |message: String| CsiError::Step { operation: "MountVolume.NodeExpandVolume", message };
            let secrets = self.secrets(self.wanted.expand_secret.as_ref()).await.map_err(failed)?;
            let target = match self.wanted.block {
                true => self.csi.layout.device_target(self.uid(), &self.wanted.spec_name),
                false => path.to_owned(),
            };
            let request = self.request(staging, &secrets, &self.wanted.attributes);
            if let Err(error) = self.driver.expand(request, &target, quantity::value(size)).await {
                let text = format!(
                    "NodeExpandVolume.NodeExpandVolume failed for volume {:?} : {error}",
                    self.wanted.spec_name
                );
                self.csi.events.pod(pod, EventType::Warning, "VolumeResizeFailed", text);
                let final_code = error.is_final();
                if let Err(error) = self.csi.objects.claim_not_resized(claim, final_code).await {
                    tracing::warn!(%error, "status of a claim that could not be resized");
                }
                // The Pod runs with what there is; the next round tries again.
                return Ok(());
            }
        }
        let written = self.csi.objects.claim_resized(claim, size).await;
        written.map_err(|error| CsiError::set_up(error.to_string()))?;
        let text =
            format!("MountVolume.NodeExpandVolume succeeded for volume {:?} {}", self.wanted.spec_name, self.csi.node);
        self.csi.events.pod(pod, EventType::Normal, "FileSystemResizeSuccessful", text.as_str());
        self.csi.events.claim(claim, EventType::Normal, "FileSystemResizeSuccessful", text);
        Ok(())
    }
}

/// Sizes and conditions of a published volume, if its driver tells them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeUse {
    /// Bytes: total, available, used.
    pub bytes: Option<(u64, u64, u64)>,
    /// Inodes: total, available, used.
    pub inodes: Option<(u64, u64, u64)>,
    /// The driver says that something is wrong with it.
    pub abnormal: Option<bool>,
}

impl Csi {
    /// What a driver says about a volume of a Pod.
    pub async fn stats(&self, uid: &str, driver: &str, handle: &str, spec_name: &str) -> Option<VolumeUse> {
        let known = self.driver(driver).ok().filter(|driver| driver.abilities.stats)?;
        let target = self.layout.target(uid, spec_name);
        let staging = known.abilities.stage.then(|| self.layout.staging(driver, handle, None));
        let answer = known.stats(handle, &target, staging.as_deref()).await.ok()?;
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        let of = |unit: proto::csi::volume_usage::Unit| {
            let usage = answer.usage.iter().find(|usage| usage.unit == unit as i32)?;
            Some((number(usage.total), number(usage.available), number(usage.used)))
        };
        Some(VolumeUse {
            bytes: of(proto::csi::volume_usage::Unit::Bytes),
            inodes: of(proto::csi::volume_usage::Unit::Inodes),
            abnormal: answer.volume_condition.as_ref().map(|condition| condition.abnormal),
        })
    }
}
