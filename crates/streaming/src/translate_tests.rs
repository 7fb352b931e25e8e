use http::{HeaderValue, header};
use serde_json::json;
use tokio_tungstenite::WebSocketStream;

use super::*;

#[test]
fn exit_codes_reach_the_client() {
    let written = json!({
        "status": "Failure", "reason": "NonZeroExitCode", "message": "something of the runtime",
        "details": {"causes": [{"reason": "ExitCode", "message": "42"}]},
    });
    let status = status(written.to_string().as_bytes());
    assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "42"}));
    assert_eq!(status["message"], "command terminated with non-zero exit code: command terminated with exit code 42");
}

#[test]
fn silence_is_success_and_noise_an_error() {
    assert_eq!(status(b"")["status"], "Success");
    assert_eq!(status(br#"{"status":"Success"}"#)["status"], "Success");
    assert_eq!(status(b"oops")["reason"], "InternalError");
}

/// A back end that agrees to SPDY, answers its input in upper case, and ends with an exit code.
async fn shouting_backend(io: tokio::io::DuplexStream) {
    use axum::body::Body;
    use http::{Request, Response, StatusCode};
    let service = hyper::service::service_fn(|mut request: Request<hyper::body::Incoming>| async move {
        assert_eq!(request.headers()[upgrade::STREAM_PROTOCOL], BACKEND_PROTOCOL);
        assert_eq!(request.uri().path(), "/exec/a/b/c");
        let switched = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (_session, mut incoming) = Session::server(TokioIo::new(switched.await.unwrap())).unwrap();
            let error = incoming.next().await.unwrap();
            let mut stdin = incoming.next().await.unwrap();
            let stdout = incoming.next().await.unwrap();
            while let Some(data) = stdin.receive().await.unwrap() {
                stdout.send(data.to_ascii_uppercase().into()).await.unwrap();
            }
            let status = json!({"status": "Failure", "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": "3"}]}});
            error.send(status.to_string().into()).await.unwrap();
            for stream in [error, stdout, stdin] {
                stream.reset().await;
            }
        });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        Ok::<_, std::convert::Infallible>(response)
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service);
    connection.with_upgrades().await.unwrap();
}

/// A client's WebSocket and the server's end of it, over a real HTTP upgrade.
async fn sockets() -> (WebSocketStream<tokio::io::DuplexStream>, Socket) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let (given, taken) = tokio::sync::oneshot::channel();
    let given = std::sync::Arc::new(parking_lot::Mutex::new(Some(given)));
    tokio::spawn(async move {
        let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let given = given.lock().take();
            async move {
                let mut request = request.map(axum::body::Body::new);
                let handshake = crate::websocket::Handshake::accept(&mut request, PROTOCOL).unwrap();
                let (response, socket) = handshake.split();
                tokio::spawn(async move { given.unwrap().send(socket.await.unwrap()).ok() });
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service);
        connection.with_upgrades().await.unwrap();
    });
    let request = http::Request::builder()
        .uri("ws://node/exec")
        .header("host", "node")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-protocol", PROTOCOL)
        .body(())
        .unwrap();
    let (client, response) = tokio_tungstenite::client_async(request, near).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], PROTOCOL);
    (client, taken.await.unwrap())
}

#[tokio::test]
async fn a_command_is_carried_to_its_end() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(shouting_backend(far));
    let (mut client, server) = sockets().await;
    let backend = Backend { connection: Box::new(near), target: "/exec/a/b/c".to_owned(), host: "node".to_owned() };
    let streams = Streams { stdin: true, stdout: true, ..Streams::default() };
    tokio::spawn(run(server, Ok(backend), streams));
    client.send(message(Channel::Stdin, b"hello ")).await.unwrap();
    client.send(message(Channel::Stdin, b"world")).await.unwrap();
    client.send(Message::Binary(Bytes::from_static(&[255, 0]))).await.unwrap();
    let (mut output, mut status) = (Vec::new(), Vec::new());
    let end = loop {
        match client.next().await.unwrap().unwrap() {
            Message::Binary(data) if data[0] == 1 => output.extend_from_slice(&data[1..]),
            Message::Binary(data) if data[0] == 3 => status.extend_from_slice(&data[1..]),
            Message::Close(frame) => break frame.unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(u16::from(end.code), 1000);
    assert_eq!(output, b"HELLO WORLD");
    let status: Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "3");
}

#[tokio::test]
async fn an_unreachable_backend_is_told_on_the_error_channel() {
    let (mut client, server) = sockets().await;
    tokio::spawn(run(server, Err("dial tcp: refused".to_owned()), Streams { stdout: true, ..Streams::default() }));
    let Some(Ok(Message::Binary(greeting))) = client.next().await else { panic!("no greeting") };
    assert_eq!(&greeting[..], [1]);
    let Some(Ok(Message::Binary(data))) = client.next().await else { panic!("no status") };
    assert_eq!(data[0], 3);
    let status: Value = serde_json::from_slice(&data[1..]).unwrap();
    assert_eq!(status["message"], "Internal error occurred: dial tcp: refused");
}
