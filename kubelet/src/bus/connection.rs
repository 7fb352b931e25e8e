//! One connection to the bus.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::wire::{Kind, MAX_MESSAGE, Message, Value, WireError};
use crate::platform;

/// Longest time of a call.
const DEADLINE: Duration = Duration::from_secs(25);
/// Signals that nobody has asked for yet; the oldest go first.
const MAX_SIGNALS: usize = 64;
/// File descriptors that nobody has taken yet.
const MAX_DESCRIPTORS: usize = 16;
const BUS: &str = "org.freedesktop.DBus";
const BUS_PATH: &str = "/org/freedesktop/DBus";

/// Why the bus does not help.
#[derive(Debug, thiserror::Error)]
pub enum BusError {
    /// The socket.
    #[error("message bus")]
    Io(#[from] io::Error),
    /// A message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The bus does not let us in.
    #[error("the message bus does not accept this user: {0}")]
    Refused(String),
    /// A call that failed.
    #[error("{name}: {message}")]
    Failed {
        /// Name of the error.
        name: String,
        /// Its text.
        message: String,
    },
    /// No answer in time.
    #[error("no answer from {0} in time")]
    Late(String),
    /// Another answer than there must be.
    #[error("unexpected answer to {0}")]
    Unexpected(&'static str),
}

/// What to ask, and whom.
#[derive(Clone, Debug, Default)]
pub struct Call<'a> {
    /// Service.
    pub destination: &'a str,
    /// Object.
    pub path: &'a str,
    /// Interface.
    pub interface: &'a str,
    /// Method.
    pub member: &'a str,
    /// Arguments.
    pub args: Vec<Value>,
}

/// What came back.
#[derive(Debug, Default)]
pub struct Answer {
    /// Values.
    pub values: Vec<Value>,
    /// File descriptors.
    pub descriptors: Vec<OwnedFd>,
}

/// One connection. A call that failed for want of time or of the socket leaves nothing to go on with: open another.
pub struct Bus {
    socket: UnixStream,
    serial: u32,
    bytes: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
    signals: VecDeque<Message>,
}

impl Bus {
    /// Connects as the user of this process.
    pub async fn connect(socket: &Path) -> Result<Self, BusError> {
        let opened = async {
            let socket = UnixStream::connect(socket).await?;
            let mut bus =
                Self { socket, serial: 0, bytes: Vec::new(), descriptors: VecDeque::new(), signals: VecDeque::new() };
            bus.authenticate().await?;
            let hello = Call { destination: BUS, path: BUS_PATH, interface: BUS, member: "Hello", ..Call::default() };
            bus.exchange(&hello).await?;
            Ok(bus)
        };
        tokio::time::timeout(DEADLINE, opened).await.map_err(|_| BusError::Late("the message bus".to_owned()))?
    }

    /// Calls a method.
    pub async fn call(&mut self, call: Call<'_>) -> Result<Answer, BusError> {
        let late = || BusError::Late(format!("{} of {}", call.member, call.destination));
        tokio::time::timeout(DEADLINE, self.exchange(&call)).await.map_err(|_| late())?
    }

    /// Asks for signals that match a rule.
    pub async fn subscribe(&mut self, rule: &str) -> Result<(), BusError> {
        let args = vec![Value::text(rule)];
        let call = Call { destination: BUS, path: BUS_PATH, interface: BUS, member: "AddMatch", args };
        self.call(call).await.map(drop)
    }

    /// The next signal; may be given up at any time.
    pub async fn signal(&mut self) -> Result<Message, BusError> {
        loop {
            if let Some(signal) = self.signals.pop_front() {
                return Ok(signal);
            }
            self.receive().await?;
        }
    }

    async fn authenticate(&mut self) -> Result<(), BusError> {
        let user: String = nix::unistd::getuid().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        self.socket.write_all(format!("\0AUTH EXTERNAL {user}\r\nNEGOTIATE_UNIX_FD\r\n").as_bytes()).await?;
        for wanted in ["OK ", "AGREE_UNIX_FD"] {
            let line = self.line().await?;
            if !line.starts_with(wanted) {
                return Err(BusError::Refused(line));
            }
        }
        Ok(self.socket.write_all(b"BEGIN\r\n").await?)
    }

    async fn line(&mut self) -> Result<String, BusError> {
        loop {
            if let Some(end) = self.bytes.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.bytes.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.bytes.len() > 4096 {
                return Err(WireError::Long.into());
            }
            self.fill().await?;
        }
    }

    async fn exchange(&mut self, call: &Call<'_>) -> Result<Answer, BusError> {
        self.serial = self.serial.wrapping_add(1).max(1);
        let message = Message {
            kind: Kind::Call,
            serial: self.serial,
            path: call.path.to_owned(),
            interface: call.interface.to_owned(),
            member: call.member.to_owned(),
            destination: call.destination.to_owned(),
            body: call.args.clone(),
            ..Message::default()
        };
        self.socket.write_all(&message.encode()).await?;
        loop {
            let Some((answer, descriptors)) = self.receive().await? else { continue };
            if answer.reply_to != Some(self.serial) {
                continue;
            }
            if answer.kind == Kind::Return {
                return Ok(Answer { values: answer.body, descriptors });
            }
            let message = answer.body.into_iter().next();
            let message = if let Some(Value::Text(text)) = message { text } else { String::new() };
            return Err(BusError::Failed { name: answer.error, message });
        }
    }

    /// One more message: an answer, or a signal, which is kept.
    async fn receive(&mut self) -> Result<Option<(Message, Vec<OwnedFd>)>, BusError> {
        let length = loop {
            match Message::length(&self.bytes)? {
                Some(length) if self.bytes.len() >= length => break length,
                _ => self.fill().await?,
            }
        };
        let message = Message::decode(&self.bytes);
        self.bytes.drain(..length);
        let message = message?;
        let count = usize::try_from(message.descriptors).unwrap_or(usize::MAX).min(self.descriptors.len());
        let descriptors = self.descriptors.drain(..count).collect();
        match message.kind {
            Kind::Return | Kind::Error => Ok(Some((message, descriptors))),
            Kind::Signal => {
                if self.signals.len() == MAX_SIGNALS {
                    self.signals.pop_front();
                }
                self.signals.push_back(message);
                Ok(None)
            }
            // Nobody is served here.
            Kind::Call => Ok(None),
        }
    }

    async fn fill(&mut self) -> Result<(), BusError> {
        let mut chunk = [0; 4096];
        let socket = &self.socket;
        let read = || platform::receive(socket.as_fd(), &mut chunk);
        let (count, descriptors) = socket.async_io(Interest::READABLE, read).await?;
        if count == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if self.bytes.len() + count > 2 * MAX_MESSAGE || self.descriptors.len() + descriptors.len() > MAX_DESCRIPTORS {
            return Err(WireError::Long.into());
        }
        self.bytes.extend_from_slice(&chunk[..count]);
        self.descriptors.extend(descriptors);
        Ok(())
    }
}
