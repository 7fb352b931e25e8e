//! The protocol of network proxies: one stream of packets for each connection.

use std::io;

use hyper_util::rt::TokioIo;
use proto::konnectivity::{
    CloseRequest, Data, DialRequest, Packet, PacketType, packet::Payload, proxy_service_client::ProxyServiceClient,
};
use streaming::Connection;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Streaming,
    transport::{Endpoint, Uri},
};

/// Bytes that wait in each direction.
const BUFFER: usize = 64 << 10;
/// Bytes of one packet.
const PACKET: usize = 32 << 10;
/// Packets that wait to be sent.
const QUEUE: usize = 8;

fn packet(kind: PacketType, payload: Payload) -> Packet {
    Packet { r#type: kind.into(), payload: Some(payload) }
}

fn failed(why: impl std::fmt::Display) -> io::Error {
    io::Error::other(why.to_string())
}

/// Opens a connection to `host:port` over one to the proxy.
pub(super) async fn open(carrier: Connection, address: &str) -> io::Result<Connection> {
    let mut carrier = Some(carrier);
    let connector = tower::service_fn(move |_: Uri| {
        let carrier = carrier.take().map(TokioIo::new);
        async move { carrier.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
    });
    let channel = Endpoint::from_static("http://proxy.local").connect_with_connector(connector).await;
    let channel = channel.map_err(|error| failed(util::chain(&error)))?;
    let (packets, sent) = mpsc::channel(QUEUE);
    let random = i64::from(rand::random::<u32>());
    let request = DialRequest { protocol: "tcp".into(), address: address.to_owned(), random };
    packets.send(packet(PacketType::DialReq, Payload::DialRequest(request))).await.map_err(failed)?;
    let answers = ProxyServiceClient::new(channel).proxy(ReceiverStream::new(sent)).await;
    let mut answers = answers.map_err(|status| failed(status.message()))?.into_inner();
    let id = answered(&mut answers, random).await?;
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let (reader, writer) = tokio::io::split(theirs);
    tokio::spawn(carry(answers, packets, reader, writer, id));
    Ok(Box::new(ours))
}

/// Waits until the proxy has the connection; answers its number.
async fn answered(answers: &mut Streaming<Packet>, random: i64) -> io::Result<i64> {
    loop {
        let next = answers.message().await.map_err(|status| failed(status.message()))?;
        match next.and_then(|packet| packet.payload) {
            Some(Payload::DialResponse(answer)) if answer.random == random => {
                return match answer.error.as_str() {
                    "" => Ok(answer.connect_id),
                    why => Err(failed(why)),
                };
            }
            Some(Payload::CloseDial(_)) => return Err(failed("DIAL_CLS received before DIAL_RSP")),
            // Answers to others, and words that the proxy is about to go, say nothing of this one.
            Some(_) => {}
            None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
        }
    }
}

/// Carries bytes both ways until one side has no more. The stream ends with this.
async fn carry(
    answers: Streaming<Packet>,
    packets: mpsc::Sender<Packet>,
    reader: ReadHalf<DuplexStream>,
    writer: WriteHalf<DuplexStream>,
    id: i64,
) {
    let outcome = tokio::select! {
        outcome = outwards(&packets, reader, id) => outcome,
        outcome = inwards(answers, writer, id) => outcome,
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection through the network proxy ended");
    }
}

async fn outwards(packets: &mpsc::Sender<Packet>, mut reader: ReadHalf<DuplexStream>, id: i64) -> io::Result<()> {
    let mut buffer = vec![0; PACKET];
    loop {
        let read = reader.read(&mut buffer).await?;
        let next = match buffer.get(..read) {
            Some(bytes) if read > 0 => {
                let data = Data { connect_id: id, error: String::new(), data: bytes.to_vec() };
                packet(PacketType::Data, Payload::Data(data))
            }
            _ => packet(PacketType::CloseReq, Payload::CloseRequest(CloseRequest { connect_id: id })),
        };
        packets.send(next).await.map_err(failed)?;
        if read == 0 {
            // The other half ends when the proxy has closed the connection.
            return std::future::pending().await;
        }
    }
}

async fn inwards(mut answers: Streaming<Packet>, mut writer: WriteHalf<DuplexStream>, id: i64) -> io::Result<()> {
    loop {
        let next = answers.message().await.map_err(|status| failed(status.message()))?;
        match next.and_then(|packet| packet.payload) {
            Some(Payload::Data(data)) if data.connect_id == id => {
                if !data.error.is_empty() {
                    return Err(failed(data.error));
                }
                writer.write_all(&data.data).await?;
            }
            Some(Payload::CloseResponse(answer)) if answer.connect_id == id => {
                writer.shutdown().await?;
                return if answer.error.is_empty() { Ok(()) } else { Err(failed(answer.error)) };
            }
            Some(_) => {}
            None => return writer.shutdown().await,
        }
    }
}
