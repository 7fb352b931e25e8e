//! An OCI image archive with one image of one layer.

use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use crate::error::{Context, Result};

/// An image that can be imported.
pub struct Archive {
    /// The archive.
    pub bytes: Vec<u8>,
    /// Digest of its configuration: what a runtime calls the id of the image.
    pub id: String,
}

/// Makes the archive of an image that goes by all of `references`.
pub fn archive(layer: &[u8], entrypoint: &[String], references: &[String]) -> Result<Archive> {
    let layer_digest = sha256(layer);
    let (os, architecture) = runtime::version::platform().split_once('/').unwrap_or(("linux", "amd64"));
    let config = encode(&json!({
        "architecture": architecture,
        "os": os,
        "created": "1970-01-01T00:00:00Z",
        "config": {
            "Entrypoint": entrypoint,
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "kubeadm"}],
    }))?;
    let id = sha256(&config);
    let manifest = encode(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &id, config.len()),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer_digest, layer.len())],
    }))?;
    let manifest_digest = sha256(&manifest);
    let entry = |reference: &String| {
        let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest_digest, manifest.len());
        let tag = reference.rsplit(':').next().unwrap_or_default();
        entry["annotations"] = json!({"io.containerd.image.name": reference, "org.opencontainers.image.ref.name": tag});
        entry
    };
    let index = encode(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": references.iter().map(entry).collect::<Vec<_>>(),
    }))?;
    let mut tar = Builder::new(Vec::with_capacity(layer.len() + (64 << 10)));
    let blob = |digest: &str| format!("blobs/sha256/{}", digest.trim_start_matches("sha256:"));
    let files: [(String, &[u8]); 5] = [
        ("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json".into(), &index),
        (blob(&manifest_digest), &manifest),
        (blob(&id), &config),
        (blob(&layer_digest), layer),
    ];
    for (path, content) in files {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_mtime(0);
        tar.append_data(&mut header, path, content).context("cannot write an image archive")?;
    }
    Ok(Archive { bytes: tar.into_inner().context("cannot write an image archive")?, id })
}

fn descriptor(media_type: &str, digest: &str, size: usize) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": size})
}

fn encode(value: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec(value).context("cannot write an image archive")
}

fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(digest(&SHA256, bytes)))
}
