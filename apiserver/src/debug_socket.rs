//! `--debug-socket-path`: profiling on a Unix socket, for whoever can open it.

use std::{convert::Infallible, io, os::unix::fs::FileTypeExt, path::Path, sync::Arc};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// Connections at once.
const CONNECTIONS: usize = 16;

/// Serves `router` on a socket until `stop`. A socket that an earlier process left is replaced; another file is not.
pub(crate) fn serve(path: &Path, router: Router, stop: CancellationToken) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(about) if about.file_type().is_socket() => std::fs::remove_file(path)?,
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "debug socket");
                    return;
                }
            };
            let (router, stop) = (router.clone(), stop.clone());
            tokio::spawn(async move {
                stop.run_until_cancelled(connection(stream, router)).await;
                drop(slot);
            });
        }
    }));
    Ok(())
}

async fn connection(stream: UnixStream, router: Router) {
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            let Ok(answer) = router.oneshot(request.map(Body::new)).await;
            Ok::<_, Infallible>(answer)
        }
    });
    if let Err(error) = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "debug socket");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn only_a_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("debug.sock");
        let router = Router::new().route("/x", get(|| async { "here" }));
        let stop = CancellationToken::new();
        for _ in 0..2 {
            serve(&path, router.clone(), stop.clone()).unwrap();
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(b"GET /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with("here"), "{answer}");
        }
        let file = dir.path().join("file");
        std::fs::write(&file, "mine").unwrap();
        assert!(serve(&file, router, stop).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
    }
}
