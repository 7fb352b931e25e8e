//! The runtime's format: `TIME STREAM FLAGS TEXT`, where the first flag says whether the line ends here (`F`) or goes on
//! (`P`).

use std::sync::Arc;

use crate::record::{Record, Source, Stream};

/// A line as the runtime wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line<'a> {
    time: &'a str,
    stream: Stream,
    ends: bool,
    text: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Line<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok().filter(|time| is_time(time))?;
    let stream = match parts.next()? {
        b"stdout" => Stream::Stdout,
        b"stderr" => Stream::Stderr,
        _ => return None,
    };
    let flags = parts.next()?;
    let ends = match flags.split(|byte| *byte == b':').next()? {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Line { time, stream, ends, text: parts.next().unwrap_or_default() })
}

/// Whether a text looks like a time of RFC 3339.
fn is_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let at = |index: usize| bytes.get(index).copied();
    (20..=35).contains(&bytes.len())
        && bytes.iter().take(4).all(u8::is_ascii_digit)
        && at(4) == Some(b'-')
        && at(7) == Some(b'-')
        && at(10) == Some(b'T')
        && at(13) == Some(b':')
        && bytes.iter().all(|byte| byte.is_ascii_digit() || b"-:+.TZ".contains(byte))
}

/// The time at the beginning of a line: what tells one log file from another.
pub(crate) fn stamp(line: &[u8]) -> Option<&str> {
    parse(line).map(|line| line.time)
}

/// A line that has begun.
#[derive(Debug, Default)]
struct Pending {
    text: Vec<u8>,
    time: String,
    /// Offset in the file of its first piece.
    start: u64,
}

/// Puts lines together from their pieces, for each stream.
#[derive(Debug)]
pub(crate) struct Assembler {
    source: Arc<Source>,
    limit: usize,
    pending: [Option<Pending>; 2],
}

/// What became of a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It was of the runtime's format.
    Sound,
    /// It was not.
    Malformed,
}

impl Assembler {
    pub(crate) fn new(source: Arc<Source>, limit: usize) -> Self {
        Self { source, limit, pending: [None, None] }
    }

    /// Takes the line of a file at `offset`, without its newline. Complete lines come out.
    pub(crate) fn take(&mut self, line: &[u8], offset: u64, out: &mut Vec<Record>) -> Taken {
        let Some(parsed) = parse(line) else {
            out.push(self.record(None, Stream::Unknown, line, false));
            return Taken::Malformed;
        };
        let slot = usize::from(parsed.stream == Stream::Stderr);
        let mut pending = self.pending[slot].take().unwrap_or_else(|| Pending {
            text: Vec::new(),
            time: parsed.time.to_owned(),
            start: offset,
        });
        pending.text.extend_from_slice(parsed.text);
        while pending.text.len() > self.limit {
            let rest = pending.text.split_off(self.limit);
            let piece = std::mem::replace(&mut pending.text, rest);
            out.push(self.record(Some(&pending.time), parsed.stream, &piece, true));
            pending.start = offset;
        }
        if parsed.ends {
            out.push(self.record(Some(&pending.time), parsed.stream, &pending.text, false));
        } else {
            self.pending[slot] = Some(pending);
        }
        Taken::Sound
    }

    /// The file has ended for good: what has begun is all there is.
    pub(crate) fn finish(&mut self, out: &mut Vec<Record>) {
        for (slot, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
            if let Some(pending) = self.pending[slot].take() {
                out.push(self.record(Some(&pending.time), stream, &pending.text, true));
            }
        }
    }

    /// Where the first line begins that has not ended.
    pub(crate) fn start(&self) -> Option<u64> {
        self.pending.iter().flatten().map(|pending| pending.start).min()
    }

    fn record(&self, time: Option<&str>, stream: Stream, text: &[u8], partial: bool) -> Record {
        Record {
            time: time.map(str::to_owned),
            stream,
            log: String::from_utf8_lossy(text).into_owned(),
            partial,
            kubernetes: Arc::clone(&self.source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2024-01-02T03:04:05.123456789Z";

    fn assembler(limit: usize) -> Assembler {
        let source = Source {
            namespace: "ns".into(),
            pod: "p".into(),
            uid: "u".into(),
            container: "c".into(),
            restart: 0,
            node: "n".into(),
        };
        Assembler::new(Arc::new(source), limit)
    }

    fn texts(records: &[Record]) -> Vec<String> {
        records.iter().map(|r| format!("{} {}{}", r.stream.as_str(), r.log, if r.partial { "…" } else { "" })).collect()
    }

    #[test]
    fn pieces_become_lines() {
        let mut assembler = assembler(100);
        let mut out = Vec::new();
        let lines = [
            "stdout P one ",
            "stderr F other",
            "stdout P two ",
            "stderr P begun",
            "stdout F  three",
            "stdout F ",
            "stdout F:x y",
        ];
        for (number, line) in lines.iter().enumerate() {
            let taken = assembler.take(format!("{TIME} {line}").as_bytes(), number as u64 * 10, &mut out);
            assert_eq!(taken, Taken::Sound, "{line}");
        }
        assert_eq!(texts(&out), ["stderr other", "stdout one two  three", "stdout ", "stdout y"]);
        assert_eq!(out[1].time.as_deref(), Some(TIME));
        assert_eq!(assembler.start(), Some(30));
        out.clear();
        assembler.finish(&mut out);
        assert_eq!((texts(&out), assembler.start()), (vec!["stderr begun…".to_owned()], None));
    }

    #[test]
    fn long_lines_come_in_pieces() {
        let mut assembler = assembler(4);
        let mut out = Vec::new();
        assembler.take(format!("{TIME} stdout P abcdef").as_bytes(), 0, &mut out);
        assembler.take(format!("{TIME} stdout F ghijk").as_bytes(), 9, &mut out);
        assert_eq!(texts(&out), ["stdout abcd…", "stdout efgh…", "stdout ijk"]);
    }

    #[test]
    fn other_lines_are_not_lost() {
        for line in
            ["", "hello", "2024 stdout F x", "2024-01-02T03:04:05Z stdin F x", "2024-01-02T03:04:05Z stdout X x"]
        {
            let mut out = Vec::new();
            assert_eq!(assembler(10).take(line.as_bytes(), 0, &mut out), Taken::Malformed, "{line}");
            assert_eq!(out.first().map(|r| (r.stream, r.time.clone())), Some((Stream::Unknown, None)), "{line}");
        }
        assert_eq!(stamp(b"2024-01-02T03:04:05Z stdout F x"), Some("2024-01-02T03:04:05Z"));
    }
}
