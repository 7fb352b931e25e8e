//! Programs that plugins are.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, Stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::Receiver;
use tokio::process::Command;
use tokio::time::{Instant, timeout_at};

const CHUNK: usize = 16 << 10;

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

/// Runs a program and answers what it says, errors included, as it comes; it is killed when its time is over or nobody
/// listens any more. Its limit does not count.
pub fn stream(program: Program<'_>) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>> {
    let (reader, writer) = io::pipe()?;
    let child = Command::new(program.path)
        .args(program.args)
        .envs(program.env)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .kill_on_drop(true)
        .spawn()?;
    let reader = Receiver::from_owned_fd(reader.into())?;
    let end = Instant::now() + program.deadline;
    Ok(stream::unfold((child, reader), move |(child, mut reader)| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        match timeout_at(end, reader.read_buf(&mut chunk)).await {
            Ok(Ok(0)) => None,
            Ok(Ok(_)) => Some((Ok(chunk.freeze()), (child, reader))),
            Ok(Err(error)) => Some((Err(error), (child, reader))),
            Err(_) => Some((Err(io::Error::from(io::ErrorKind::TimedOut)), (child, reader))),
        }
    }))
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn output_and_errors_are_streamed() {
        let (args, env) = (["-c".to_owned(), "echo out; echo error >&2".to_owned()], BTreeMap::new());
        let deadline = Duration::from_secs(60);
        let program = Program { path: Path::new("sh"), args: &args, env: &env, deadline, limit: 0 };
        let output: Vec<Bytes> = stream(program).unwrap().try_collect().await.unwrap();
        assert_eq!(output.concat(), b"out\nerror\n");
    }
}
