//! Programs that plugins are.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// A program to be run once.
#[derive(Clone, Debug)]
pub struct Program<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// Arguments.
    pub args: &'a [String],
    /// What is added to the environment.
    pub env: &'a BTreeMap<String, String>,
    /// Longest time.
    pub deadline: Duration,
    /// Most bytes it may answer.
    pub limit: u64,
}

/// Runs a program with some input and answers its output; it is killed when nobody waits any more.
pub async fn run(program: Program<'_>, input: &[u8]) -> io::Result<Vec<u8>> {
    let mut child = Command::new(program.path)
        .args(program.args)
        .envs(program.env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("the program has no pipes"));
    };
    let work = async {
        let feed = async {
            // Who does not read its input may still answer.
            let _unread = stdin.write_all(input).await.is_err();
            drop(stdin);
        };
        let mut output = Vec::new();
        let mut limited = stdout.take(program.limit + 1);
        let ((), read) = tokio::join!(feed, limited.read_to_end(&mut output));
        read?;
        if output.len() as u64 > program.limit {
            return Err(io::Error::other("the program's output is too long"));
        }
        let status = child.wait().await?;
        if status.success() { Ok(output) } else { Err(io::Error::other(format!("{status}"))) }
    };
    match tokio::time::timeout(program.deadline, work).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the program took too long")),
    }
}
