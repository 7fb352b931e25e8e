//! What is kept of attachments and drivers.

use ::controller::{Cached, Index, Viewed};
use k8s_openapi::{
    api::storage::v1::{CSIDriver, VolumeAttachment},
    jiff::Timestamp,
};

/// A VolumeAttachment.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct AttachmentView {
    pub(crate) attacher: String,
    pub(crate) node: String,
    /// The PersistentVolume; empty for an inline one.
    pub(crate) volume: String,
    pub(crate) is_attached: bool,
    pub(crate) is_going: bool,
    pub(crate) attach_error: Option<String>,
    pub(crate) detach_error: Option<String>,
    pub(crate) created: Option<Timestamp>,
}

impl AttachmentView {
    /// Index by node.
    pub(crate) const BY_NODE: &'static str = "node";
    /// Index by PersistentVolume.
    pub(crate) const BY_VOLUME: &'static str = "volume";
}

impl Viewed for AttachmentView {
    type Object = VolumeAttachment;

    const INDICES: &'static [Index<Self>] = &[
        Index { name: Self::BY_NODE, keys: |attachment: &Cached<Self>| vec![attachment.node.clone()] },
        Index { name: Self::BY_VOLUME, keys: |attachment: &Cached<Self>| vec![attachment.volume.clone()] },
    ];

    fn project(attachment: VolumeAttachment) -> Self {
        let status = attachment.status.unwrap_or_default();
        Self {
            attacher: attachment.spec.attacher,
            node: attachment.spec.node_name,
            volume: attachment.spec.source.persistent_volume_name.unwrap_or_default(),
            is_attached: status.attached,
            is_going: attachment.metadata.deletion_timestamp.is_some(),
            attach_error: status.attach_error.map(|error| error.message.unwrap_or_default()),
            detach_error: status.detach_error.map(|error| error.message.unwrap_or_default()),
            created: attachment.metadata.creation_timestamp.map(|t| t.0),
        }
    }
}

/// Whether volumes of a driver are attached at all.
#[derive(Debug)]
pub(crate) struct DriverView {
    pub(crate) attaches: bool,
}

impl Viewed for DriverView {
    type Object = CSIDriver;

    fn project(driver: CSIDriver) -> Self {
        Self { attaches: driver.spec.attach_required != Some(false) }
    }
}
