//! `kubectl proxy`: the API on a local port or socket, with the credentials of the kubeconfig.

mod files;
mod filter;
mod forward;
#[cfg(test)]
mod tests;

use std::{io::Write, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{files::Files, filter::Filter, forward::Forwarder};
use crate::{
    cluster, command::Command, context::Context, error::CommandError, flags::Flag, kubeconfig::files::go_io_text,
};

/// Connections at once.
const CONNECTIONS: usize = 1024;
/// Time for the head of a request.
const HEAD: Duration = Duration::from_secs(30);

/// Body of an answer.
type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// The command.
pub(crate) fn command() -> Command {
    Command::new("proxy", "Run a proxy to the Kubernetes API server")
        .long(
            "Serves the API on a local address with the credentials of the kubeconfig, and files of a directory beside it.",
        )
        .usage("[--port=PORT] [--www=static-dir] [--www-prefix=prefix] [--api-prefix=prefix]")
        .examples(&[
            "kubectl proxy --port=8011 --www=./local/www/",
            "kubectl proxy --api-prefix=/custom/",
            "kubectl proxy --unix-socket=/tmp/api.sock",
        ])
        .flags([
            Flag::text("accept-hosts", filter::HOSTS, "Regular expressions of hosts that are served."),
            Flag::text("accept-paths", filter::PATHS, "Regular expressions of paths that are served."),
            Flag::text("address", "127.0.0.1", "IP address to serve on."),
            Flag::text("api-prefix", "/", "Path below which the API is served."),
            Flag::switch("append-server-path", "Put the path of the server's address before the path of each request."),
            Flag::switch("disable-filter", "Serve everything to everybody who reaches the port. Dangerous."),
            Flag::duration("keepalive", "0s", "Time between probes of idle connections to clients; 0 for none."),
            Flag::int("port", "8001", "Port to serve on; 0 for any.").short('p'),
            Flag::text("reject-methods", filter::NONE, "Regular expressions of methods that are refused."),
            Flag::text("reject-paths", filter::REJECTED, "Regular expressions of paths that are refused, even if accepted."),
            Flag::text("unix-socket", "", "Socket to serve on.").short('u'),
            Flag::text("www", "", "Directory whose files are served.").short('w'),
            Flag::text("www-prefix", "/static/", "Path below which the files are served.").short('P'),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let flags = &context.flags;
    let port = u16::try_from(flags.int("port")).map_err(|_| CommandError::plain("invalid port"));
    if flags.given("port") && flags.int("port") != 8001 && flags.non_empty("unix-socket").is_some() {
        return Err(CommandError::plain("cannot set --unix-socket and --port at the same time"));
    }
    let filter = if flags.bool("disable-filter") {
        if flags.text("unix-socket").is_empty() {
            context.streams.err.clone().log(
                'W',
                "proxy.go:177",
                "Request filter disabled, your proxy is vulnerable to XSRF attacks, please be cautious",
            )?;
        }
        None
    } else {
        Some(Filter::of(flags)?)
    };
    let selected = context.selected()?;
    let client = cluster::client(selected.config().await?)?;
    let server = Arc::new(Server {
        filter,
        files: flags.non_empty("www").map(|directory| Files::new(directory, flags.text("www-prefix"))),
        forwarder: Forwarder::new(
            client,
            flags.text("api-prefix"),
            if flags.bool("append-server-path") { selected.server() } else { String::new() },
            cluster::user_agent(&context.program),
        ),
        tasks: TaskTracker::new(),
        stop: context.stop.clone(),
        room: Arc::new(Semaphore::new(CONNECTIONS)),
    });
    match flags.non_empty("unix-socket") {
        Some(path) => server.on_socket(context, path).await,
        None => server.on_port(context, port?).await,
    }
}

/// What answers requests.
struct Server {
    filter: Option<Filter>,
    files: Option<Files>,
    forwarder: Forwarder,
    tasks: TaskTracker,
    stop: CancellationToken,
    room: Arc<Semaphore>,
}

impl Server {
    async fn on_port(self: Arc<Self>, context: &Context, port: u16) -> Result<(), CommandError> {
        let address = context.flags.text("address");
        let place = format!("{address}:{port}");
        let fail = |error: std::io::Error| {
            CommandError::plain(format!("listen tcp {place}: bind: {}", go_io_text(&error).to_lowercase()))
        };
        let listener = TcpListener::bind((address, port)).await.map_err(fail)?;
        started(context, &listener.local_addr()?.to_string())?;
        let keepalive = context.flags.duration("keepalive");
        loop {
            let permit = Arc::clone(&self.room).acquire_owned().await;
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return self.end().await,
            };
            // A connection that is gone already is its client's loss.
            let (Ok((stream, _)), Ok(permit)) = (accepted, permit) else { continue };
            if !keepalive.is_zero() {
                let socket = socket2::SockRef::from(&stream);
                let probes = socket2::TcpKeepalive::new().with_time(keepalive).with_interval(keepalive);
                // Without probes, dead clients are found out later.
                let _without = socket.set_tcp_keepalive(&probes).is_err();
            }
            self.serve(stream, permit);
        }
    }

    async fn on_socket(self: Arc<Self>, context: &Context, path: &str) -> Result<(), CommandError> {
        let path = PathBuf::from(path);
        if std::fs::symlink_metadata(&path).is_ok_and(|m| std::os::unix::fs::FileTypeExt::is_socket(&m.file_type())) {
            std::fs::remove_file(&path)?;
        }
        let fail = |error: std::io::Error| {
            CommandError::plain(format!("listen unix {}: bind: {}", path.display(), go_io_text(&error).to_lowercase()))
        };
        let listener = bind_private(&path).map_err(fail)?;
        started(context, &path.display().to_string())?;
        loop {
            let permit = Arc::clone(&self.room).acquire_owned().await;
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => break,
            };
            let (Ok((stream, _)), Ok(permit)) = (accepted, permit) else { continue };
            self.serve(stream, permit);
        }
        // Someone else may have taken the path.
        let _kept = std::fs::remove_file(&path).is_err();
        self.end().await
    }

    async fn end(&self) -> Result<(), CommandError> {
        self.tasks.close();
        self.tasks.wait().await;
        Ok(())
    }

    fn serve<T>(self: &Arc<Self>, stream: T, permit: tokio::sync::OwnedSemaphorePermit)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let server = Arc::clone(self);
        self.tasks.spawn(async move {
            let _permit = permit;
            let stop = server.stop.clone();
            let service = hyper::service::service_fn(move |request| {
                let server = Arc::clone(&server);
                async move { Ok::<_, std::convert::Infallible>(server.answer(request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades();
            // Clients end connections as they like.
            let _ended = stop.run_until_cancelled(connection).await;
        });
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if self.filter.as_ref().is_some_and(|filter| !filter.accepts(&request)) {
            return text(StatusCode::FORBIDDEN, "Forbidden\n");
        }
        let path = request.uri().path().to_owned();
        if let Some(files) = &self.files {
            if files.has(&path) {
                return files.answer(&request).await;
            }
            if files.is_prefix(&path) {
                return redirect(StatusCode::TEMPORARY_REDIRECT, &format!("{path}/"));
            }
        }
        match self.forwarder.target(request.uri()) {
            Some(target) => self.forwarder.forward(request, &target, &self.tasks, &self.stop).await,
            None if self.forwarder.is_prefix(&path) => redirect(StatusCode::TEMPORARY_REDIRECT, &format!("{path}/")),
            None => text(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }
}

/// Makes a socket that its owner alone may use.
fn bind_private(path: &std::path::Path) -> std::io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn started(context: &Context, place: &str) -> Result<(), CommandError> {
    let mut out = context.streams.out.clone();
    writeln!(out, "Starting to serve on {place}")?;
    out.flush()?;
    Ok(())
}

/// A body that is there already.
fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer of plain text.
fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = Response::new(full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    response
}

/// To another path of this server.
fn redirect(status: StatusCode, to: &str) -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = status;
    match header::HeaderValue::from_str(to) {
        Ok(to) => {
            response.headers_mut().insert(header::LOCATION, to);
            response
        }
        Err(_) => text(StatusCode::NOT_FOUND, "404 page not found\n"),
    }
}
