//! What a command reads and writes.
//!
//! Output is buffered unless it goes to a terminal, and standard error never overtakes standard output. A reader that
//! goes away ends the command quietly: the write fails with [`std::io::ErrorKind::BrokenPipe`], which becomes
//! [`CommandError::Exit`](crate::error::CommandError::Exit).

use std::{
    io::{self, IsTerminal, Read, Write},
    sync::Arc,
};

use parking_lot::Mutex;

/// Bytes that are held back when output does not go to a terminal.
const BUFFER: usize = 16 * 1024;

struct Sink {
    target: Box<dyn Write + Send>,
    buffer: Vec<u8>,
    limit: usize,
}

impl Sink {
    fn flush(&mut self) -> io::Result<()> {
        let held = std::mem::take(&mut self.buffer);
        self.target.write_all(&held)?;
        self.target.flush()
    }
}

/// One output of a command. Clones write to the same place.
#[derive(Clone)]
pub struct Output {
    sink: Arc<Mutex<Sink>>,
    /// What has to be flushed before anything is written here.
    before: Option<Arc<Mutex<Sink>>>,
    terminal: bool,
}

impl Output {
    /// An output to `target`.
    pub fn new(target: impl Write + Send + 'static, terminal: bool) -> Self {
        let limit = if terminal { 0 } else { BUFFER };
        let sink = Sink { target: Box::new(target), buffer: Vec::new(), limit };
        Self { sink: Arc::new(Mutex::new(sink)), before: None, terminal }
    }

    /// The same without a buffer, and never ahead of `other`.
    #[must_use]
    pub fn after(mut self, other: &Self) -> Self {
        self.sink.lock().limit = 0;
        self.before = Some(Arc::clone(&other.sink));
        self
    }

    /// Whether a person looks on.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes a line of log: a letter for its severity, time, process, and where it comes from.
    pub fn log(&mut self, severity: char, place: &str, text: &str) -> io::Result<()> {
        let now = time::OffsetDateTime::now_utc();
        let (hour, minute, second, micro) = (now.hour(), now.minute(), now.second(), now.microsecond());
        writeln!(
            self,
            "{severity}{:02}{:02} {hour:02}:{minute:02}:{second:02}.{micro:06} {:7} {place}] {text}",
            u8::from(now.month()),
            now.day(),
            std::process::id()
        )
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(before) = &self.before {
            before.lock().flush()?;
        }
        let mut sink = self.sink.lock();
        sink.buffer.extend_from_slice(bytes);
        if sink.buffer.len() > sink.limit {
            sink.flush()?;
        }
        Ok(bytes.len())
    }

    // The parts of one formatted text go out together.
    fn write_fmt(&mut self, text: std::fmt::Arguments<'_>) -> io::Result<()> {
        self.write_all(text.to_string().as_bytes())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.lock().flush()
    }
}

/// What a command reads. Clones read from the same place.
#[derive(Clone)]
pub struct Input {
    source: Arc<Mutex<Box<dyn Read + Send>>>,
    terminal: bool,
}

impl Input {
    /// An input from `source`.
    pub fn new(source: impl Read + Send + 'static, terminal: bool) -> Self {
        Self { source: Arc::new(Mutex::new(Box::new(source))), terminal }
    }

    /// Whether a person types.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// One line without its end; `None` at the end of the input.
    pub fn line(&self) -> io::Result<Option<String>> {
        let mut source = self.source.lock();
        let mut line = Vec::new();
        let mut byte = [0_u8];
        loop {
            if source.read(&mut byte)? == 0 {
                break;
            }
            if byte[0] == b'\n' {
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            line.push(byte[0]);
        }
        Ok((!line.is_empty()).then(|| String::from_utf8_lossy(&line).into_owned()))
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.source.lock().read(buffer)
    }
}

/// The three streams of a command.
#[derive(Clone)]
pub struct Streams {
    /// Standard input.
    pub stdin: Input,
    /// Standard output.
    pub out: Output,
    /// Standard error.
    pub err: Output,
}

impl Streams {
    /// Those of the process.
    pub fn of_process() -> Self {
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let terminals = (stdin.is_terminal(), stdout.is_terminal(), stderr.is_terminal());
        let out = Output::new(stdout, terminals.1);
        let err = Output::new(stderr, terminals.2).after(&out);
        Self { stdin: Input::new(stdin, terminals.0), out, err }
    }

    /// Streams in memory: `input` to read, and where the two outputs go.
    pub fn in_memory(input: &str) -> (Self, Captured, Captured) {
        let (stdout, stderr) = (Captured::default(), Captured::default());
        let out = Output::new(stdout.clone(), false);
        let err = Output::new(stderr.clone(), false).after(&out);
        let stdin = Input::new(io::Cursor::new(input.to_owned().into_bytes()), false);
        (Self { stdin, out, err }, stdout, stderr)
    }
}

/// Output kept in memory.
#[derive(Clone, Default)]
pub struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// What was written and flushed.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_error_never_overtakes() {
        let both = Captured::default();
        let mut out = Output::new(both.clone(), false);
        let mut err = Output::new(both.clone(), false).after(&out);
        out.write_all(b"one\n").expect("written");
        err.write_all(b"two\n").expect("written");
        out.write_all(b"three\n").expect("written");
        assert_eq!(both.text(), "one\ntwo\n");
        out.flush().expect("flushed");
        assert_eq!(both.text(), "one\ntwo\nthree\n");
    }

    #[test]
    fn lines_are_read_one_by_one() {
        let input = Input::new(io::Cursor::new(b"a\nb".to_vec()), false);
        assert_eq!(input.line().expect("line").as_deref(), Some("a"));
        assert_eq!(input.line().expect("line").as_deref(), Some("b"));
        assert_eq!(input.line().expect("end"), None);
    }
}
