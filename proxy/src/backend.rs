//! What every mode does: bring the kernel to the model, look whether it still is there, and leave no trace.

use std::{process::Stdio, time::Duration};

use async_trait::async_trait;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::model::{Changed, Model};

/// Longest time one program may take.
const DEADLINE: Duration = Duration::from_secs(120);

/// A rule set that cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The program does not start, or cannot be talked to.
    #[error("{program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// The program failed.
    #[error("{program} failed: {stderr}")]
    Failed {
        /// The program.
        program: String,
        /// What it said.
        stderr: String,
    },
    /// The program did not end in time.
    #[error("{0} did not end in time")]
    Deadline(String),
    /// The kernel refused a request.
    #[error("{what}")]
    Netlink {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        #[source]
        source: crate::netlink::NetlinkError,
    },
    /// The machine cannot do this mode.
    #[error("{0}")]
    Unsupported(String),
    /// A task ended early.
    #[error("a task was cancelled")]
    Cancelled,
}

/// What one synchronization is about.
#[derive(Debug)]
pub struct Work<'a> {
    /// All that is wanted.
    pub model: &'a Model,
    /// What is not as it was at the last successful synchronization. All Services at the first.
    pub changed: &'a [Changed],
    /// Whether nothing that is remembered of the kernel's state is to be relied on.
    pub full: bool,
}

/// What a synchronization did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Applied {
    /// Time that programs and the kernel took.
    pub outside: Duration,
}

/// Where rules of one family go.
#[async_trait]
pub trait Backend: Send {
    /// Brings the kernel to the model.
    async fn sync(&mut self, work: &Work<'_>) -> Result<Applied, BackendError>;

    /// Whether the rules seem to be there still. Asked every sync period.
    async fn intact(&mut self) -> bool {
        true
    }

    /// How often everything is written again unasked.
    fn full_period(&self) -> Duration;

    /// Whether something remains to be done later, such as the deletion of what was in use a moment ago.
    fn unfinished(&self) -> Option<Duration> {
        None
    }
}

/// Runs a program with `input`, and gives what it printed.
pub(crate) async fn run(program: &str, arguments: &[&str], input: &[u8]) -> Result<String, BackendError> {
    run_with(program, arguments, std::iter::once(input.to_vec())).await
}

/// [`run`] with an input that is made while it is written: it may be large.
pub(crate) async fn run_with(
    program: &str,
    arguments: &[&str],
    input: impl Iterator<Item = Vec<u8>> + Send,
) -> Result<String, BackendError> {
    let start = |source| BackendError::Start { program: program.to_owned(), source };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let stdin = child.stdin.take();
    let write = async move {
        if let Some(mut pipe) = stdin {
            for piece in input {
                pipe.write_all(&piece).await?;
            }
            pipe.shutdown().await?;
        }
        Ok(())
    };
    let both = async { tokio::join!(write, child.wait_with_output()) };
    let (written, output) =
        tokio::time::timeout(DEADLINE, both).await.map_err(|_| BackendError::Deadline(program.to_owned()))?;
    let output = output.map_err(start)?;
    if output.status.success() {
        written.map_err(start)?;
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    // A program that fails closes its input early; what it says matters more than that.
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(BackendError::Failed { program: program.to_owned(), stderr })
}

/// Writes a kernel setting below `/proc/sys` unless it has the value already.
pub(crate) fn sysctl(name: &str, value: u32) -> std::io::Result<()> {
    let path = std::path::Path::new("/proc/sys").join(name);
    let present = std::fs::read_to_string(&path)?;
    if present.trim() == value.to_string() { Ok(()) } else { std::fs::write(path, value.to_string()) }
}
