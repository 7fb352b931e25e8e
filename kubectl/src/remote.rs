//! Streams of a container: exec and attach.

use std::io::{self, Read, Write};

use futures::SinkExt;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Status as Outcome};
use kube::{
    Api,
    api::{AttachParams, AttachedProcess, TerminalSize},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::Cluster,
    context::Context,
    error::CommandError,
    flags::Flag,
    streams::{Input, Output},
    terminal::{self, Raw},
};

/// Bytes that are read at once.
const CHUNK: usize = 32 * 1024;
/// Chunks of input that wait to be sent.
const WAITING: usize = 16;

/// A container and what to do there.
pub(crate) struct Session {
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) container: String,
    /// What to execute; nothing attaches to what runs.
    pub(crate) command: Vec<String>,
    pub(crate) stdin: bool,
    pub(crate) tty: bool,
    pub(crate) stderr: bool,
    /// Bytes that, typed one after the other at a terminal, end the session; empty for none.
    pub(crate) detach: Vec<u8>,
}

/// `--detach-keys`.
pub(crate) fn detach_flag() -> Flag {
    Flag::text(
        "detach-keys",
        "ctrl-p,ctrl-q",
        "Keys that end a session with a terminal and leave the container running.",
    )
}

/// The bytes of keys: letters, and `ctrl-` with a letter or one of `@[\\]^_`.
pub(crate) fn keys(text: &str) -> Result<Vec<u8>, CommandError> {
    let unknown = |key: &str| CommandError::plain(format!("invalid detach keys: unknown character: '{key}'"));
    text.split(',')
        .filter(|key| !key.is_empty())
        .map(|key| match (key.as_bytes(), key.strip_prefix("ctrl-").map(str::as_bytes)) {
            (&[byte], _) => Ok(byte),
            (_, Some(&[byte])) if byte.is_ascii_alphabetic() || b"@[\\]^_".contains(&byte) => {
                Ok(byte.to_ascii_uppercase() & 0x1f)
            }
            _ => Err(unknown(key)),
        })
        .collect()
}

/// Looks for the keys in what is typed.
struct Detach {
    keys: Vec<u8>,
    /// How many of them were typed.
    seen: usize,
}

impl Detach {
    /// What goes on to the container, and whether the session ends.
    fn pass(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        if self.keys.is_empty() {
            return (typed.to_vec(), false);
        }
        let mut passed = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.keys.get(self.seen) != Some(byte) {
                // It was something else that began so.
                passed.extend_from_slice(&self.keys[..self.seen]);
                self.seen = 0;
            }
            if self.keys.get(self.seen) == Some(byte) {
                self.seen += 1;
                if self.seen == self.keys.len() {
                    return (passed, true);
                }
            } else {
                passed.push(*byte);
            }
        }
        (passed, false)
    }
}

impl Session {
    fn params(&self) -> AttachParams {
        AttachParams {
            container: Some(self.container.clone()).filter(|c| !c.is_empty()),
            stdin: self.stdin,
            stdout: true,
            stderr: self.stderr && !self.tty,
            tty: self.tty,
            max_stdin_buf_size: Some(CHUNK),
            max_stdout_buf_size: Some(CHUNK),
            max_stderr_buf_size: Some(CHUNK),
        }
    }

    /// Connects. The server's refusal is told as it told it.
    pub(crate) async fn start(&self, cluster: &Cluster) -> Result<AttachedProcess, CommandError> {
        let pods: Api<Pod> = Api::namespaced(cluster.client().clone(), &self.namespace);
        let params = self.params();
        let started = if self.command.is_empty() {
            pods.attach(&self.pod, &params).await
        } else {
            pods.exec(&self.pod, self.command.clone(), &params).await
        };
        match started {
            Ok(process) => Ok(process),
            Err(kube::Error::Api(status)) => {
                Err(CommandError::plain(format!("unable to upgrade connection: {}", status.message)))
            }
            Err(error) => Err(CommandError::plain(format!("unable to upgrade connection: {}", util::chain(&error)))),
        }
    }

    /// Runs with the streams of the command until the other side ends.
    pub(crate) async fn run(&self, context: &Context, cluster: &Cluster) -> Result<(), CommandError> {
        let raw = if self.tty { Raw::enter(&context.streams) } else { None };
        let outcome = self.transfer(context, cluster).await;
        drop(raw);
        outcome
    }

    async fn transfer(&self, context: &Context, cluster: &Cluster) -> Result<(), CommandError> {
        let mut process = self.start(cluster).await?;
        let status = process.take_status();
        let detached = CancellationToken::new();
        if let Some(writer) = process.stdin() {
            let keys = if self.tty { self.detach.clone() } else { Vec::new() };
            let detach = Detach { keys, seen: 0 };
            tokio::spawn(send(read_in_background(context.streams.stdin.clone()), writer, detach, detached.clone()));
        }
        if let Some(sizes) = process.terminal_size() {
            tokio::spawn(follow_size(sizes));
        }
        let out = copy(process.stdout(), context.streams.out.clone());
        let err = copy(process.stderr(), context.streams.err.clone());
        tokio::select! {
            copied = async { futures::try_join!(out, err) } => { copied?; }
            () = detached.cancelled() => return Ok(()),
            () = context.stop.cancelled(), if !self.tty => return Err(CommandError::Exit(130)),
        }
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        ended(status)
    }
}

/// How the other side ended.
pub(crate) fn ended(status: Option<Outcome>) -> Result<(), CommandError> {
    let Some(status) = status else { return Ok(()) };
    if status.status.as_deref() == Some("Success") {
        return Ok(());
    }
    if status.reason.as_deref() == Some("NonZeroExitCode") {
        let causes = status.details.unwrap_or_default().causes.unwrap_or_default();
        let code = causes.into_iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
        if let Some(code) = code.and_then(|cause| cause.message?.parse::<i64>().ok()) {
            let text = CommandError::Verbatim(format!("command terminated with exit code {code}"));
            // Processes end with one byte.
            return Err(text.with_code((code & 0xff) as u8));
        }
    }
    Err(CommandError::plain(status.message.unwrap_or_default()))
}

/// Reads input in a thread of its own, as reading cannot be interrupted.
pub(crate) fn read_in_background(mut input: Input) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; CHUNK];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

async fn send(
    mut chunks: mpsc::Receiver<Vec<u8>>,
    mut writer: impl AsyncWriteExt + Unpin,
    mut detach: Detach,
    detached: CancellationToken,
) {
    while let Some(chunk) = chunks.recv().await {
        let (chunk, ended) = detach.pass(&chunk);
        if ended {
            detached.cancel();
            return;
        }
        if writer.write_all(&chunk).await.is_err() {
            return;
        }
    }
    // The other side may have gone already.
    let _gone = writer.shutdown().await.is_err();
}

async fn copy(reader: Option<impl AsyncRead + Unpin>, mut output: Output) -> Result<(), CommandError> {
    let Some(mut reader) = reader else { return Ok(()) };
    let mut buffer = vec![0; CHUNK];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(count) => {
                output.write_all(&buffer[..count])?;
                output.flush()?;
            }
        }
    }
}

/// Tells the other side how large the terminal is, now and after each change.
async fn follow_size(mut sizes: impl futures::Sink<TerminalSize> + Unpin) {
    let mut last = None;
    loop {
        let size = terminal::size();
        if size != last {
            last = size;
            if let Some((width, height)) = size
                && sizes.send(TerminalSize { width, height }).await.is_err()
            {
                return;
            }
        }
        tokio::time::sleep(terminal::LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_end_a_session_and_other_keys_go_on() {
        assert_eq!(keys("ctrl-p,ctrl-q").expect("keys"), [16, 17]);
        assert_eq!(keys("a,ctrl-[").expect("keys"), [b'a', 27]);
        assert!(keys("foo").is_err() && keys("ctrl-1").is_err());
        let mut detach = Detach { keys: vec![16, 17], seen: 0 };
        assert_eq!(detach.pass(b"ab\x10"), (b"ab".to_vec(), false));
        assert_eq!(detach.pass(b"c"), (b"\x10c".to_vec(), false));
        assert_eq!(detach.pass(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(detach.pass(b"\x11rest"), (Vec::new(), true));
        let mut none = Detach { keys: Vec::new(), seen: 0 };
        assert_eq!(none.pass(b"\x10\x11"), (b"\x10\x11".to_vec(), false));
    }

    #[test]
    fn exit_codes_come_from_the_status() {
        let outcome = |value| ended(Some(serde_json::from_value(value).expect("a Status")));
        assert!(outcome(json!({"status": "Success"})).is_ok() && ended(None).is_ok());
        let failed = outcome(json!({"status": "Failure", "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}}));
        let failed = failed.expect_err("a failure");
        assert_eq!((failed.code(), failed.to_string().as_str()), (7, "command terminated with exit code 7"));
        let failed = outcome(json!({"status": "Failure", "reason": "InternalError", "message": "broken"}));
        assert_eq!(failed.expect_err("a failure").to_string(), "broken");
    }
}
