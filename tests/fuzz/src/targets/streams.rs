//! Frames of streams.

use streaming::spdy::Session;
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    runtime::Builder,
};

/// A connection whose other end says these bytes, listens to everything, and goes.
fn connection(bytes: Vec<u8>) -> DuplexStream {
    let (near, far) = tokio::io::duplex(4 << 10);
    tokio::spawn(async move {
        let (mut heard, mut said) = tokio::io::split(far);
        let listen = tokio::spawn(async move { tokio::io::copy(&mut heard, &mut tokio::io::sink()).await });
        // The near side may have had enough before the end.
        said.write_all(&bytes).await.unwrap_or_default();
        said.shutdown().await.unwrap_or_default();
        drop(said);
        drop(listen.await);
    });
    near
}

async fn server(near: DuplexStream) {
    let Ok((session, mut incoming)) = Session::server(near) else { return };
    while let Some(mut stream) = incoming.next().await {
        tokio::spawn(async move { while let Ok(Some(_)) = stream.receive().await {} });
    }
    drop(session);
}

async fn client(near: DuplexStream) {
    let Ok(session) = Session::client(near) else { return };
    if let Ok(mut stream) = session.open(&[("streamtype", "stdout")]).await {
        while let Ok(Some(_)) = stream.receive().await {}
    }
}

/// Both sides of SPDY read the same bytes until they end.
pub(super) fn spdy(bytes: &[u8]) {
    let Ok(runtime) = Builder::new_current_thread().enable_time().build() else { return };
    runtime.block_on(async {
        server(connection(bytes.to_vec())).await;
        client(connection(bytes.to_vec())).await;
    });
}
