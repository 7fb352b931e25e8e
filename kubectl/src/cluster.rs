//! The server: requests, answers, warnings, watches, discovery.

mod failure;
mod memory;
mod request;
mod watch;

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue, Response};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use machinery::duration;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::OnceCell;

use memory::Memory;
pub use request::Call;
pub use watch::{Event, Watch};

use crate::{context::Context, discovery::Served, error::CommandError, streams::Output};

/// Time to wait for discovery.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(32);
/// What asks for discovery in one document.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;\
    g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// A connection with what is known of the server.
pub struct Cluster {
    client: Client,
    /// Namespace of commands that name none.
    pub namespace: String,
    /// Whether `--namespace` was given.
    pub enforced: bool,
    /// Address of the server.
    pub server: String,
    /// Time for one request.
    timeout: Option<Duration>,
    verbosity: i64,
    err: Output,
    warnings: Mutex<Vec<String>>,
    warned: AtomicUsize,
    memory: Option<Memory>,
    remembered: OnceCell<Option<Arc<Served>>>,
    served: OnceCell<Arc<Served>>,
}

impl Cluster {
    /// Connects as the kubeconfig and the flags say. Nothing is sent yet.
    pub async fn connect(context: &Context) -> Result<Self, CommandError> {
        let selected = context.selected()?;
        let mut config = selected.config().await?;
        let server = selected.server();
        config.headers = headers(&context.program, &context.path);
        let client = client(config)?;
        let timeout = timeout(context.flags.text("request-timeout"))?;
        Ok(Self {
            client,
            namespace: selected.namespace,
            enforced: selected.enforced,
            memory: Memory::of(&context.flags, &server),
            server,
            timeout,
            verbosity: context.flags.int("v"),
            err: context.streams.err.clone(),
            warnings: Mutex::new(Vec::new()),
            warned: AtomicUsize::new(0),
            remembered: OnceCell::new(),
            served: OnceCell::new(),
        })
    }

    /// Fails unless the server has the version of the client.
    pub async fn require_version(&self) -> Result<(), CommandError> {
        let server = self.get("/version").await?;
        let (theirs, ours) = (server["gitVersion"].as_str().unwrap_or(""), runtime::version::git_version());
        if theirs == ours {
            return Ok(());
        }
        Err(CommandError::plain(format!("server version ({theirs}) differs from client version ({ours})")))
    }

    /// The client, for upgrades to streams.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// `host:port` of the server.
    pub fn host(&self) -> &str {
        let rest = self.server.split_once("://").map_or(self.server.as_str(), |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }

    /// Sends a request; the answer's body has not been read yet. A refusal becomes an error.
    pub async fn send(&self, call: &Call) -> Result<Response<Body>, CommandError> {
        let request = call.build(self.timeout)?;
        let (verb, uri) = (request.method().clone(), request.uri().to_string());
        if self.verbosity >= 8 {
            self.log(&format!("\"Request\" verb=\"{verb}\" url=\"{}{uri}\"", self.server));
            if !call.body().is_empty() {
                self.log(&format!("\"Request Body\" body={:?}", String::from_utf8_lossy(call.body())));
            }
        }
        let start = Instant::now();
        let sent = self.client.send(request);
        let limit = call.deadline().or(self.timeout);
        let outcome = match limit {
            Some(limit) => match tokio::time::timeout(limit, sent).await {
                Ok(outcome) => outcome,
                Err(_) => return Err(failure::timed_out()),
            },
            None => sent.await,
        };
        let code = outcome.as_ref().map_or(0, |r| r.status().as_u16());
        if self.verbosity >= 6 {
            let spent = start.elapsed().as_millis();
            let url = format!("{}{uri}", self.server);
            self.log(&format!("\"Response\" verb=\"{verb}\" url=\"{url}\" status=\"{code}\" milliseconds={spent}"));
        }
        let response = outcome.map_err(|e| failure::of_transport(&e, self.host()))?;
        self.note_warnings(&response)?;
        if response.status().is_success() || response.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let status = response.status();
        let retry_after = response.headers().get(http::header::RETRY_AFTER).cloned();
        let body = self.body(response).await.unwrap_or_default();
        Err(failure::of_answer(status, retry_after.as_ref(), &body, call))
    }

    /// All of an answer's body.
    async fn body(&self, response: Response<Body>) -> Result<Vec<u8>, CommandError> {
        let read = response.into_body().collect();
        let collected = match self.timeout {
            Some(limit) => tokio::time::timeout(limit, read).await.map_err(|_| {
                CommandError::Verbatim(
                    "Unable to connect to the server: net/http: request canceled \
                                                     (Client.Timeout or context cancellation while reading body)"
                        .into(),
                )
            })?,
            None => read.await,
        };
        let bytes = collected.map_err(|e| failure::of_transport(&e, self.host()))?.to_bytes().to_vec();
        if self.verbosity >= 8 {
            self.log(&format!("\"Response Body\" body={:?}", String::from_utf8_lossy(&bytes)));
        }
        Ok(bytes)
    }

    /// Sends a request and answers the body.
    pub async fn bytes(&self, call: &Call) -> Result<Vec<u8>, CommandError> {
        self.body(self.send(call).await?).await
    }

    /// Sends a request and decodes the answer.
    pub async fn json(&self, call: &Call) -> Result<Value, CommandError> {
        let bytes = self.bytes(call).await?;
        serde_json::from_slice(&bytes).map_err(|e| CommandError::plain(format!("couldn't decode the answer: {e}")))
    }

    /// GETs a path.
    pub async fn get(&self, path: &str) -> Result<Value, CommandError> {
        self.json(&Call::get(path)).await
    }

    /// Begins a watch.
    pub async fn watch(&self, call: &Call) -> Result<Watch, CommandError> {
        Ok(Watch::new(self.send(call).await?.into_body(), self.timeout))
    }

    fn log(&self, text: &str) {
        // Logs that cannot be written have no one to read them.
        let _lost = self.err.clone().log('I', "round_trippers.go:632", text).is_err();
    }

    fn note_warnings(&self, response: &Response<Body>) -> Result<(), CommandError> {
        for header in response.headers().get_all(http::header::WARNING) {
            let Some(text) = header.to_str().ok().and_then(warning) else { continue };
            self.warned.fetch_add(1, Ordering::Relaxed);
            self.warn_once(&text)?;
        }
        Ok(())
    }

    /// Prints a warning unless it was printed before.
    pub fn warn_once(&self, text: &str) -> Result<(), CommandError> {
        let mut seen = self.warnings.lock();
        if seen.iter().any(|t| t == text) {
            return Ok(());
        }
        seen.push(text.to_owned());
        drop(seen);
        self.warn(text)
    }

    /// Prints a warning.
    pub fn warn(&self, text: &str) -> Result<(), CommandError> {
        let mut err = self.err.clone();
        let coloured = err.is_terminal()
            && runtime::env::var("NO_COLOR").is_none()
            && runtime::env::var("TERM").is_none_or(|t| t != "dumb");
        match coloured {
            true => writeln!(err, "\u{1b}[33;1mWarning:\u{1b}[0m {text}")?,
            false => writeln!(err, "Warning: {text}")?,
        }
        Ok(())
    }

    /// How many warnings the server sent.
    pub fn warned(&self) -> usize {
        self.warned.load(Ordering::Relaxed)
    }

    /// What the server serves, as it was remembered or asked once.
    pub async fn served(&self) -> Result<Arc<Served>, CommandError> {
        self.served_with(|_| true).await
    }

    /// The same; the server is asked if what was remembered is not as wanted.
    pub async fn served_with(&self, wanted: impl Fn(&Served) -> bool) -> Result<Arc<Served>, CommandError> {
        if let Some(served) = self.served.get() {
            return Ok(Arc::clone(served));
        }
        let read = async || {
            let memory = self.memory.clone()?;
            tokio::task::spawn_blocking(move || memory.read().map(Arc::new)).await.ok().flatten()
        };
        match self.remembered.get_or_init(read).await {
            Some(served) if wanted(served) => Ok(Arc::clone(served)),
            _ => self.served_now().await,
        }
    }

    /// What the server says that it serves; asked once.
    pub async fn served_now(&self) -> Result<Arc<Served>, CommandError> {
        self.served.get_or_try_init(async || self.discover().await.map(Arc::new)).await.cloned()
    }

    async fn discover(&self) -> Result<Served, CommandError> {
        let mut served = Served::default();
        let ask = |path: &str| Call::get(path).accept(AGGREGATED).within(DISCOVERY_TIMEOUT);
        let (core_call, groups_call) = (ask("/api"), ask("/apis"));
        let (core, groups) = futures::try_join!(self.json(&core_call), self.json(&groups_call))?;
        let is_aggregated = |d: &Value| d["kind"] == "APIGroupDiscoveryList";
        if is_aggregated(&core) && is_aggregated(&groups) {
            served.add(&core);
            served.add(&groups);
            let lists = [memory::lists(&core), memory::lists(&groups)].concat();
            self.remember(&served, lists).await;
            return Ok(served);
        }
        self.discover_by_group(&core, &groups).await
    }

    /// For servers that do not aggregate: one request per group version.
    async fn discover_by_group(&self, core: &Value, groups: &Value) -> Result<Served, CommandError> {
        let mut served = Served::default();
        let mut wanted: Vec<(String, Vec<String>)> = Vec::new();
        let texts = |list: &Value, key: &str| -> Vec<String> {
            let items = list.as_array().into_iter().flatten();
            items.filter_map(|v| if key.is_empty() { v.as_str() } else { v[key].as_str() }).map(str::to_owned).collect()
        };
        wanted.push((String::new(), texts(&core["versions"], "")));
        for group in groups["groups"].as_array().into_iter().flatten() {
            let mut versions = texts(&group["versions"], "version");
            let preferred = group["preferredVersion"]["version"].as_str().unwrap_or("").to_owned();
            versions.sort_by_key(|v| *v != preferred);
            wanted.push((group["name"].as_str().unwrap_or("").to_owned(), versions));
        }
        let mut lists = Vec::new();
        for (name, versions) in wanted {
            for version in &versions {
                let path = if name.is_empty() { format!("/api/{version}") } else { format!("/apis/{name}/{version}") };
                match self.json(&Call::get(&path).within(DISCOVERY_TIMEOUT)).await {
                    Ok(document) => {
                        served.add_list(&name, version, &document);
                        lists.push((name.clone(), version.clone(), document));
                    }
                    Err(_) => served.failed.push(path),
                }
            }
            served.groups.push(crate::discovery::Group { name, versions });
        }
        self.remember(&served, lists).await;
        Ok(served)
    }

    /// Writes down what is served, for the next command.
    async fn remember(&self, served: &Served, lists: Vec<(String, String, Value)>) {
        let (Some(memory), groups) = (self.memory.clone(), served.groups.clone()) else { return };
        // The next command asks again if this one could not write.
        let _lost = tokio::task::spawn_blocking(move || memory.write(&groups, &lists)).await.is_err();
    }
}

/// A client of a configuration.
pub fn client(config: kube::Config) -> Result<Client, CommandError> {
    // The first to come decides; all come with the same provider.
    let _second = rustls::crypto::ring::default_provider().install_default().is_err();
    Client::try_from(config).map_err(|e| CommandError::plain(util::chain(&e)))
}

/// How the program calls itself.
pub fn user_agent(program: &str) -> String {
    let name = program.rsplit('/').next().filter(|n| !n.is_empty()).unwrap_or("kubectl");
    runtime::version::user_agent(name)
}

/// Headers of every request.
fn headers(program: &str, command: &str) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::new();
    let mut add = |key: HeaderName, value: &str| headers.extend(HeaderValue::from_str(value).map(|v| (key, v)));
    add(http::header::USER_AGENT, &user_agent(program));
    add(HeaderName::from_static("kubectl-command"), command);
    add(HeaderName::from_static("kubectl-session"), &uuid::Uuid::new_v4().to_string());
    headers
}

fn timeout(text: &str) -> Result<Option<Duration>, CommandError> {
    let seconds = text.parse::<u64>().ok().map(Duration::from_secs);
    let parsed = seconds.or_else(|| duration::parse(text).ok().and_then(|d| Duration::try_from(d).ok()));
    let parsed = parsed.ok_or_else(|| {
        CommandError::plain(
            "Invalid timeout value. Timeout must be a single integer in seconds, or an integer followed by a \
             corresponding time unit (e.g. 1s | 2m | 3h)",
        )
    })?;
    Ok((!parsed.is_zero()).then_some(parsed))
}

/// The text of a warning header with code 299.
fn warning(header: &str) -> Option<String> {
    let rest = header.strip_prefix("299 ")?;
    let quoted = rest.split_once(' ')?.1.trim().strip_prefix('"')?;
    let (mut text, mut characters) = (String::new(), quoted.chars());
    while let Some(c) = characters.next() {
        match c {
            '"' => return Some(text),
            '\\' => text.extend(characters.next()),
            other => text.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_unquoted() {
        assert_eq!(warning(r#"299 - "a \"b\" c""#).as_deref(), Some("a \"b\" c"));
        assert_eq!(warning("199 - \"x\""), None);
    }

    #[test]
    fn timeouts_are_seconds_or_durations() {
        assert_eq!(timeout("0").expect("valid"), None);
        assert_eq!(timeout("3").expect("valid"), Some(Duration::from_secs(3)));
        assert_eq!(timeout("2m").expect("valid"), Some(Duration::from_secs(120)));
        assert!(timeout("x").is_err());
    }
}
