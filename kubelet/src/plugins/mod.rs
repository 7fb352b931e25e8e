//! Plugins that introduce themselves by a socket below `plugins_registry`.
//!
//! Every socket has a task of its own, which registers the plugin behind it, tries again while that fails, and
//! deregisters it when the socket is gone. A socket that was made anew is another plugin: its task begins when the
//! one before it has ended.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use proto::registration::registration_client::RegistrationClient;
use proto::registration::{InfoRequest, PluginInfo, RegistrationStatus};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::cri::{CriError, channel};
use crate::platform::DirWatch;
use crate::rpc;

/// Time for one call of the registration protocol.
const DEADLINE: Duration = Duration::from_secs(10);
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(122));
/// Sockets are looked for this often even if nothing was told of them.
const RESCAN: Duration = Duration::from_secs(10);
const MAX_DEPTH: usize = 4;

/// A plugin as it introduced itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    /// Its name among plugins of its type.
    pub name: String,
    /// Where it serves.
    pub endpoint: PathBuf,
    /// Versions it speaks.
    pub versions: Vec<String>,
}

/// What takes plugins of one type.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Takes a plugin, or says why not.
    async fn register(&self, plugin: &Plugin) -> Result<(), String>;
    /// The plugin is gone.
    async fn deregister(&self, plugin: &Plugin);
}

/// Handlers by type, `CSIPlugin` and the like.
pub type Handlers = BTreeMap<&'static str, Arc<dyn Handler>>;

/// A connection to a plugin's socket.
pub(crate) fn connect(socket: &Path) -> Result<Channel, CriError> {
    channel(&format!("unix://{}", socket.display()))
}

/// The directory and who is told of it.
pub struct Registry {
    /// `plugins_registry`
    pub dir: PathBuf,
    /// Who takes which plugins.
    pub handlers: Arc<Handlers>,
}

/// Which file a path names: a socket made anew is another one.
type Identity = (u64, u64, i64, i64);

struct Served {
    identity: Identity,
    gone: CancellationToken,
    task: JoinHandle<()>,
}

impl Registry {
    /// Runs until stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut served: HashMap<PathBuf, Served> = HashMap::new();
        let mut watches: HashMap<PathBuf, DirWatch> = HashMap::new();
        loop {
            let dir = self.dir.clone();
            let found = tokio::task::spawn_blocking(move || scan(&dir)).await.unwrap_or_default();
            watches.retain(|dir, _| found.dirs.contains(dir));
            for dir in &found.dirs {
                if !watches.contains_key(dir)
                    && let Ok(watch) = DirWatch::new(dir)
                {
                    watches.insert(dir.clone(), watch);
                }
            }
            self.compare(&mut served, found.sockets, &stop);
            let changes = watches.values_mut().map(|watch| Box::pin(watch.changed()));
            let changed = async {
                match changes.len() {
                    0 => std::future::pending().await,
                    _ => futures::future::select_all(changes).await.0,
                }
            };
            let failed = tokio::select! {
                () = stop.cancelled() => return,
                result = changed => result.is_err(),
                () = tokio::time::sleep(RESCAN) => false,
            };
            if failed {
                watches.clear();
            }
        }
    }

    fn compare(
        &self,
        served: &mut HashMap<PathBuf, Served>,
        mut sockets: HashMap<PathBuf, Identity>,
        stop: &CancellationToken,
    ) {
        served.retain(|path, one| {
            let stays = sockets.contains_key(path);
            if !stays {
                one.gone.cancel();
            }
            stays
        });
        sockets.retain(|path, identity| served.get(path).is_none_or(|one| one.identity != *identity));
        for (path, identity) in sockets {
            let before = served.remove(&path);
            if let Some(before) = &before {
                before.gone.cancel();
            }
            let gone = CancellationToken::new();
            let work = serve(path.clone(), Arc::clone(&self.handlers), gone.clone());
            let stop = stop.clone();
            let task = tokio::spawn(async move {
                if let Some(before) = before {
                    // Its end is all that matters; a panic in it was logged where it happened.
                    drop(before.task.await);
                }
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = work => {}
                }
            });
            served.insert(path, Served { identity, gone, task });
        }
    }
}

#[derive(Default)]
struct Found {
    dirs: Vec<PathBuf>,
    sockets: HashMap<PathBuf, Identity>,
}

/// Sockets and directories below a directory; names that begin with a dot are nobody's.
fn scan(root: &Path) -> Found {
    let mut found = Found::default();
    let hidden = |entry: &walkdir::DirEntry| entry.file_name().to_string_lossy().starts_with('.');
    let entries = walkdir::WalkDir::new(root).max_depth(MAX_DEPTH).follow_links(false).into_iter();
    for entry in entries.filter_entry(|entry| entry.depth() == 0 || !hidden(entry)).flatten() {
        if entry.file_type().is_dir() {
            found.dirs.push(entry.into_path());
        } else if let Ok(meta) = fs::symlink_metadata(entry.path())
            && meta.file_type().is_socket()
        {
            let identity = (meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec());
            found.sockets.insert(entry.into_path(), identity);
        }
    }
    found
}

/// Keeps one plugin registered while its socket is there.
async fn serve(socket: PathBuf, handlers: Arc<Handlers>, gone: CancellationToken) {
    let mut delay = RETRY.0;
    let registered = loop {
        let result = tokio::select! {
            () = gone.cancelled() => return,
            result = introduce(&socket, &handlers) => result,
        };
        match result {
            Ok(registered) => break registered,
            Err(error) => {
                tracing::warn!(socket = %socket.display(), error, "registering a plugin");
            }
        }
        tokio::select! {
            () = gone.cancelled() => return,
            () = tokio::time::sleep(delay) => {}
        }
        delay = (delay * 2).min(RETRY.1);
    };
    let (handler, plugin) = registered;
    tracing::info!(plugin = plugin.name, socket = %socket.display(), "registered a plugin");
    gone.cancelled().await;
    handler.deregister(&plugin).await;
    tracing::info!(plugin = plugin.name, "deregistered a plugin");
}

/// Asks who is there, registers it, and tells it how that went.
async fn introduce(socket: &Path, handlers: &Handlers) -> Result<(Arc<dyn Handler>, Plugin), String> {
    let channel = connect(socket).map_err(|error| error.to_string())?;
    let mut client = RegistrationClient::new(channel);
    let info = limited(client.get_info(InfoRequest {})).await?;
    let (kind, plugin) = describe(socket, info);
    let result = match handlers.get(kind.as_str()) {
        None => Err(format!("no handler registered for plugin type: {kind} at socket {}", socket.display())),
        Some(handler) => handler.register(&plugin).await.map(|()| Arc::clone(handler)),
    };
    let status = RegistrationStatus {
        plugin_registered: result.is_ok(),
        error: result.as_ref().err().cloned().unwrap_or_default(),
    };
    let told = limited(client.notify_registration_status(status)).await;
    match (result, told) {
        (Ok(handler), Ok(_)) => Ok((handler, plugin)),
        (Ok(handler), Err(error)) => {
            handler.deregister(&plugin).await;
            Err(format!("failed to send registration status: {error}"))
        }
        (Err(error), _) => Err(error),
    }
}

fn describe(socket: &Path, info: PluginInfo) -> (String, Plugin) {
    let endpoint = if info.endpoint.is_empty() { socket.to_owned() } else { PathBuf::from(&info.endpoint) };
    (info.r#type, Plugin { name: info.name, endpoint, versions: info.supported_versions })
}

async fn limited<T>(call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Result<T, String> {
    let answer = rpc::limited(DEADLINE, call).await;
    answer.map(tonic::Response::into_inner).map_err(|status| CriError::from(status).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_that_are_not_hidden_count() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::create_dir(at(".sub")).unwrap();
        fs::write(at("file"), "").unwrap();
        let sockets: Vec<_> = ["a.sock", ".b.sock", "sub/c.sock", ".sub/d.sock"]
            .map(|name| std::os::unix::net::UnixListener::bind(at(name)).unwrap())
            .into();
        let found = scan(dir.path());
        let mut names: Vec<_> =
            found.sockets.keys().map(|path| path.strip_prefix(dir.path()).unwrap().to_owned()).collect();
        names.sort();
        assert_eq!(names, [PathBuf::from("a.sock"), PathBuf::from("sub/c.sock")]);
        assert_eq!(found.dirs.len(), 2);
        drop(sockets);
    }

    #[test]
    fn a_plugin_without_an_endpoint_serves_where_it_registered() {
        let info = PluginInfo { name: "d".into(), ..PluginInfo::default() };
        assert_eq!(describe(Path::new("/r/d.sock"), info).1.endpoint, PathBuf::from("/r/d.sock"));
    }
}
