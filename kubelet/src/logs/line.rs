//! One line of a log file: `<RFC3339Nano> <stdout|stderr> <F|P>[:tags] <text>`.

use jiff::Timestamp;

/// A parsed line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// When.
    pub at: Timestamp,
    /// Whether it came from standard error.
    pub is_stderr: bool,
    /// Goes on in the next line.
    pub partial: bool,
    /// Text without the newline.
    pub text: &'a [u8],
}

/// Parses a line with or without its newline; anything else gives `None`.
pub fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let at = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let is_stderr = match parts.next()? {
        b"stdout" => false,
        b"stderr" => true,
        _ => return None,
    };
    let tags = parts.next()?;
    let text = parts.next().unwrap_or_default();
    let partial = tags.split(|byte| *byte == b':').next() == Some(b"P".as_slice());
    Some(Line { at, is_stderr, partial, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let line = parse(b"2026-01-02T03:04:05.000000006Z stdout F hello world\n").unwrap();
        assert_eq!((line.text, line.partial, line.is_stderr), (b"hello world".as_slice(), false, false));
        assert_eq!(line.at.subsec_nanosecond(), 6);
        assert!(parse(b"2026-01-02T03:04:05+01:00 stderr P:x part").unwrap().partial);
        assert_eq!(parse(b"2026-01-02T03:04:05Z stdout F ").unwrap().text, b"");
        assert!(parse(b"garbage").is_none());
        assert!(parse(b"2026-01-02T03:04:05Z other F x").is_none());
    }
}
