use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{UnixListener, UnixStream};

use super::*;

/// The other side of a connection: lets everybody in and answers what it is told to.
pub(crate) struct Service {
    stream: BufReader<UnixStream>,
    serial: u32,
    bytes: Vec<u8>,
    calls: VecDeque<Message>,
}

impl Service {
    pub(crate) async fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while !line.ends_with("BEGIN\r\n") {
            line.clear();
            stream.read_line(&mut line).await.unwrap();
            let answer = match line.trim_start_matches('\0') {
                text if text.starts_with("AUTH EXTERNAL") => "OK 00\r\n",
                "NEGOTIATE_UNIX_FD\r\n" => "AGREE_UNIX_FD\r\n",
                _ => "",
            };
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        let mut service = Self { stream, serial: 0, bytes: Vec::new(), calls: VecDeque::new() };
        let hello = service.next().await.unwrap();
        assert_eq!(hello.member, "Hello");
        service.answer(&hello, vec![Value::text(":1.1")]).await;
        service
    }

    /// The next call; `None` when the other side is gone.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(call) = self.calls.pop_front() {
                return Some(call);
            }
            let mut chunk = [0; 512];
            let count = self.stream.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
            self.bytes.extend_from_slice(&chunk[..count]);
            while let Some(length) = Message::length(&self.bytes).unwrap().filter(|length| self.bytes.len() >= *length)
            {
                self.calls.push_back(Message::decode(&self.bytes).unwrap());
                self.bytes.drain(..length);
            }
        }
    }

    pub(crate) async fn send(&mut self, mut message: Message) {
        self.serial += 1;
        message.serial = self.serial;
        self.stream.write_all(&message.encode()).await.unwrap();
    }

    pub(crate) async fn answer(&mut self, call: &Message, body: Vec<Value>) {
        self.send(Message { kind: Kind::Return, reply_to: Some(call.serial), body, ..Message::default() }).await;
    }

    /// Answers with a file descriptor.
    pub(crate) async fn lend(&mut self, call: &Message) {
        self.serial += 1;
        let message = Message {
            kind: Kind::Return,
            serial: self.serial,
            reply_to: Some(call.serial),
            descriptors: 1,
            body: vec![Value::Descriptor(0)],
            ..Message::default()
        };
        let file = std::fs::File::open("/dev/null").unwrap();
        let socket = self.stream.get_ref();
        let bytes = message.encode();
        let send = || send_with(socket.as_raw_fd(), &bytes, file.as_raw_fd());
        socket.async_io(Interest::WRITABLE, send).await.unwrap();
    }

    pub(crate) async fn signal(&mut self, interface: &str, member: &str, body: Vec<Value>) {
        let (interface, member) = (interface.to_owned(), member.to_owned());
        self.send(Message { kind: Kind::Signal, path: "/".into(), interface, member, body, ..Message::default() })
            .await;
    }
}

#[allow(unsafe_code)]
fn send_with(socket: RawFd, bytes: &[u8], file: RawFd) -> std::io::Result<()> {
    let mut control = [0_u64; 4];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: one part and one area that outlive the call; the area has room for one descriptor.
    let sent = unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = libc::CMSG_SPACE(4) as _;
        let at = libc::CMSG_FIRSTHDR(&raw const header);
        (*at).cmsg_level = libc::SOL_SOCKET;
        (*at).cmsg_type = libc::SCM_RIGHTS;
        (*at).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(at).cast::<RawFd>().write_unaligned(file);
        libc::sendmsg(socket, &raw const header, 0)
    };
    if sent < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

fn message() -> Message {
    Message {
        kind: Kind::Return,
        serial: 7,
        reply_to: Some(3),
        path: "/a/b".into(),
        interface: "a.b".into(),
        member: "C".into(),
        destination: "d.e".into(),
        sender: ":1.2".into(),
        descriptors: 1,
        body: vec![
            Value::Bool(true),
            Value::text("text"),
            Value::Long(1 << 40),
            Value::Variant(Box::new(Value::Long(5))),
            Value::Int(-1),
            Value::Descriptor(0),
            Value::Path("/x".into()),
            Value::Signature("su".into()),
        ],
        ..Message::default()
    }
}

#[test]
fn messages_come_back_as_they_were() {
    let bytes = message().encode();
    assert_eq!(Message::length(&bytes), Ok(Some(bytes.len())));
    assert_eq!(Message::decode(&bytes), Ok(message()));
}

#[test]
fn the_layout_is_that_of_the_specification() {
    let call =
        Message { serial: 1, path: "/".into(), member: "M".into(), body: vec![Value::Uint(5)], ..Message::default() };
    let expected = [
        &b"l\x01\x00\x01\x04\0\0\0\x01\0\0\0\x27\0\0\0"[..],
        b"\x01\x01o\0\x01\0\0\0/\0\0\0\0\0\0\0",
        b"\x03\x01s\0\x01\0\0\0M\0\0\0\0\0\0\0",
        b"\x08\x01g\0\x01u\0\0",
        b"\x05\0\0\0",
    ];
    assert_eq!(call.encode(), expected.concat());
}

#[test]
fn the_other_byte_order_is_read_too() {
    let expected = Message {
        kind: Kind::Signal,
        serial: 2,
        member: "M".into(),
        body: vec![Value::Bool(true)],
        ..Message::default()
    };
    let bytes = [
        &b"B\x04\x00\x01\0\0\0\x04\0\0\0\x02\0\0\0\x17"[..],
        b"\x03\x01s\0\0\0\0\x01M\0\0\0\0\0\0\0",
        b"\x08\x01g\0\x01b\0\0",
        b"\0\0\0\x01",
    ];
    assert_eq!(Message::decode(&bytes.concat()), Ok(expected));
}

#[test]
fn broken_messages_are_refused() {
    let bytes = message().encode();
    for end in 0..bytes.len() {
        assert!(Message::decode(&bytes[..end]).is_err(), "{end}");
    }
    // Whatever is changed, nothing worse than an error comes of it.
    for at in 0..bytes.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut broken = bytes.clone();
            broken[at] = value;
            let _read = Message::decode(&broken).is_ok();
        }
    }
    let mut long = bytes;
    long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Message::length(&long), Err(WireError::Long));
}

async fn pair(path: &Path) -> (Bus, Service) {
    let listener = UnixListener::bind(path).unwrap();
    let (bus, service) = tokio::join!(Bus::connect(path), Service::accept(&listener));
    (bus.unwrap(), service)
}

#[tokio::test]
async fn calls_are_answered_and_signals_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (mut bus, mut service) = pair(&dir.path().join("bus")).await;
    let serve = async {
        let call = service.next().await.unwrap();
        assert_eq!((call.destination.as_str(), call.member.as_str()), ("x.y", "Ask"));
        service.signal("x.y", "Told", vec![Value::Bool(true)]).await;
        service.answer(&call, vec![Value::Uint(4)]).await;
        let call = service.next().await.unwrap();
        let error = Message {
            kind: Kind::Error,
            reply_to: Some(call.serial),
            error: "x.y.No".into(),
            body: vec![Value::text("not now")],
            ..Message::default()
        };
        service.send(error).await;
    };
    let ask = async {
        let call = Call { destination: "x.y", path: "/x", interface: "x.y", member: "Ask", args: Vec::new() };
        assert_eq!(bus.call(call.clone()).await.unwrap().values, [Value::Uint(4)]);
        assert_eq!(bus.call(call).await.unwrap_err().to_string(), "x.y.No: not now");
        assert_eq!(bus.signal().await.unwrap().member, "Told");
    };
    tokio::join!(serve, ask);
    drop(service);
    assert!(bus.signal().await.is_err());
}
