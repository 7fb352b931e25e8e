//! `CONNECT`: a proxy that speaks HTTP/1.1.

use std::io;

use streaming::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Largest head of an answer.
const MOST: usize = 16 << 10;

/// Asks for a connection to `host:port` over one to the proxy.
pub(super) async fn connect(mut carrier: Connection, address: &str) -> io::Result<Connection> {
    carrier.write_all(format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
    carrier.flush().await?;
    let head = head(&mut carrier, address).await?;
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let wrong = |why: String| {
        io::Error::other(format!("reading HTTP response from CONNECT to {address} via proxy failed: {why}"))
    };
    response.parse(&head).map_err(|error| wrong(error.to_string()))?;
    match response.code {
        Some(200) => Ok(carrier),
        Some(code) => {
            let reason = response.reason.unwrap_or_default();
            Err(io::Error::other(format!("proxy error while dialing {address}, code {code}: {code} {reason}")))
        }
        None => Err(wrong("no status".into())),
    }
}

/// The head of the answer. What follows it belongs to the connection, so not a byte more is read.
async fn head(carrier: &mut Connection, address: &str) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MOST {
            return Err(io::Error::other(format!("the answer of the proxy about {address} is too long")));
        }
        head.push(carrier.read_u8().await?);
    }
    Ok(head)
}
