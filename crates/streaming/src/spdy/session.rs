//! A session: one task writes frames, one reads them; streams talk to both over bounded queues.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{mpsc, oneshot},
};

use super::{
    SpdyError,
    frame::{Frame, Reader},
    headers::{Decoder, Encoder},
};

/// Frames that wait to be written.
const WRITE_QUEUE: usize = 64;
/// Pieces of one stream that wait to be read; then the whole connection waits.
const READ_QUEUE: usize = 32;
/// Opened streams that wait to be accepted.
const ACCEPT_QUEUE: usize = 64;
/// Most streams of a session at once.
const MAX_STREAMS: usize = 1024;
/// Time for the peer to answer an opened stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a frame to be taken by the peer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(300);
/// RST_STREAM status codes of the protocol.
const REFUSED_STREAM: u32 = 3;
const CANCEL: u32 = 5;

type Pairs = Vec<(String, String)>;

/// Opens streams. Clones share the connection, which closes when all of them and their streams are gone.
#[derive(Clone)]
pub struct Session {
    commands: mpsc::Sender<Command>,
}

/// A stream of bytes in both directions.
pub struct Stream {
    headers: Pairs,
    id: u32,
    data: mpsc::Receiver<Bytes>,
    end: Arc<OnceLock<End>>,
    commands: mpsc::Sender<Command>,
}

/// Streams that the peer opens.
pub struct Incoming(mpsc::Receiver<Stream>);

#[derive(Clone, Debug)]
enum End {
    /// The peer said that nothing more comes.
    Finished,
    Failed(SpdyError),
}

enum Command {
    Open {
        headers: Pairs,
        entry: Entry,
        id: oneshot::Sender<u32>,
    },
    Frame(Frame),
    /// Agree to a stream of the peer's.
    Accept(u32),
}

struct Entry {
    data: mpsc::Sender<Bytes>,
    end: Arc<OnceLock<End>>,
    /// Told when the peer agrees to the stream.
    opened: Option<oneshot::Sender<Result<(), SpdyError>>>,
}

#[derive(Default)]
struct Table(Mutex<HashMap<u32, Entry>>);

impl Table {
    fn end(&self, stream: u32, end: End) {
        if let Some(entry) = self.0.lock().remove(&stream) {
            entry.close(end);
        }
    }

    fn end_all(&self, error: &SpdyError) {
        for (_, entry) in self.0.lock().drain() {
            entry.close(End::Failed(error.clone()));
        }
    }
}

impl Entry {
    fn close(self, end: End) {
        if let Some(opened) = self.opened {
            let outcome = match &end {
                End::Finished => Ok(()),
                End::Failed(error) => Err(error.clone()),
            };
            // Nobody waits any more if the opener gave up.
            opened.send(outcome).unwrap_or_default();
        }
        self.end.get_or_init(|| end);
    }
}

impl Session {
    /// Speaks SPDY/3.1 over a connection as the side that sent the upgrade.
    pub fn client<T>(io: T) -> Result<Self, SpdyError>
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        start(io, 1).map(|(session, _)| session)
    }

    /// Speaks SPDY/3.1 over a connection as the side that agreed to the upgrade.
    pub fn server<T>(io: T) -> Result<(Self, Incoming), SpdyError>
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        start(io, 2)
    }

    /// Opens a stream and waits until the peer agrees.
    pub async fn open(&self, headers: &[(&str, &str)]) -> Result<Stream, SpdyError> {
        let headers: Pairs = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (data, received) = mpsc::channel(READ_QUEUE);
        let (opened, agreed) = oneshot::channel();
        let (id, known) = oneshot::channel();
        let end = Arc::new(OnceLock::new());
        let entry = Entry { data, end: Arc::clone(&end), opened: Some(opened) };
        let command = Command::Open { headers: headers.clone(), entry, id };
        self.commands.send(command).await.map_err(|_| SpdyError::Closed)?;
        let id = known.await.map_err(|_| SpdyError::Closed)?;
        let stream = Stream { headers, id, data: received, end, commands: self.commands.clone() };
        let agreed = tokio::time::timeout(OPEN_TIMEOUT, agreed).await.map_err(|_| SpdyError::Deadline)?;
        agreed.map_err(|_| SpdyError::Closed)??;
        Ok(stream)
    }

    /// Tells the peer that no stream follows. The connection closes when the last stream is dropped.
    pub async fn finish(&self) {
        // A closed connection needs no farewell.
        self.commands.send(Command::Frame(Frame::GoAway)).await.unwrap_or_default();
    }
}

impl Incoming {
    /// The next stream of the peer; `None` when the connection is closed.
    pub async fn next(&mut self) -> Option<Stream> {
        let stream = self.0.recv().await?;
        stream.commands.send(Command::Accept(stream.id)).await.ok()?;
        Some(stream)
    }
}

impl Stream {
    /// The value of a header that the stream was opened with; names are compared without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The next piece of data; `None` when the peer has finished. Cancel safe.
    pub async fn receive(&mut self) -> Result<Option<Bytes>, SpdyError> {
        if let Some(data) = self.data.recv().await {
            return Ok(Some(data));
        }
        match self.end.get() {
            Some(End::Finished) => Ok(None),
            Some(End::Failed(error)) => Err(error.clone()),
            None => Err(SpdyError::Closed),
        }
    }

    /// A handle that sends on this stream.
    pub fn sender(&self) -> StreamSender {
        StreamSender { id: self.id, commands: self.commands.clone() }
    }

    /// Sends data.
    pub async fn send(&self, data: Bytes) -> Result<(), SpdyError> {
        self.sender().send(data).await
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&self) -> Result<(), SpdyError> {
        self.sender().finish().await
    }

    /// Ends both directions at once.
    pub async fn reset(self) {
        let frame = Frame::Reset { stream: self.id, status: CANCEL };
        self.commands.send(Command::Frame(frame)).await.unwrap_or_default();
    }
}

/// The sending direction of a [`Stream`].
#[derive(Clone)]
pub struct StreamSender {
    id: u32,
    commands: mpsc::Sender<Command>,
}

impl StreamSender {
    /// Sends data.
    pub async fn send(&self, mut data: Bytes) -> Result<(), SpdyError> {
        const MAX_DATA: usize = 1 << 20;
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(MAX_DATA));
            self.frame(Frame::Data { stream: self.id, fin: false, data: piece }).await?;
        }
        Ok(())
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&self) -> Result<(), SpdyError> {
        self.frame(Frame::Data { stream: self.id, fin: true, data: Bytes::new() }).await
    }

    async fn frame(&self, frame: Frame) -> Result<(), SpdyError> {
        self.commands.send(Command::Frame(frame)).await.map_err(|_| SpdyError::Closed)
    }
}

fn start<T>(io: T, first: u32) -> Result<(Session, Incoming), SpdyError>
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let (read, write) = tokio::io::split(io);
    let (commands, queue) = mpsc::channel(WRITE_QUEUE);
    let (accept, accepted) = mpsc::channel(ACCEPT_QUEUE);
    let table = Arc::new(Table::default());
    let receiver = Receiver {
        reader: Reader::new(read),
        decoder: Decoder::new(),
        table: Arc::clone(&table),
        commands: commands.downgrade(),
        accept,
    };
    let mut writer = Writer { write, encoder: Encoder::new()?, table, next: first };
    let mut reading = tokio::spawn(receiver.run());
    tokio::spawn(async move {
        let failure = tokio::select! {
            failure = writer.run(queue) => failure,
            failure = &mut reading => failure.unwrap_or(SpdyError::Closed),
        };
        reading.abort();
        writer.close(&failure).await;
    });
    Ok((Session { commands }, Incoming(accepted)))
}

struct Writer<T> {
    write: WriteHalf<T>,
    encoder: Encoder,
    table: Arc<Table>,
    next: u32,
}

impl<T: AsyncWrite + Send + 'static> Writer<T> {
    /// Ends when all senders are gone or the connection fails.
    async fn run(&mut self, mut queue: mpsc::Receiver<Command>) -> SpdyError {
        while let Some(command) = queue.recv().await {
            if let Err(error) = self.write(command).await {
                return error;
            }
        }
        SpdyError::Closed
    }

    /// Both directions have ended: so have all streams.
    async fn close(&mut self, failure: &SpdyError) {
        self.table.end_all(failure);
        if let Err(error) = self.write.shutdown().await {
            tracing::debug!(%error, "shutdown of a SPDY connection");
        }
    }

    async fn write(&mut self, command: Command) -> Result<(), SpdyError> {
        let frame = match command {
            Command::Frame(frame) => frame,
            Command::Accept(stream) => Frame::SynReply { stream, fin: false, block: self.encoder.encode(&[])? },
            Command::Open { headers, entry, id } => {
                let stream = self.next;
                self.next = stream.checked_add(2).ok_or(SpdyError::Protocol("out of stream ids"))?;
                self.table.0.lock().insert(stream, entry);
                // The opener may have given up; the peer's answer then finds nobody.
                id.send(stream).unwrap_or_default();
                Frame::SynStream { stream, fin: false, block: self.encoder.encode(&headers)? }
            }
        };
        let bytes = frame.encode();
        let written = tokio::time::timeout(WRITE_TIMEOUT, async {
            self.write.write_all(&bytes).await?;
            self.write.flush().await
        });
        Ok(written.await.map_err(|_| SpdyError::Deadline)??)
    }
}

struct Receiver<T> {
    reader: Reader<ReadHalf<T>>,
    decoder: Decoder,
    table: Arc<Table>,
    commands: mpsc::WeakSender<Command>,
    accept: mpsc::Sender<Stream>,
}

impl<T: AsyncRead + Send + 'static> Receiver<T> {
    /// Ends when the connection does.
    async fn run(mut self) -> SpdyError {
        loop {
            let taken = match self.reader.next().await {
                Ok(Some(frame)) => self.take(frame).await,
                Ok(None) => Err(SpdyError::Closed),
                Err(error) => Err(error),
            };
            if let Err(error) = taken {
                return error;
            }
        }
    }

    async fn take(&mut self, frame: Frame) -> Result<(), SpdyError> {
        match frame {
            Frame::SynStream { stream, fin, block } => {
                let headers = self.decoder.decode(&block)?;
                self.opened_by_peer(stream, fin, headers).await?;
            }
            Frame::SynReply { stream, fin, block } => {
                self.decoder.decode(&block)?;
                let opened = self.table.0.lock().get_mut(&stream).and_then(|entry| entry.opened.take());
                if let Some(opened) = opened {
                    opened.send(Ok(())).unwrap_or_default();
                }
                self.finished(stream, fin);
            }
            Frame::Headers { stream, fin, block } => {
                self.decoder.decode(&block)?;
                self.finished(stream, fin);
            }
            Frame::Data { stream, fin, data } => {
                let sender = self.table.0.lock().get(&stream).map(|entry| entry.data.clone());
                if let (Some(sender), false) = (sender, data.is_empty()) {
                    // A stream whose reader is gone takes no more; the others go on.
                    sender.send(data).await.unwrap_or_default();
                }
                self.finished(stream, fin);
            }
            // Peers end their streams this way when all is said; one that was never agreed to is refused by it.
            Frame::Reset { stream, status } => {
                let entry = self.table.0.lock().remove(&stream);
                if let Some(entry) = entry {
                    let refused = entry.opened.is_some();
                    entry.close(if refused { End::Failed(SpdyError::Reset(status)) } else { End::Finished });
                }
            }
            Frame::Ping { id } => self.command(Frame::Ping { id }).await,
            Frame::GoAway | Frame::Ignored => {}
        }
        Ok(())
    }

    fn finished(&self, stream: u32, fin: bool) {
        if fin {
            self.table.end(stream, End::Finished);
        }
    }

    async fn command(&mut self, frame: Frame) {
        if let Some(commands) = self.commands.upgrade() {
            commands.send(Command::Frame(frame)).await.unwrap_or_default();
        }
    }

    async fn opened_by_peer(&mut self, id: u32, fin: bool, headers: Pairs) -> Result<(), SpdyError> {
        let Some(commands) = self.commands.upgrade() else { return Err(SpdyError::Closed) };
        let (data, received) = mpsc::channel(READ_QUEUE);
        let end = Arc::new(OnceLock::new());
        let refused = {
            let mut table = self.table.0.lock();
            if table.contains_key(&id) {
                return Err(SpdyError::Protocol("stream id in use"));
            }
            let room = table.len() < MAX_STREAMS;
            if room {
                table.insert(id, Entry { data, end: Arc::clone(&end), opened: None });
            }
            !room
        };
        let stream = Stream { headers, id, data: received, end, commands };
        if refused || self.accept.try_send(stream).is_err() {
            self.table.end(id, End::Finished);
            self.command(Frame::Reset { stream: id, status: REFUSED_STREAM }).await;
            return Ok(());
        }
        self.finished(id, fin);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Session, Session, Incoming) {
        let (near, far) = tokio::io::duplex(4096);
        let client = Session::client(near).unwrap();
        let (server, incoming) = Session::server(far).unwrap();
        (client, server, incoming)
    }

    async fn all(stream: &mut Stream) -> Result<Vec<u8>, SpdyError> {
        let mut out = Vec::new();
        while let Some(data) = stream.receive().await? {
            out.extend_from_slice(&data);
        }
        Ok(out)
    }

    #[tokio::test]
    async fn streams_carry_data_both_ways() {
        let (client, _server, mut incoming) = pair();
        let echo = tokio::spawn(async move {
            let mut stream = incoming.next().await.unwrap();
            let name = stream.header("streamType").unwrap().to_owned();
            while let Some(data) = stream.receive().await.unwrap() {
                stream.send(data).await.unwrap();
            }
            stream.finish().await.unwrap();
            name
        });
        let mut stream = client.open(&[("streamType", "stdin")]).await.unwrap();
        let sender = stream.sender();
        let data = Bytes::from(vec![5; 3_000_000]);
        let sent = tokio::spawn({
            let data = data.clone();
            async move {
                sender.send(data).await.unwrap();
                sender.finish().await.unwrap();
            }
        });
        assert_eq!(all(&mut stream).await.unwrap(), data);
        sent.await.unwrap();
        assert_eq!(echo.await.unwrap(), "stdin");
    }

    #[tokio::test]
    async fn a_reset_ends_an_agreed_stream() {
        let (client, _server, mut incoming) = pair();
        let peer = tokio::spawn(async move {
            let stream = incoming.next().await.unwrap();
            stream.send(Bytes::from_static(b"last words")).await.unwrap();
            stream.reset().await;
            incoming
        });
        let mut stream = client.open(&[]).await.unwrap();
        assert_eq!(all(&mut stream).await.unwrap(), b"last words");
        drop(peer.await.unwrap());
    }

    #[tokio::test]
    async fn a_lost_connection_is_an_error() {
        let (client, server, mut incoming) = pair();
        let opened = tokio::spawn(async move { client.open(&[]).await.map(|stream| (stream, client)) });
        drop((incoming.next().await.unwrap(), incoming, server));
        let (mut stream, _client) = opened.await.unwrap().unwrap();
        assert!(matches!(stream.receive().await, Err(SpdyError::Closed)));
    }

    #[tokio::test]
    async fn garbage_ends_the_session() {
        let (near, mut far) = tokio::io::duplex(4096);
        let client = Session::client(near).unwrap();
        let opening = tokio::spawn(async move { client.open(&[]).await.map(|_| ()) });
        far.write_all(&[0x80, 9, 0, 1, 0, 0, 0, 0]).await.unwrap();
        assert!(opening.await.unwrap().is_err());
    }
}
