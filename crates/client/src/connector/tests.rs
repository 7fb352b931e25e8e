//! Proxies and repeated requests, over real sockets on loopback.

use std::sync::atomic::{AtomicUsize, Ordering};

use runtime::{metrics, serving};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{Connection, connect_with};

#[test]
fn only_who_says_when_is_asked_again() {
    let headers = |value: Option<&'static str>| {
        value.map(|v| (header::RETRY_AFTER, http::HeaderValue::from_static(v))).into_iter().collect()
    };
    for (code, value, expected) in [
        (429, Some("2"), Some(2)),
        (503, Some("0"), Some(0)),
        (500, Some("1"), Some(1)),
        (429, None, None),
        (404, Some("1"), None),
        (503, Some("soon"), None),
    ] {
        let status = StatusCode::from_u16(code).unwrap();
        let headers: http::HeaderMap = headers(value);
        assert_eq!(asks_again(status, &headers), expected.map(Duration::from_secs), "{code} {value:?}");
    }
}

/// A server that refuses the first request with the wish to see it again.
async fn server(stop: &CancellationToken) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let handler = move |request: Request<axum::body::Body>| {
        let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            let body = axum::body::to_bytes(request.into_body(), 1000).await.unwrap();
            let mut answer = Response::new(axum::body::Body::from(body));
            if first {
                *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                answer.headers_mut().insert(header::RETRY_AFTER, http::HeaderValue::from_static("0"));
            }
            answer
        }
    };
    tokio::spawn(serving::serve(listener, None, handler, stop.clone(), Duration::ZERO));
    address
}

fn client_of(config: Config, registry: &prometheus::Registry) -> kube::Client {
    let metrics = Some(ClientMetrics::new(registry).unwrap());
    connect_with(config, &Connection { user_agent: "test".into(), qps: 0.0, burst: 1, metrics }).unwrap()
}

#[tokio::test]
async fn requests_are_repeated_and_counted() {
    let stop = CancellationToken::new();
    let address = server(&stop).await;
    let registry = prometheus::Registry::new();
    let client = client_of(Config::new(format!("http://{address}").parse().unwrap()), &registry);
    let answer = client.request_text(Request::post("/x").body(b"again".to_vec()).unwrap()).await.unwrap();
    assert_eq!(answer, "again");
    let text = metrics::expose(&registry);
    let line = format!("rest_client_request_retries_total{{code=\"503\",host=\"{address}\",verb=\"POST\"}} 1");
    assert!(text.contains(&line), "{text}");
    stop.cancel();
}

#[tokio::test]
async fn proxies_make_tunnels() {
    let stop = CancellationToken::new();
    let address = server(&stop).await;
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let named = proxy.local_addr().unwrap();
    let passed = tokio::spawn(async move {
        let (mut near, _) = proxy.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(near.read_u8().await.unwrap());
        }
        near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let mut far = TcpStream::connect(address).await.unwrap();
        // Ends when the client does.
        let _ended = tokio::io::copy_bidirectional(&mut near, &mut far).await.is_err();
        String::from_utf8(head).unwrap()
    });
    let mut config = Config::new("http://api.example:6443".parse().unwrap());
    config.proxy_url = Some(format!("http://user:secret@{named}").parse().unwrap());
    let registry = prometheus::Registry::new();
    let client = client_of(config, &registry);
    assert_eq!(client.request_text(Request::get("/x").body(Vec::new()).unwrap()).await.unwrap(), "");
    drop(client);
    let head = passed.await.unwrap();
    assert!(head.starts_with("CONNECT api.example:6443 HTTP/1.1\r\n"), "{head}");
    assert!(head.to_lowercase().contains("proxy-authorization: basic"), "{head}");
    stop.cancel();
}
