//! Over real sockets on loopback: TLS, ALPN and draining are what is tested.

use axum::{Extension, routing::get};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
};

use super::*;
use crate::{flags::SecureServingArgs, tasks::TaskGroup, tls};

#[derive(clap::Parser)]
struct Flags {
    #[command(flatten)]
    serving: SecureServingArgs,
}

fn args(dir: &std::path::Path) -> SecureServingArgs {
    let dir = format!("--cert-dir={}", dir.display());
    <Flags as clap::Parser>::parse_from(["x", "--bind-address=127.0.0.1", &dir]).serving
}

async fn connect(address: SocketAddr, roots: &[u8], protocol: &[u8]) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut config = tls::client_config(roots, None).unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

#[tokio::test]
async fn serves_both_protocols_and_drains() {
    let dir = tempfile::tempdir().unwrap();
    let tasks = TaskGroup::new("test");
    let (entered, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (entered_here, go_on_here) = (Arc::clone(&entered), Arc::clone(&go_on));
    let router = Router::new()
        .route("/who", get(|Extension(c): Extension<Connection>| async move { c.certificates.len().to_string() }))
        .route(
            "/slow",
            get(move || {
                let (entered, go_on) = (Arc::clone(&entered_here), Arc::clone(&go_on_here));
                async move {
                    entered.notify_one();
                    go_on.notified().await;
                    "done"
                }
            }),
        );
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = SecureServing::bind_to(&args(dir.path()), any, "apiserver", &[], &[], &tasks).unwrap();
    let address = server.address;
    let stop = CancellationToken::new();
    let serving = tokio::spawn(server.serve(router, stop.clone(), Duration::from_secs(30)));
    let roots = std::fs::read(dir.path().join("apiserver.crt")).unwrap();

    let old = TokioIo::new(connect(address, &roots, b"http/1.1").await);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(old).await.unwrap();
    tokio::spawn(connection);
    let request = |path: &str| Request::get(path).header("host", "x").body(Body::empty()).unwrap();
    assert_eq!(sender.send_request(request("/who")).await.unwrap().status(), 200);

    let new = TokioIo::new(connect(address, &roots, b"h2").await);
    let (mut sender2, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), new).await.unwrap();
    tokio::spawn(connection);
    let answer =
        sender2.send_request(Request::get("https://127.0.0.1/who").body(Body::empty()).unwrap()).await.unwrap();
    let body = axum::body::to_bytes(Body::new(answer.into_body()), 100).await.unwrap();
    assert_eq!(body.as_ref(), b"0");

    let slow = tokio::spawn(sender.send_request(request("/slow")));
    entered.notified().await;
    stop.cancel();
    go_on.notify_one();
    let answer = slow.await.unwrap().unwrap();
    let body = axum::body::to_bytes(Body::new(answer.into_body()), 100).await.unwrap();
    assert_eq!(body.as_ref(), b"done");
    drop(sender2);
    serving.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[test]
fn handshakes_are_bounded_by_address() {
    let all = Handshakes::default();
    let here = IpAddr::from([127, 0, 0, 1]);
    let held: Vec<_> = (0..MAX_HANDSHAKES_PER_ADDRESS).map(|_| all.begin(here).unwrap()).collect();
    assert!(all.begin(here).is_none());
    assert!(all.begin(IpAddr::from([127, 0, 0, 2])).is_some());
    drop(held);
    assert!(all.begin(here).is_some() && all.0.lock().is_empty());
}

/// Frames of HTTP/2 that open a stream and reset it at once.
fn opened_and_reset(streams: u32) -> Vec<u8> {
    let mut frames = Vec::new();
    for stream in 0..streams {
        let id = (2 * stream + 1).to_be_bytes();
        // GET https://a/ by the static table.
        let head = [0x82, 0x87, 0x84, 0x41, 0x01, b'a'];
        frames.extend_from_slice(&[0, 0, head.len() as u8, 0x1, 0x5]);
        frames.extend_from_slice(&id);
        frames.extend_from_slice(&head);
        frames.extend_from_slice(&[0, 0, 4, 0x3, 0]);
        frames.extend_from_slice(&id);
        frames.extend_from_slice(&8_u32.to_be_bytes());
    }
    frames
}

#[tokio::test]
async fn cve_2023_44487_rapid_resets_end_the_connection() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let tasks = TaskGroup::new("test");
    let router = Router::new().route("/", get(std::future::pending::<&'static str>));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = SecureServing::bind_to(&args(dir.path()), any, "apiserver", &[], &[], &tasks).unwrap();
    let address = server.address;
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(server.serve(router, stop, Duration::ZERO));
    let roots = std::fs::read(dir.path().join("apiserver.crt")).unwrap();
    let (mut reader, mut writer) = tokio::io::split(connect(address, &roots, b"h2").await);
    writer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    writer.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let flood = opened_and_reset(100_000);
    let writing = tokio::spawn(async move { writer.write_all(&flood).await });
    let mut answered = Vec::new();
    // The server says why, and ends the connection; what it did not read then is an error here.
    let _ended = reader.read_to_end(&mut answered).await.is_err();
    let mut rest = answered.as_slice();
    let mut codes = Vec::new();
    while let Some((head, tail)) = rest.split_first_chunk::<9>() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some((body, tail)) = tail.split_at_checked(length) else { break };
        if head[3] == 0x7 {
            codes.push(body[7]);
        }
        rest = tail;
    }
    assert!(codes.contains(&0xb), "ENHANCE_YOUR_CALM: {codes:?}");
    let _cut = writing.await.unwrap().is_err();
}

#[tokio::test]
async fn the_address_of_everywhere_is_that_of_both_families() {
    let everywhere = listen(SocketAddr::from(([0, 0, 0, 0], 0))).unwrap();
    let port = everywhere.local_addr().unwrap().port();
    let (stop, tasks) = (CancellationToken::new(), tokio_util::task::TaskTracker::new());
    let told = axum::Router::new().route(
        "/",
        axum::routing::get(|connection: axum::Extension<Connection>| async move { connection.peer.ip().to_string() }),
    );
    tasks.spawn(serve_router(everywhere, None, told, stop.clone(), Duration::from_secs(1)));
    let mut families = vec![IpAddr::from([127, 0, 0, 1])];
    // Not every machine has IPv6.
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        families.push(std::net::Ipv6Addr::LOCALHOST.into());
    }
    for ip in families {
        let mut stream = tokio::net::TcpStream::connect((ip, port)).await.unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with(&format!("\r\n\r\n{ip}")), "{answer}");
    }
    stop.cancel();
}
