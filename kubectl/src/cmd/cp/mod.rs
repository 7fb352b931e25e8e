//! `kubectl cp`.

mod archive;
mod path;

use std::path::{Path, PathBuf};

use machinery::meta;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use path::Spec;

use crate::{
    cluster::Cluster,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    pods,
    remote::{Session, ended},
    streams::Output,
};

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;
/// Chunks that wait to be sent or unpacked.
const WAITING: usize = 16;

/// The command.
pub(crate) fn command() -> Command {
    Command::new("cp", "Copy files and directories to and from containers")
        .usage("<file-spec-src> <file-spec-dest>")
        .examples(&[
            "kubectl cp /tmp/foo_dir some-pod:/tmp/bar_dir",
            "kubectl cp some-namespace/some-pod:/tmp/foo /tmp/bar",
        ])
        .flags([
            Flag::text("container", "", "Container.").short('c'),
            Flag::switch("no-preserve", "Owners and modes are not kept in the container."),
            Flag::int("retries", "0", "How often a copy from a container is continued after a failure; -1 for ever."),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let [source, destination] = context.args.as_slice() else {
        return Err(CommandError::plain("source and destination are required"));
    };
    let (source, destination) = (Spec::parse(source)?, Spec::parse(destination)?);
    if !source.pod.is_empty() && !destination.pod.is_empty() {
        return Err(CommandError::plain("one of src or dest must be a local file specification"));
    }
    if source.path.is_empty() || destination.path.is_empty() {
        return Err(CommandError::plain("filepath can not be empty"));
    }
    match (source.pod.is_empty(), destination.pod.is_empty()) {
        (false, _) => from_pod(context, &source, &destination.path).await,
        (_, false) => to_pod(context, &source.path, &destination).await,
        _ => Err(CommandError::plain("one of src or dest must be a remote file specification")),
    }
}

/// A container that files are copied to or from.
struct Container<'a> {
    context: &'a Context,
    cluster: std::sync::Arc<Cluster>,
    pod: Value,
    name: String,
}

impl<'a> Container<'a> {
    async fn find(context: &'a Context, spec: &Spec) -> Result<Self, CommandError> {
        let cluster = context.cluster().await?;
        let namespace = if spec.namespace.is_empty() { cluster.namespace.clone() } else { spec.namespace.clone() };
        let pod = cluster.get(&format!("/api/v1/namespaces/{namespace}/pods/{}", spec.pod)).await?;
        super::exec::check_phase(&pod, "exec into")?;
        let name = match context.flags.text("container") {
            "" => pods::default_container_told(&mut context.streams.out.clone(), &pod, false)?,
            given => pods::valid_container(&pod, given)?,
        };
        Ok(Self { context, cluster, pod, name })
    }

    fn session(&self, command: &[&str], stdin: bool) -> Session {
        Session {
            detach: Vec::new(),
            namespace: meta::namespace(&self.pod).to_owned(),
            pod: meta::name(&self.pod).to_owned(),
            container: self.name.clone(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            stdin,
            tty: false,
            stderr: true,
        }
    }

    /// Whether a directory is there.
    async fn has_directory(&self, path: &str) -> Result<bool, CommandError> {
        let mut process = self.session(&["test", "-d", path], false).start(&self.cluster).await?;
        let status = process.take_status();
        drain(process.stdout(), None).await?;
        let status = match status {
            Some(status) => status.await,
            None => None,
        };
        Ok(ended(status).is_ok())
    }
}

/// Reads to the end, into an output if there is one.
async fn drain(reader: Option<impl AsyncReadExt + Unpin>, mut output: Option<Output>) -> Result<(), CommandError> {
    let Some(mut reader) = reader else { return Ok(()) };
    let mut buffer = vec![0; CHUNK];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(count) => {
                if let Some(output) = &mut output {
                    std::io::Write::write_all(output, &buffer[..count])?;
                }
            }
        }
    }
}

async fn to_pod(context: &Context, source: &str, destination: &Spec) -> Result<(), CommandError> {
    let local = PathBuf::from(source);
    if std::fs::symlink_metadata(&local).is_err() {
        return Err(CommandError::plain(format!("{source} doesn't exist in local filesystem")));
    }
    let container = Container::find(context, destination).await?;
    let mut target = path::clean(&destination.path);
    if container.has_directory(&target).await? {
        target = path::join(&target, path::base(&path::clean(source)));
    }
    let mut command = vec!["tar", "-xmf", "-"];
    if context.flags.bool("no-preserve") {
        command = vec!["tar", "--no-same-permissions", "--no-same-owner", "-xmf", "-"];
    }
    let directory = path::directory(&target);
    if !directory.is_empty() {
        command.extend(["-C", directory]);
    }
    let mut process = container.session(&command, true).start(&container.cluster).await?;
    let status = process.take_status();
    let Some(mut stdin) = process.stdin() else { return Ok(()) };
    let (sender, mut chunks) = mpsc::channel(WAITING);
    let name = path::base(&target).to_owned();
    let packing = tokio::task::spawn_blocking(move || archive::pack(&local, &name, sender));
    let feed = async {
        while let Some(chunk) = chunks.recv().await {
            if stdin.write_all(&chunk).await.is_err() {
                break;
            }
        }
        chunks.close();
        // The other side may have gone already.
        let _gone = stdin.shutdown().await.is_err();
        Ok::<(), CommandError>(())
    };
    let out = drain(process.stdout(), Some(context.streams.out.clone()));
    let err = drain(process.stderr(), Some(context.streams.err.clone()));
    futures::try_join!(feed, out, err)?;
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    ended(status)?;
    packing
        .await
        .map_err(|error| CommandError::plain(error.to_string()))?
        .map_err(|e| CommandError::plain(e.to_string()))
}

async fn from_pod(context: &Context, source: &Spec, destination: &str) -> Result<(), CommandError> {
    let container = Container::find(context, source).await?;
    let remote = path::clean(&source.path);
    let target = PathBuf::from(destination);
    let advice =
        format!("kubectl exec -n \"{}\" \"{}\" -- tar cf - \"{remote}\" | tar xf -", source.namespace, source.pod);
    let prefix = path::stripped(&remote);
    let (sender, receiver) = mpsc::channel(WAITING);
    let err = context.streams.err.clone();
    let unpacking = tokio::task::spawn_blocking(move || archive::unpack(receiver, &prefix, &target, &advice, err));
    let fetched = fetch(&container, &remote, sender).await;
    let unpacked = unpacking.await.map_err(|error| CommandError::plain(error.to_string()))?;
    fetched?;
    unpacked.map_err(|error| CommandError::plain(error.to_string()))
}

/// Reads the archive of a path, continuing after failures as often as asked.
async fn fetch(container: &Container<'_>, remote: &str, sender: mpsc::Sender<Vec<u8>>) -> Result<(), CommandError> {
    let retries = container.context.flags.int("retries");
    let (mut received, mut attempt) = (0_u64, 0);
    loop {
        let from = format!("tar cf - {} | tail -c+{received}", quoted(remote));
        let command = if received == 0 { vec!["tar", "cf", "-", remote] } else { vec!["sh", "-c", from.as_str()] };
        let session = container.session(&command, false);
        match attempt_fetch(container, &session, &sender, &mut received).await {
            Err(error) if retries < 0 || attempt < retries => {
                attempt += 1;
                // `tail` counts bytes from one.
                received = received.max(1);
                let text = format!("Resuming copy at {received} bytes, retry {attempt}/{retries} - {error}");
                std::io::Write::write_all(&mut container.context.streams.err.clone(), format!("{text}\n").as_bytes())?;
            }
            outcome => return outcome,
        }
    }
}

fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', "'\\''"))
}

async fn attempt_fetch(
    container: &Container<'_>,
    session: &Session,
    sender: &mpsc::Sender<Vec<u8>>,
    received: &mut u64,
) -> Result<(), CommandError> {
    let mut process = session.start(&container.cluster).await?;
    let status = process.take_status();
    let err = drain(process.stderr(), Some(container.context.streams.err.clone()));
    let stdout = process.stdout();
    let out = async {
        let Some(mut stdout) = stdout else { return Ok(()) };
        let mut buffer = vec![0; CHUNK];
        loop {
            match stdout.read(&mut buffer).await {
                Ok(0) | Err(_) => return Ok::<(), CommandError>(()),
                Ok(count) => {
                    *received += count as u64;
                    if sender.send(buffer[..count].to_vec()).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    };
    futures::try_join!(out, err)?;
    let status = match status {
        Some(status) => status.await,
        None => None,
    };
    ended(status)
}

/// Whether a path stays below another.
fn is_below(path: &Path, root: &Path) -> bool {
    path.starts_with(root) && !path.components().any(|c| matches!(c, std::path::Component::ParentDir))
}
