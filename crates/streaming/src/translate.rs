//! Exec and attach for `v5.channel.k8s.io` clients of back ends that speak SPDY (KEP-4006).

use bytes::{BufMut, Bytes, BytesMut};
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    BackendError, Connection,
    spdy::{Session, SpdyError, Stream, StreamSender},
    upgrade::{self, Answer, UpgradeRequest},
    websocket::{Socket, normal_close},
};

/// The subprotocol of the client.
pub const PROTOCOL: &str = "v5.channel.k8s.io";
/// The protocol towards the back end.
const BACKEND_PROTOCOL: &str = "v4.channel.k8s.io";
/// Messages that wait for the client.
const QUEUE: usize = 16;

/// Channels: the first byte of each message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Channel {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    Error = 3,
    Resize = 4,
    /// v5: the next byte names the channel that ends.
    Close = 255,
}

/// Streams that the client wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// A terminal, with its size.
    pub tty: bool,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Backend(#[from] BackendError),
    #[error("unable to upgrade connection: {0}")]
    Refused(String),
    #[error("{0}")]
    Spdy(#[from] SpdyError),
}

/// Where the command runs: a connection to it, and how to ask.
pub struct Backend {
    /// A fresh connection.
    pub connection: Connection,
    /// Path and query.
    pub target: String,
    /// The `Host` header.
    pub host: String,
}

/// Carries the streams of one command until it ends or the client leaves.
pub async fn run(socket: Socket, backend: Result<Backend, String>, streams: Streams) {
    let (mut sink, source) = socket.split();
    let first = match streams {
        Streams { stdout: true, .. } => Channel::Stdout,
        Streams { stderr: true, .. } => Channel::Stderr,
        _ => Channel::Error,
    };
    if sink.send(message(first, &[])).await.is_err() {
        return;
    }
    let status = match backend {
        Err(text) => internal(&text),
        Ok(backend) => match carry(&mut sink, source, backend, streams).await {
            Ok(Some(status)) => status,
            Ok(None) => return,
            Err(failure) => internal(&failure.to_string()),
        },
    };
    let farewell = async {
        sink.send(message(Channel::Error, status.to_string().as_bytes())).await?;
        sink.send(normal_close()).await
    };
    if let Err(error) = farewell.await {
        tracing::debug!(%error, "end of a stream to a client");
    }
}

fn message(channel: Channel, data: &[u8]) -> Message {
    let mut frame = BytesMut::with_capacity(1 + data.len());
    frame.put_u8(channel as u8);
    frame.put_slice(data);
    Message::Binary(frame.freeze())
}

fn internal(text: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("Internal error occurred: {text}"), "reason": "InternalError",
        "details": {"causes": [{"message": text}]}, "code": 500,
    })
}

/// The status for the client, from what the back end wrote on its error stream.
fn status(written: &[u8]) -> Value {
    if written.is_empty() {
        return json!({"metadata": {}, "status": "Success"});
    }
    let Ok(status) = serde_json::from_slice::<Value>(written) else {
        return internal(&format!("error stream protocol error: {}", String::from_utf8_lossy(written)));
    };
    if status["status"] == "Success" {
        return json!({"metadata": {}, "status": "Success"});
    }
    if status["reason"] != "NonZeroExitCode" {
        return status;
    }
    let causes = status["details"]["causes"].as_array();
    let code = causes.into_iter().flatten().find(|cause| cause["reason"] == "ExitCode");
    let code = code.and_then(|cause| cause["message"].as_str()).unwrap_or_default();
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: command terminated with exit code {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code}]},
    })
}

struct Opened {
    error: Stream,
    stdin: Option<StreamSender>,
    resize: Option<StreamSender>,
    outputs: Vec<(Channel, Stream)>,
}

async fn open(backend: Backend, streams: Streams) -> Result<(Session, Opened), Failure> {
    let Backend { connection, target, host } = backend;
    let request = UpgradeRequest::spdy(target, host, BACKEND_PROTOCOL);
    let upgraded = match upgrade::send(connection, request).await? {
        Answer::Switched(_, upgraded) => upgraded,
        Answer::Refused(refusal) => return Err(Failure::Refused(refusal.text())),
    };
    let session = Session::client(TokioIo::new(upgraded))?;
    let kind = |name: &'static str| [("streamType", name)];
    let error = session.open(&kind("error")).await?;
    let stdin = if streams.stdin { Some(session.open(&kind("stdin")).await?) } else { None };
    let mut outputs = Vec::new();
    if streams.stdout {
        outputs.push((Channel::Stdout, session.open(&kind("stdout")).await?));
    }
    if streams.stderr && !streams.tty {
        outputs.push((Channel::Stderr, session.open(&kind("stderr")).await?));
    }
    let resize = if streams.tty { Some(session.open(&kind("resize")).await?) } else { None };
    let (stdin, resize) = (stdin.map(|s| s.sender()), resize.map(|s| s.sender()));
    Ok((session, Opened { error, stdin, resize, outputs }))
}

/// `None` when the client left.
async fn carry(
    sink: &mut SplitSink<Socket, Message>,
    source: SplitStream<Socket>,
    backend: Backend,
    streams: Streams,
) -> Result<Option<Value>, Failure> {
    let (_session, Opened { mut error, stdin, resize, outputs }) = open(backend, streams).await?;
    let (queue, mut messages) = mpsc::channel(QUEUE);
    for (channel, stream) in outputs {
        tokio::spawn(output(channel, stream, queue.clone()));
    }
    drop(queue);
    let inputs = inputs(source, stdin, resize);
    tokio::pin!(inputs);
    let mut client_sends = true;
    let verdict = async {
        let mut written = Vec::new();
        while let Some(data) = error.receive().await? {
            const MAX_STATUS: usize = 1 << 20;
            if written.len() + data.len() > MAX_STATUS {
                return Err(Failure::Spdy(SpdyError::Protocol("status too long")));
            }
            written.extend_from_slice(&data);
        }
        Ok(status(&written))
    };
    tokio::pin!(verdict);
    let mut outcome = None;
    loop {
        tokio::select! {
            next = messages.recv() => match next {
                Some(message) => {
                    if sink.send(message).await.is_err() {
                        return Ok(None);
                    }
                }
                // All output is carried; the verdict ends the command.
                None => return match outcome {
                    Some(outcome) => outcome,
                    None => verdict.await,
                }.map(Some),
            },
            ended = &mut verdict, if outcome.is_none() => outcome = Some(ended),
            left = &mut inputs, if client_sends => {
                if left {
                    return Ok(None);
                }
                client_sends = false;
            }
        }
    }
}

async fn output(channel: Channel, mut stream: Stream, queue: mpsc::Sender<Message>) {
    while let Ok(Some(data)) = stream.receive().await {
        if queue.send(message(channel, &data)).await.is_err() {
            return;
        }
    }
}

/// Carries what the client sends. Returns whether the client is gone (else the back end takes no more).
async fn inputs(
    mut source: SplitStream<Socket>,
    mut stdin: Option<StreamSender>,
    resize: Option<StreamSender>,
) -> bool {
    while let Some(Ok(message)) = source.next().await {
        let data: Bytes = match message {
            Message::Binary(data) => data,
            Message::Close(_) => return true,
            _ => continue,
        };
        let Some(channel) = data.first().copied() else { continue };
        let payload = data.slice(1..);
        let taken = match channel {
            c if c == Channel::Stdin as u8 => match &stdin {
                Some(stdin) => stdin.send(payload).await,
                None => Ok(()),
            },
            c if c == Channel::Resize as u8 => match &resize {
                Some(resize) => resize.send(payload).await,
                None => Ok(()),
            },
            c if c == Channel::Close as u8 && payload.first() == Some(&(Channel::Stdin as u8)) => match stdin.take() {
                Some(stdin) => stdin.finish().await,
                None => Ok(()),
            },
            _ => Ok(()),
        };
        if let Err(error) = taken {
            tracing::debug!(%error, "input of a command");
            return false;
        }
    }
    true
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
