//! A message bus with a login daemon on it: the machine goes down once a file is there, and whoever holds it up is waited
//! for.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio_stream::StreamExt;

use crate::{Failure, listen};

const SOCKET: &str = "/run/dbus/system_bus_socket";
/// Longest time that the machine can be held up, in microseconds.
const DELAY: u64 = 60_000_000;
const LOOK: Duration = Duration::from_millis(100);

/// What a message is made of, as far as it is needed here.
enum Value {
    Text(String),
    Path(String),
    Signature(String),
    Number(u32),
    Bool(bool),
    /// A number of 64 bits in a variant.
    Wrapped(u64),
    Descriptor,
}

impl Value {
    fn code(&self) -> char {
        match self {
            Self::Text(_) => 's',
            Self::Path(_) => 'o',
            Self::Signature(_) => 'g',
            Self::Number(_) => 'u',
            Self::Bool(_) => 'b',
            Self::Wrapped(_) => 'v',
            Self::Descriptor => 'h',
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Text(text) | Self::Path(text) => {
                number(out, u32::try_from(text.len()).unwrap_or(0));
                out.extend_from_slice(text.as_bytes());
                out.push(0);
            }
            Self::Signature(text) => {
                out.push(u8::try_from(text.len()).unwrap_or(0));
                out.extend_from_slice(text.as_bytes());
                out.push(0);
            }
            Self::Number(value) => number(out, *value),
            Self::Bool(value) => number(out, u32::from(*value)),
            Self::Wrapped(value) => {
                out.extend_from_slice(&[1, b't', 0]);
                pad(out, 8);
                out.extend_from_slice(&value.to_le_bytes());
            }
            Self::Descriptor => number(out, 0),
        }
    }
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}

fn number(out: &mut Vec<u8>, value: u32) {
    pad(out, 4);
    out.extend_from_slice(&value.to_le_bytes());
}

const RETURN: u8 = 2;
const SIGNAL: u8 = 4;

/// One message. Fields are numbered as on the wire.
fn message(kind: u8, serial: u32, mut fields: Vec<(u8, Value)>, body: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::new();
    body.iter().for_each(|value| value.write(&mut bytes));
    if !body.is_empty() {
        fields.push((8, Value::Signature(body.iter().map(Value::code).collect())));
    }
    if body.iter().any(|value| matches!(value, Value::Descriptor)) {
        fields.push((9, Value::Number(1)));
    }
    let mut header = Vec::new();
    for (field, value) in &fields {
        pad(&mut header, 8);
        header.extend_from_slice(&[*field, 1, value.code() as u8, 0]);
        value.write(&mut header);
    }
    let mut out = vec![b'l', kind, 0, 1];
    number(&mut out, u32::try_from(bytes.len()).unwrap_or(0));
    number(&mut out, serial);
    number(&mut out, u32::try_from(header.len()).unwrap_or(0));
    out.extend(header);
    pad(&mut out, 8);
    out.extend(bytes);
    out
}

/// Serial and member of a call.
async fn call(stream: &mut BufReader<UnixStream>) -> Result<(u32, String), Failure> {
    let mut start = [0; 16];
    stream.read_exact(&mut start).await?;
    let at = |from: usize| u32::from_le_bytes([start[from], start[from + 1], start[from + 2], start[from + 3]]);
    let (body, serial, length) = (at(4) as usize, at(8), at(12) as usize);
    let mut rest = vec![0; length.next_multiple_of(8) + body];
    stream.read_exact(&mut rest).await?;
    let texts = texts(&rest[..length]);
    Ok((serial, texts.get(&3).cloned().unwrap_or_default()))
}

/// Fields that are texts.
fn texts(fields: &[u8]) -> BTreeMap<u8, String> {
    let mut found = BTreeMap::new();
    let mut at = 0;
    while let Some([field, 1, kind, 0]) = fields.get(at..at + 4) {
        at += 4;
        let length = match kind {
            b'g' => usize::from(fields[at]) + 2,
            b'u' => 4,
            _ => {
                let length = u32::from_le_bytes([fields[at], fields[at + 1], fields[at + 2], fields[at + 3]]) as usize;
                found.insert(*field, String::from_utf8_lossy(&fields[at + 4..at + 4 + length]).into_owned());
                length + 5
            }
        };
        at = (at + length).next_multiple_of(8);
    }
    found
}

/// One client.
struct Client {
    stream: BufReader<UnixStream>,
    /// The machine goes down when this is there; beside it stands that it is held up, and that it was let go.
    trigger: Arc<PathBuf>,
    sent: u32,
}

impl Client {
    async fn greet(&mut self) -> Result<(), Failure> {
        let mut line = String::new();
        while !line.ends_with("BEGIN\r\n") {
            line.clear();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err("gone before it began".into());
            }
            let answer = match line.trim_start_matches('\0') {
                text if text.starts_with("AUTH EXTERNAL") => "OK 00\r\n",
                "NEGOTIATE_UNIX_FD\r\n" => "AGREE_UNIX_FD\r\n",
                _ => "",
            };
            self.stream.write_all(answer.as_bytes()).await?;
        }
        Ok(())
    }

    async fn answer(&mut self, to: u32, body: &[Value]) -> Result<(), Failure> {
        self.sent += 1;
        let bytes = message(RETURN, self.sent, vec![(5, Value::Number(to))], body);
        Ok(self.stream.write_all(&bytes).await?)
    }

    async fn lend(&mut self, to: u32, descriptor: OwnedFd) -> Result<(), Failure> {
        self.sent += 1;
        let bytes = message(RETURN, self.sent, vec![(5, Value::Number(to))], &[Value::Descriptor]);
        let socket = self.stream.get_ref();
        let descriptors = [descriptor.as_raw_fd()];
        let send = || {
            let control = [ControlMessage::ScmRights(&descriptors)];
            let parts = [IoSlice::new(&bytes)];
            Ok(sendmsg::<()>(socket.as_raw_fd(), &parts, &control, MsgFlags::empty(), None)?)
        };
        socket.async_io(Interest::WRITABLE, send).await?;
        Ok(())
    }

    /// Answers until the machine goes down.
    async fn serve(mut self) -> Result<(), Failure> {
        self.greet().await?;
        let mut held = None;
        loop {
            let (serial, member) = tokio::select! {
                call = call(&mut self.stream) => call?,
                () = exists(&self.trigger), if held.is_some() => break,
            };
            match member.as_str() {
                "Hello" => self.answer(serial, &[Value::Text(":1.1".to_owned())]).await?,
                "Get" => self.answer(serial, &[Value::Wrapped(DELAY)]).await?,
                "Inhibit" => {
                    let (sender, receiver) = pipe::pipe()?;
                    self.lend(serial, sender.into_blocking_fd()?).await?;
                    held = Some(receiver);
                    std::fs::write(self.trigger.with_extension("held"), "")?;
                }
                _ => self.answer(serial, &[]).await?,
            }
        }
        self.sent += 1;
        let fields = vec![
            (1, Value::Path("/org/freedesktop/login1".to_owned())),
            (2, Value::Text("org.freedesktop.login1.Manager".to_owned())),
            (3, Value::Text("PrepareForShutdown".to_owned())),
        ];
        self.stream.write_all(&message(SIGNAL, self.sent, fields, &[Value::Bool(true)])).await?;
        if let Some(mut held) = held {
            // Nothing is ever written: the end comes when nobody holds the machine up any more.
            held.read_to_end(&mut Vec::new()).await?;
        }
        std::fs::write(self.trigger.with_extension("released"), "")?;
        Ok(())
    }
}

async fn exists(path: &Path) {
    while !path.exists() {
        tokio::time::sleep(LOOK).await;
    }
}

/// Serves until it is ended.
pub(crate) async fn serve(trigger: &Path) -> Result<(), Failure> {
    let trigger = Arc::new(trigger.to_owned());
    let mut connections = listen(Path::new(SOCKET))?;
    while let Some(stream) = connections.next().await {
        let client = Client { stream: BufReader::new(stream?), trigger: Arc::clone(&trigger), sent: 0 };
        tokio::spawn(async move {
            if let Err(error) = client.serve().await {
                eprintln!("{error}");
            }
        });
    }
    Ok(())
}
