//! Programs that change the network of the host, and a twin that only records.

use std::{path::Path, process::Stdio, time::Duration};

use async_trait::async_trait;
use tokio::{io::AsyncWriteExt, process::Command as Process};

/// Longest time one program may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// A program with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) program: &'static str,
    pub(crate) arguments: Vec<String>,
}

impl Command {
    /// From arguments separated by blanks; none of them contains one.
    pub(crate) fn new(program: &'static str, arguments: &str) -> Self {
        Self { program, arguments: arguments.split_whitespace().map(str::to_owned).collect() }
    }
}

impl std::fmt::Display for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.program, self.arguments.join(" "))
    }
}

/// Why the host did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    #[error("{program}: {source}")]
    Start { program: &'static str, source: std::io::Error },
    #[error("`{command}` failed: {stderr}")]
    Failed { command: String, stderr: String },
    #[error("`{0}` did not end in time")]
    Deadline(String),
    #[error("{path}: {source}")]
    File { path: String, source: std::io::Error },
    #[error("`{command}` answered something else than expected: {source}")]
    Answer { command: String, source: serde_json::Error },
}

/// The network of the host.
#[async_trait]
pub(crate) trait Host: Send + Sync {
    /// Runs a program and returns what it prints.
    async fn run(&self, command: &Command, input: &str) -> Result<String, HostError>;
    /// Sets a kernel setting below `/proc/sys`; `false` if there is no such setting.
    fn set(&self, setting: &str, value: &str) -> Result<bool, HostError>;
}

/// This machine.
pub(crate) struct ThisHost;

#[async_trait]
impl Host for ThisHost {
    async fn run(&self, command: &Command, input: &str) -> Result<String, HostError> {
        let start = |source| HostError::Start { program: command.program, source };
        let mut child = Process::new(command.program)
            .args(&command.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(start)?;
        let mut stdin = child.stdin.take();
        let work = async {
            if let Some(pipe) = stdin.as_mut() {
                pipe.write_all(input.as_bytes()).await.map_err(start)?;
            }
            drop(stdin);
            child.wait_with_output().await.map_err(start)
        };
        let output = tokio::time::timeout(DEADLINE, work).await;
        let output = output.map_err(|_| HostError::Deadline(command.to_string()))??;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(HostError::Failed { command: command.to_string(), stderr })
    }

    fn set(&self, setting: &str, value: &str) -> Result<bool, HostError> {
        let path = Path::new("/proc/sys").join(setting);
        let failed = |source| HostError::File { path: path.display().to_string(), source };
        match std::fs::read_to_string(&path) {
            Ok(now) if now.trim() == value => Ok(true),
            Ok(_) => std::fs::write(&path, value).map(|()| true).map_err(failed),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed(error)),
        }
    }
}

/// Records what it is told and answers from a table.
#[cfg(test)]
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) answers: std::collections::HashMap<String, String>,
    pub(crate) ran: parking_lot::Mutex<Vec<String>>,
}

#[cfg(test)]
#[async_trait]
impl Host for Recorder {
    async fn run(&self, command: &Command, input: &str) -> Result<String, HostError> {
        let text = command.to_string();
        if let Some(answer) = self.answers.get(&text) {
            return Ok(answer.clone());
        }
        self.ran.lock().push(if input.is_empty() { text.clone() } else { format!("{text}\n{input}") });
        // A rule that is looked for is not there.
        if text.contains(" -C ") {
            return Err(HostError::Failed { command: text, stderr: String::new() });
        }
        Ok(String::new())
    }

    fn set(&self, setting: &str, value: &str) -> Result<bool, HostError> {
        self.ran.lock().push(format!("{setting}={value}"));
        Ok(true)
    }
}
