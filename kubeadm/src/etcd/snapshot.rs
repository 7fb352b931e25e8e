//! Snapshots of etcd's data: files as etcdctl and etcdutl read and write them. The last 32 bytes of one are the SHA-256
//! of the bytes before.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{AsyncBufRead, AsyncBufReadExt, StreamExt};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{CALL, Etcd};
use crate::{
    error::{Context, Error, Result, fail},
    host::Host,
};

/// Bytes that are written at once.
const BLOCK: usize = 4 << 20;
/// Bytes of the sum at the end.
const SUM: usize = 32;
/// Time for the next part of a snapshot.
const PATIENCE: std::time::Duration = CALL.saturating_mul(10);

/// The bytes of a snapshot as they come.
#[derive(Default)]
struct Checked {
    hasher: Sha256,
    tail: Vec<u8>,
}

impl Checked {
    fn add(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let known = self.tail.len().saturating_sub(SUM);
        self.hasher.update(&self.tail[..known]);
        self.tail.drain(..known);
    }

    /// Whether what came is a whole snapshot.
    fn ends_whole(self) -> bool {
        self.tail.len() == SUM && self.hasher.finalize()[..] == self.tail[..]
    }
}

/// Writes a snapshot of a member's data to a file, in a directory that is made if need be, and answers its size in bytes. The file is there when it is whole.
pub async fn save(host: &dyn Host, etcd: &Etcd, file: &Path) -> Result<u64> {
    if let Some(directory) = file.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        let made = host.create_directory(directory, 0o700);
        made.with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let lines = etcd.snapshot().await.context("cannot begin a snapshot")?;
    let part = PathBuf::from(format!("{}.part", file.display()));
    let wrote = async {
        host.remove(&part).context("cannot remove what is left of an earlier snapshot")?;
        receive(host, lines, &part).await
    };
    match wrote.await {
        Ok(bytes) => {
            host.rename(&part, file).with_context(|| format!("cannot write {}", file.display()))?;
            Ok(bytes)
        }
        Err(error) => {
            let _absent = host.remove(&part).is_err();
            Err(error)
        }
    }
}

async fn receive(host: &dyn Host, lines: impl AsyncBufRead, part: &Path) -> Result<u64> {
    let mut lines = Box::pin(lines).lines();
    let (mut checked, mut block, mut bytes) = (Checked::default(), Vec::new(), 0_u64);
    let mut write = |block: &mut Vec<u8>| {
        bytes += block.len() as u64;
        let written = host.append(part, 0o600, block);
        block.clear();
        written.with_context(|| format!("cannot write {}", part.display()))
    };
    loop {
        let next = tokio::time::timeout(PATIENCE, lines.next()).await;
        let Some(line) = next.map_err(|_| Error::new("etcd stopped sending"))? else { break };
        let data = blob(&line.context("the snapshot broke off")?)?;
        checked.add(&data);
        block.extend_from_slice(&data);
        if block.len() >= BLOCK {
            write(&mut block)?;
        }
    }
    write(&mut block)?;
    if checked.ends_whole() { Ok(bytes) } else { fail!("the snapshot is not whole: its sum is another one") }
}

/// The bytes of one message of the stream.
fn blob(line: &str) -> Result<Vec<u8>> {
    let message: Value = serde_json::from_str(line).context("etcd sent something else than a snapshot")?;
    if let Some(error) = message.get("error") {
        return fail!("etcd sent an error: {error}");
    }
    // A message without a part has an empty one.
    let text = message.pointer("/result/blob").and_then(Value::as_str).unwrap_or_default();
    STANDARD.decode(text).context("etcd sent a part of a snapshot that cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::recorder::Recorder;

    fn stream(parts: &[&[u8]]) -> String {
        parts.iter().map(|p| format!("{{\"result\":{{\"blob\":\"{}\"}}}}\n", STANDARD.encode(p))).collect()
    }

    #[tokio::test]
    async fn only_whole_snapshots_count() {
        let data = vec![7_u8; 100];
        let sum = Sha256::digest(&data);
        let file = Path::new("/backup/part");
        let host = Recorder::default();
        let whole = stream(&[&data[..60], &data[60..], &sum]);
        assert_eq!(receive(&host, whole.as_bytes(), file).await.unwrap(), 132);
        assert_eq!(host.read(file).unwrap(), [&data[..], &sum[..]].concat());
        let error = |text: String| async move {
            receive(&Recorder::default(), text.as_bytes(), file).await.unwrap_err().to_string()
        };
        assert_eq!(error(stream(&[&data, &sum[..31]])).await, "the snapshot is not whole: its sum is another one");
        assert_eq!(error(stream(&[])).await, "the snapshot is not whole: its sum is another one");
        let told = error("{\"error\":{\"message\":\"no leader\"}}\n".into()).await;
        assert_eq!(told, "etcd sent an error: {\"message\":\"no leader\"}");
    }
}
