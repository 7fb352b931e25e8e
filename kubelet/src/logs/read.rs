//! Reading logs: tail, since, limits, and following over rotation.

use std::future::Future;
use std::io::{self, SeekFrom};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;

use super::parse;
use crate::platform::DirWatch;

const CHUNK: u64 = 16 * 1024;
const MAX_LINE: usize = 1 << 20;
/// How often a follower asks whether the container still runs when nothing is written.
const ALIVE_CHECK: Duration = Duration::from_secs(1);

/// What part of a log, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Only the last lines.
    pub tail: Option<u64>,
    /// At most that many bytes of output.
    pub limit_bytes: Option<u64>,
    /// Only lines from then on.
    pub since: Option<Timestamp>,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Go on while the container runs.
    pub follow: bool,
    /// Only one of the streams.
    pub stderr_only: Option<bool>,
}

/// Sends a log's bytes. Ends when all is read, or with `follow` when the container has stopped and all is read, or when
/// the receiver is gone.
pub async fn stream<F, R>(path: &Path, options: &LogOptions, out: &mpsc::Sender<Bytes>, alive: F) -> io::Result<()>
where
    F: Fn() -> R,
    R: Future<Output = bool>,
{
    let mut watch = match (options.follow, path.parent()) {
        (true, Some(dir)) => Some(DirWatch::new(dir)?),
        _ => None,
    };
    let mut file = File::open(path).await?;
    let start = match options.tail {
        Some(lines) => tail_offset(&mut file, lines).await?,
        None => 0,
    };
    file.seek(SeekFrom::Start(start)).await?;
    let mut inode = identity(&file).await?;
    let mut reader = BufReader::new(file);
    let mut state = Output { options, left: options.limit_bytes, at_line_start: true };
    let mut line = Vec::new();
    loop {
        let limit = u64::try_from(MAX_LINE - line.len()).unwrap_or(0);
        let read = (&mut reader).take(limit).read_until(b'\n', &mut line).await?;
        let complete = line.ends_with(b"\n") || line.len() >= MAX_LINE;
        if complete {
            if !state.send(&line, out).await {
                return Ok(());
            }
            line.clear();
            continue;
        }
        if read > 0 {
            continue;
        }
        // The end of the file for now.
        let Some(watch) = &mut watch else {
            if !line.is_empty() {
                state.send(&line, out).await;
            }
            return Ok(());
        };
        if let Ok(next) = File::open(path).await
            && identity(&next).await? != inode
        {
            inode = identity(&next).await?;
            reader = BufReader::new(next);
            line.clear();
            continue;
        }
        let quiet = tokio::select! {
            changed = tokio::time::timeout(ALIVE_CHECK, watch.changed()) => changed.is_err(),
            () = out.closed() => return Ok(()),
        };
        if quiet && !alive().await {
            // What was written between the last read and the end still counts.
            let mut rest = Vec::new();
            reader.read_to_end(&mut rest).await?;
            for last in rest.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(last);
                if !state.send(&line, out).await {
                    break;
                }
                line.clear();
            }
            return Ok(());
        }
    }
}

async fn identity(file: &File) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let meta = file.metadata().await?;
    Ok((meta.dev(), meta.ino()))
}

struct Output<'a> {
    options: &'a LogOptions,
    left: Option<u64>,
    at_line_start: bool,
}

impl Output<'_> {
    /// Answers whether to go on.
    async fn send(&mut self, raw: &[u8], out: &mpsc::Sender<Bytes>) -> bool {
        let Some(bytes) = self.render(raw) else { return true };
        let cut = match self.left {
            Some(left) => usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len()),
            None => bytes.len(),
        };
        if let Some(left) = &mut self.left {
            *left -= cut as u64;
        }
        let done = self.left == Some(0);
        let sent = cut == 0 || out.send(Bytes::copy_from_slice(&bytes[..cut])).await.is_ok();
        sent && !done
    }

    fn render(&mut self, raw: &[u8]) -> Option<Vec<u8>> {
        let line = parse(raw)?;
        let skipped = self.options.since.is_some_and(|since| line.at < since)
            || self.options.stderr_only.is_some_and(|wanted| wanted != line.is_stderr);
        if skipped {
            return None;
        }
        let mut bytes = Vec::with_capacity(line.text.len() + 40);
        if self.options.timestamps && self.at_line_start {
            let stamp = line.at.strftime("%Y-%m-%dT%H:%M:%S.%9fZ ").to_string();
            bytes.extend_from_slice(stamp.as_bytes());
        }
        bytes.extend_from_slice(line.text);
        if !line.partial {
            bytes.push(b'\n');
        }
        self.at_line_start = !line.partial;
        Some(bytes)
    }
}

/// Where the last `lines` lines of a file begin.
async fn tail_offset(file: &mut File, lines: u64) -> io::Result<u64> {
    let size = file.metadata().await?.len();
    if lines == 0 {
        return Ok(size);
    }
    let mut end = size;
    let mut seen = 0;
    while end > 0 {
        let start = end.saturating_sub(CHUNK);
        file.seek(SeekFrom::Start(start)).await?;
        let mut chunk = vec![0; usize::try_from(end - start).unwrap_or(0)];
        file.read_exact(&mut chunk).await?;
        for (index, byte) in chunk.iter().enumerate().rev() {
            let at = start + index as u64;
            if *byte == b'\n' && at + 1 < size {
                seen += 1;
                if seen == lines {
                    return Ok(at + 1);
                }
            }
        }
        end = start;
    }
    Ok(0)
}

/// The text of the last lines, at most `limit` bytes, streams together.
pub async fn tail_bytes(path: &Path, lines: u64, limit: usize) -> io::Result<Vec<u8>> {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(64);
    let options = LogOptions { tail: Some(lines), ..LogOptions::default() };
    let collect = async {
        let mut all: Vec<u8> = Vec::new();
        while let Some(bytes) = receiver.recv().await {
            all.extend_from_slice(&bytes);
            if all.len() > 2 * limit {
                all.drain(..all.len() - limit);
            }
        }
        all
    };
    let read = async move {
        let result = stream(path, &options, &sender, || async { false }).await;
        drop(sender);
        result
    };
    let (result, mut all) = tokio::join!(read, collect);
    result?;
    if all.len() > limit {
        all.drain(..all.len() - limit);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(content: &str, options: LogOptions) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, content).unwrap();
        let (sender, mut receiver) = mpsc::channel(1000);
        stream(&path, &options, &sender, || async { false }).await.unwrap();
        drop(sender);
        let mut out = Vec::new();
        while let Some(bytes) = receiver.recv().await {
            out.extend_from_slice(&bytes);
        }
        String::from_utf8(out).unwrap()
    }

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stderr P tw\n2026-01-01T00:00:02Z stderr F o\n2026-01-01T00:00:03Z stdout F three\n";

    #[tokio::test]
    async fn options() {
        let default = LogOptions::default();
        assert_eq!(read(LOG, default.clone()).await, "one\ntwo\nthree\n");
        assert_eq!(read(LOG, LogOptions { tail: Some(1), ..default.clone() }).await, "three\n");
        assert_eq!(read(LOG, LogOptions { tail: Some(0), ..default.clone() }).await, "");
        assert_eq!(read(LOG, LogOptions { limit_bytes: Some(5), ..default.clone() }).await, "one\nt");
        let since = Some("2026-01-01T00:00:03Z".parse().unwrap());
        assert_eq!(
            read(LOG, LogOptions { since, timestamps: true, ..default }).await,
            "2026-01-01T00:00:03.000000000Z three\n"
        );
    }

    #[tokio::test]
    async fn follows_over_rotation_until_the_container_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, "2026-01-01T00:00:01Z stdout F one\n").unwrap();
        let (sender, mut receiver) = mpsc::channel(10);
        let followed = path.clone();
        let task = tokio::spawn(async move {
            let options = LogOptions { follow: true, ..LogOptions::default() };
            stream(&followed, &options, &sender, || async { false }).await
        });
        assert_eq!(receiver.recv().await.unwrap(), "one\n");
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        std::fs::write(&path, "2026-01-01T00:00:02Z stdout F two\n").unwrap();
        assert_eq!(receiver.recv().await.unwrap(), "two\n");
        assert!(receiver.recv().await.is_none());
        task.await.unwrap().unwrap();
    }
}
