use std::pin::Pin;

use futures::{Stream, StreamExt};
use proto::konnectivity::{
    CloseResponse, Data, DialResponse, Packet, PacketType,
    packet::Payload,
    proxy_service_server::{ProxyService, ProxyServiceServer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixListener,
};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

use super::*;

/// A network proxy behind which everybody echoes, and nobody is at port 1.
struct Echo;

#[async_trait::async_trait]
impl ProxyService for Echo {
    type ProxyStream = Pin<Box<dyn Stream<Item = Result<Packet, Status>> + Send>>;

    async fn proxy(&self, request: Request<Streaming<Packet>>) -> Result<Response<Self::ProxyStream>, Status> {
        let (answers, sent) = tokio::sync::mpsc::channel(8);
        let mut packets = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(packet)) = packets.message().await {
                let (kind, payload) = match packet.payload {
                    Some(Payload::DialRequest(dial)) => {
                        let error = if dial.address.ends_with(":1") { "dial tcp: refused" } else { "" };
                        let answer = DialResponse { error: error.into(), connect_id: 7, random: dial.random };
                        (PacketType::DialRsp, Payload::DialResponse(answer))
                    }
                    Some(Payload::Data(data)) => {
                        (PacketType::Data, Payload::Data(Data { connect_id: data.connect_id, ..data }))
                    }
                    _ => {
                        let answer = CloseResponse { error: String::new(), connect_id: 7 };
                        (PacketType::CloseRsp, Payload::CloseResponse(answer))
                    }
                };
                if answers.send(Ok(Packet { r#type: kind.into(), payload: Some(payload) })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(sent).boxed()))
    }
}

fn dialer(protocol: ProxyProtocol, place: ProxyPlace) -> (Dialer, Registry) {
    let registry = Registry::new();
    let metrics = EgressMetrics::register(&registry).unwrap();
    (Dialer::through(protocol, place, metrics), registry)
}

#[tokio::test]
async fn bytes_go_through_a_network_proxy() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("proxy.sock");
    let listener = UnixListenerStream::new(UnixListener::bind(&socket).unwrap());
    let server = tonic::transport::Server::builder().add_service(ProxyServiceServer::new(Echo));
    tokio::spawn(server.serve_with_incoming(listener));
    let (dialer, registry) = dialer(ProxyProtocol::Grpc, ProxyPlace::Unix(socket));
    let mut connection = dialer.connect("10.0.0.1", 10250).await.unwrap();
    let long = vec![7; 200_000];
    let (mut reader, mut writer) = tokio::io::split(&mut connection);
    let mut back = vec![0; long.len()];
    let (written, read) = tokio::join!(writer.write_all(&long), reader.read_exact(&mut back));
    written.unwrap();
    read.unwrap();
    assert_eq!(back, long);
    connection.shutdown().await.unwrap();
    assert_eq!(connection.read(&mut back).await.unwrap(), 0);
    let refused = dialer.connect("10.0.0.1", 1).await.err().unwrap();
    assert_eq!(refused.to_string(), "dial tcp: refused");
    let families = registry.gather();
    let failures = families.iter().find(|family| family.name().ends_with("dial_failure_count")).unwrap();
    assert_eq!(failures.get_metric()[0].get_counter().get_value() as u64, 1);
}

#[tokio::test]
async fn proxies_are_asked_to_connect() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        for answer in ["HTTP/1.1 200 Connection established\r\n\r\nhello", "HTTP/1.1 403 Forbidden\r\n\r\n"] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; "CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n".len()];
            stream.read_exact(&mut asked).await.unwrap();
            assert!(asked.starts_with(b"CONNECT [::1]:443 HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let (dialer, _) = dialer(ProxyProtocol::HttpConnect, ProxyPlace::Tcp("127.0.0.1".into(), port, None));
    let mut connection = dialer.connect("::1", 443).await.unwrap();
    let mut greeting = [0; 5];
    connection.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"hello");
    let refused = dialer.connect("::1", 443).await.err().unwrap();
    assert_eq!(refused.to_string(), "proxy error while dialing [::1]:443, code 403: 403 Forbidden");
}
