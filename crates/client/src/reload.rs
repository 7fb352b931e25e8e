//! A client whose credentials change while it is used.
//!
//! kube-rs reads certificates once. Here a client is put in front of another, which can be replaced: later requests go
//! out with the new credentials, and what still runs with the old ones (watches) ends, so that it begins anew.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream};
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use kube::{Client, client::Body};
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Service};

/// The connection was ended because the client has new credentials.
#[derive(Debug, thiserror::Error)]
#[error("connection closed: the client certificate was replaced")]
struct Replaced;

/// The connection was given up.
#[derive(Debug, thiserror::Error)]
#[error("connection closed: the server did not answer")]
struct Abandoned;

struct Current {
    client: Client,
    /// Ends bodies of answers.
    end: CancellationToken,
    /// Ends requests that wait for an answer, too.
    dead: CancellationToken,
}

impl Current {
    fn new(client: Client) -> Self {
        Self { client, end: CancellationToken::new(), dead: CancellationToken::new() }
    }
}

/// Gives a client other credentials.
#[derive(Clone)]
pub struct Reload(Arc<ArcSwap<Current>>);

impl Reload {
    /// Lets all further requests go through `client`, and ends running watches.
    pub fn replace(&self, client: Client) {
        self.0.swap(Arc::new(Current::new(client))).end.cancel();
    }

    /// The same, where connections carry no answers any more: requests that wait for one fail at once.
    pub fn abandon(&self, client: Client) {
        let old = self.0.swap(Arc::new(Current::new(client)));
        old.end.cancel();
        old.dead.cancel();
    }
}

/// A client in front of `client`, and the means to replace what is behind it.
pub fn reloadable(client: Client) -> (Client, Reload) {
    let namespace = client.default_namespace().to_owned();
    let current = Arc::new(ArcSwap::from_pointee(Current::new(client)));
    (Client::new(Front(Arc::clone(&current)), namespace), Reload(current))
}

struct Front(Arc<ArcSwap<Current>>);

impl Service<Request<Body>> for Front {
    type Response = Response<UnsyncBoxBody<Bytes, BoxError>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let current = self.0.load_full();
        Box::pin(async move {
            let response = tokio::select! {
                response = current.client.send(request) => response?,
                () = current.dead.cancelled() => return Err(Abandoned.into()),
            };
            Ok(response.map(|body| until(body, current.end.clone())))
        })
    }
}

/// The body, failing when `end` is cancelled.
fn until(body: Body, end: CancellationToken) -> UnsyncBoxBody<Bytes, BoxError> {
    let frames = stream::unfold(Some((body.into_data_stream(), end)), |state| async move {
        let (mut data, end) = state?;
        let next = tokio::select! {
            () = end.cancelled() => Err(Replaced.into()),
            next = data.next() => next?.map_err(BoxError::from),
        };
        let rest = next.is_ok().then_some((data, end));
        Some((next.map(Frame::data), rest))
    });
    StreamBody::new(frames).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use tower::service_fn;

    use super::*;

    /// A client of a server that answers with a name, and then keeps the body open or ends it.
    fn server(name: &'static str, open: bool) -> Client {
        let service = service_fn(move |_request: Request<Body>| async move {
            let body = Full::new(Bytes::from_static(name.as_bytes())).map_err(BoxError::from).boxed_unsync();
            let body = if open {
                let first = stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from_static(name.as_bytes())))]);
                StreamBody::new(first.chain(stream::pending())).boxed_unsync()
            } else {
                body
            };
            Ok::<_, BoxError>(Response::new(body))
        });
        Client::new(service, "default")
    }

    fn get() -> Request<Vec<u8>> {
        Request::get("/").body(Vec::new()).unwrap()
    }

    #[tokio::test]
    async fn later_requests_use_the_new_client() {
        let (client, reload) = reloadable(server("old", false));
        assert_eq!(client.request_text(get()).await.unwrap(), "old");
        reload.replace(server("new", false));
        assert_eq!(client.request_text(get()).await.unwrap(), "new");
    }

    #[tokio::test]
    async fn running_watches_end() {
        let (client, reload) = reloadable(server("old", true));
        let response = client.send(Request::get("/").body(Body::empty()).unwrap()).await.unwrap();
        let mut body = response.into_body().into_data_stream();
        assert_eq!(body.next().await.unwrap().unwrap(), "old");
        reload.replace(server("new", true));
        assert!(body.next().await.unwrap().is_err());
        assert!(body.next().await.is_none());
    }

    #[tokio::test]
    async fn abandoned_requests_fail() {
        let asked = Arc::new(tokio::sync::Notify::new());
        let asking = Arc::clone(&asked);
        let silent = service_fn(move |_request: Request<Body>| {
            asking.notify_one();
            std::future::pending::<Result<Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError>>()
        });
        let (client, reload) = reloadable(Client::new(silent, "default"));
        let request = client.request_text(get());
        let abandon = async {
            asked.notified().await;
            reload.abandon(server("new", false));
        };
        let (answer, ()) = tokio::join!(request, abandon);
        assert!(answer.is_err());
        assert_eq!(client.request_text(get()).await.unwrap(), "new");
    }
}
