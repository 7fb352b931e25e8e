//! Netlink: messages out, messages in. What they mean is known to the modules that send them.

use std::{
    io::{self, Read},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket as Raw, Type};

/// Longest time the kernel may take to answer.
const DEADLINE: Duration = Duration::from_secs(60);
/// Room for one answer: dumps come in pieces of 32 KiB, errors repeat the request.
const ANSWER: usize = 256 << 10;
/// Send buffer: a batch is one message to the socket.
const SEND_BUFFER: usize = 64 << 20;
/// Receive buffer.
const RECEIVE_BUFFER: usize = 8 << 20;
const HEADER: usize = 16;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// Beginning of families' own messages.
const NLMSG_MIN_TYPE: u16 = 16;

/// Flags of messages.
pub(crate) mod flag {
    pub(crate) const REQUEST: u16 = 1;
    pub(crate) const ACK: u16 = 4;
    pub(crate) const DUMP: u16 = 0x300;
    pub(crate) const EXCL: u16 = 0x200;
    pub(crate) const CREATE: u16 = 0x400;
    pub(crate) const APPEND: u16 = 0x800;
}

/// Bit of the type of an attribute that holds attributes.
const NESTED: u16 = 0x8000;
/// The type of an attribute without its flags.
const TYPE_MASK: u16 = 0x3fff;

/// A request that failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// The kernel says no.
    #[error("the kernel refused request {request}: {source}")]
    Refused {
        /// Which of a batch.
        request: u32,
        /// Why.
        source: io::Error,
    },
    /// An answer that is none.
    #[error("malformed netlink answer")]
    Malformed,
}

impl NetlinkError {
    /// The error number of the kernel.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// Messages one after the other.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    buffer: Vec<u8>,
    sequence: u32,
}

impl Writer {
    /// Adds a message; `fill` adds what follows its header.
    pub(crate) fn message(&mut self, kind: u16, flags: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.buffer.len();
        self.sequence += 1;
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(&(flags | flag::REQUEST).to_ne_bytes());
        self.buffer.extend_from_slice(&self.sequence.to_ne_bytes());
        self.buffer.extend_from_slice(&[0; 4]);
        fill(self);
        let length = u32::try_from(self.buffer.len() - start).unwrap_or(u32::MAX);
        self.buffer[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Adds bytes as they are: the header of a family.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Adds an attribute.
    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.buffer.extend_from_slice(&length.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(value);
        self.pad();
    }

    /// Adds a text with the zero that ends it.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    /// Adds a number in network order.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    /// Adds an attribute of attributes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 2]);
        self.buffer.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.buffer.len() - start).unwrap_or(u16::MAX);
        self.buffer[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.buffer.resize(self.buffer.len().next_multiple_of(4), 0);
    }

    /// The bytes so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// How many messages there are.
    pub(crate) fn messages(&self) -> u32 {
        self.sequence
    }
}

/// The attributes in `bytes`: type and value. Ends at the first that is cut off.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of one attribute.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, value)| value)
}

/// A message of the kernel.
struct Answer<'a> {
    kind: u16,
    sequence: u32,
    payload: &'a [u8],
}

fn answers(mut bytes: &[u8]) -> impl Iterator<Item = Answer<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let sequence = u32::from_ne_bytes(bytes.get(8..12)?.try_into().ok()?);
        let payload = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Answer { kind, sequence, payload })
    })
}

/// The error number in an acknowledgement, 0 for success.
fn errno(payload: &[u8]) -> Result<i32, NetlinkError> {
    let bytes = payload.get(..4).and_then(|b| b.try_into().ok()).ok_or(NetlinkError::Malformed)?;
    Ok(-i32::from_ne_bytes(bytes))
}

fn refused(request: u32, errno: i32) -> NetlinkError {
    NetlinkError::Refused { request, source: io::Error::from_raw_os_error(errno) }
}

/// A socket. Its calls block for as long as the kernel takes.
pub(crate) struct Socket {
    raw: Raw,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket of a netlink protocol.
    pub(crate) fn open(protocol: i32) -> Result<Self, NetlinkError> {
        let raw = Raw::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(protocol)))?;
        raw.set_read_timeout(Some(DEADLINE))?;
        raw.set_write_timeout(Some(DEADLINE))?;
        // Without the right to it the usual sizes have to do.
        if setsockopt(&raw, sockopt::SndBufForce, &SEND_BUFFER).is_err()
            || setsockopt(&raw, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err()
        {
            tracing::debug!("netlink buffers cannot be enlarged");
        }
        Ok(Self { raw, buffer: vec![0; ANSWER] })
    }

    fn receive(&mut self) -> Result<usize, NetlinkError> {
        loop {
            match self.raw.read(&mut self.buffer) {
                Ok(length) => return Ok(length),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends one request that asks for a dump or an acknowledgement; `each` gets the payloads of the answers.
    pub(crate) fn talk(&mut self, request: &Writer, mut each: impl FnMut(&[u8])) -> Result<(), NetlinkError> {
        self.raw.send(request.bytes())?;
        let sequence = request.messages();
        loop {
            let length = self.receive()?;
            for answer in answers(&self.buffer[..length]).filter(|a| a.sequence == sequence) {
                match answer.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        return match errno(answer.payload)? {
                            0 => Ok(()),
                            number => Err(refused(sequence, number)),
                        };
                    }
                    kind if kind >= NLMSG_MIN_TYPE => each(answer.payload),
                    _ => {}
                }
            }
        }
    }

    /// Sends a batch whose message number `last` asks for an acknowledgement: the kernel answers when all is done.
    pub(crate) fn batch(&mut self, batch: &Writer, last: u32) -> Result<(), NetlinkError> {
        self.raw.send(batch.bytes())?;
        let mut first: Option<NetlinkError> = None;
        loop {
            let length = self.receive()?;
            for answer in answers(&self.buffer[..length]).filter(|a| a.kind == NLMSG_ERROR) {
                let number = errno(answer.payload)?;
                if number != 0 && first.is_none() {
                    first = Some(refused(answer.sequence, number));
                }
                if answer.sequence >= last || (number != 0 && answer.sequence <= 1) {
                    return first.map_or(Ok(()), Err);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let mut writer = Writer::default();
        writer.message(0x0a09, flag::CREATE, |w| {
            w.raw(&[2, 0, 0, 0]);
            w.text(1, "abc");
            w.nest(2, |w| {
                w.be32(7, 5);
                w.attribute(8, &[1]);
            });
        });
        writer.message(17, 0, |_| {});
        assert_eq!((writer.messages(), writer.bytes().len() % 4), (2, 0));
        let all: Vec<_> = answers(writer.bytes()).collect();
        assert_eq!((all.len(), all[0].kind, all[1].sequence), (2, 0x0a09, 2));
        let payload = &all[0].payload[4..];
        assert_eq!(attribute(payload, 1), Some(&b"abc\0"[..]));
        let inner: Vec<_> = attributes(attribute(payload, 2).unwrap()).collect();
        assert_eq!(inner, [(7, &[0, 0, 0, 5][..]), (8, &[1][..])]);
    }

    #[test]
    fn what_is_cut_off_is_not_read() {
        assert_eq!(attributes(&[9, 0, 1, 0, 1, 2]).count(), 0);
        assert_eq!(attributes(&[2, 0, 1, 0]).count(), 0);
        assert_eq!(answers(&[200, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).count(), 0);
        assert!(errno(&[1]).is_err());
    }
}
