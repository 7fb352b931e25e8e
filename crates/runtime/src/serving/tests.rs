//! Over real sockets on loopback: TLS, ALPN and draining are what is tested.

use axum::{Extension, routing::get};
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;

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
