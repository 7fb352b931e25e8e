//! Against a server with TLS on loopback: how many connections are made is what is tested.

use std::{collections::BTreeSet, net::SocketAddr};

use futures::StreamExt;
use kube::Client;
use runtime::{
    serving,
    tls::{self, ServingCertificate},
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Connection, connect_with};

type Peers = std::sync::Arc<parking_lot::Mutex<BTreeSet<SocketAddr>>>;

/// A server whose watches begin and never end, the peers it has seen, and a client of it.
async fn serve(stop: &CancellationToken, http2: bool) -> (Peers, Client) {
    let (certificate, key) = tls::self_signed("test", &[], &[[127, 0, 0, 1].into()]).unwrap();
    let serving_certificate = ServingCertificate::new(certificate.as_bytes(), key.as_bytes()).unwrap();
    let options = tls::ServerOptions { no_http2: !http2, ..tls::ServerOptions::default() };
    let config = tls::server_config_with(&options, std::sync::Arc::new(serving_certificate)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let peers = Peers::default();
    let seen = Peers::clone(&peers);
    let handler = move |request: http::Request<axum::body::Body>| {
        let connection: Option<&serving::Connection> = request.extensions().get();
        seen.lock().extend(connection.map(|c| c.peer));
        let first = futures::stream::iter([Ok::<_, std::io::Error>("{}\n")]);
        let body = axum::body::Body::from_stream(first.chain(futures::stream::pending()));
        async move { http::Response::new(body) }
    };
    let limits = serving::Limits { max_streams: 100, ..serving::Limits::default() };
    let grace = std::time::Duration::ZERO;
    tokio::spawn(serving::serve_with(listener, Some(config), handler, stop.clone(), grace, limits));
    let mut config = kube::Config::new(format!("https://{address}").parse().unwrap());
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
    config.root_cert = Some(chain.map(|certificate| certificate.unwrap().to_vec()).collect());
    let connection = Connection { user_agent: "test".into(), qps: 0.0, burst: 1, metrics: None };
    (peers, connect_with(config, &connection).unwrap())
}

async fn watch(client: &Client) -> kube::client::Body {
    let request = http::Request::get("/api/v1/pods?watch=true").body(kube::client::Body::empty()).unwrap();
    let answer = client.send(request).await.unwrap();
    let mut body = answer.into_body();
    http_body_util::BodyExt::frame(&mut body).await.unwrap().unwrap();
    body
}

#[tokio::test]
async fn a_connection_carries_many_watches() {
    let stop = CancellationToken::new();
    let (peers, client) = serve(&stop, true).await;
    let mut open = futures::future::join_all((0..super::PER_CONNECTION).map(|_| watch(&client))).await;
    assert_eq!(peers.lock().len(), 1);
    open.push(watch(&client).await);
    assert_eq!(peers.lock().len(), 2, "a full connection takes no more");
    open.remove(0);
    open.push(watch(&client).await);
    assert_eq!(peers.lock().len(), 2, "an ended watch leaves its place");
    stop.cancel();
}

#[tokio::test]
async fn servers_without_http2_are_watched_too() {
    let stop = CancellationToken::new();
    let (peers, client) = serve(&stop, false).await;
    let open = futures::future::join_all((0..3).map(|_| watch(&client))).await;
    assert_eq!((open.len(), peers.lock().len()), (3, 3));
    stop.cancel();
}
