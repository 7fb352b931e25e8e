//! The text of a description: lines with tab stops, aligned column by column.

use std::fmt;

use jiff::{Timestamp, tz::TimeZone};

/// What a description needs to know of the moment and the place.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    pub(crate) now: Timestamp,
    pub(crate) zone: TimeZone,
}

impl Clock {
    /// Here and now.
    pub(crate) fn now() -> Self {
        Self { now: Timestamp::now(), zone: TimeZone::system() }
    }

    /// A time as `Fri, 02 Jan 2026 03:04:05 +0000`; the zero time for one that is absent.
    pub(crate) fn time(&self, text: &str) -> String {
        match text.parse::<Timestamp>() {
            Ok(at) => at.to_zoned(self.zone.clone()).strftime("%a, %d %b %Y %H:%M:%S %z").to_string(),
            Err(_) => "Mon, 01 Jan 0001 00:00:00 +0000".into(),
        }
    }

    /// How long ago a time was.
    pub(crate) fn since(&self, text: &str) -> String {
        match text.parse::<Timestamp>() {
            Ok(at) => machinery::duration::human(self.now.as_second() - at.as_second()),
            Err(_) => "<unknown>".into(),
        }
    }
}

/// A description being written.
pub(crate) struct Page {
    text: String,
    pub(crate) clock: Clock,
}

impl Page {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { text: String::new(), clock }
    }

    /// Adds a line, two blanks deeper for each level.
    pub(crate) fn line(&mut self, level: usize, text: fmt::Arguments<'_>) {
        self.raw(&"  ".repeat(level), text);
    }

    /// Adds a line behind a given indentation.
    pub(crate) fn raw(&mut self, indent: &str, text: fmt::Arguments<'_>) {
        self.text.push_str(indent);
        let from = self.text.len();
        self.text.push_str(&text.to_string());
        if self.text[from..].contains(['\u{1b}', '\r']) {
            let clean = self.text[from..].replace('\u{1b}', "^[").replace('\r', "\\r");
            self.text.truncate(from);
            self.text.push_str(&clean);
        }
        self.text.push('\n');
    }

    /// The text with its tabs.
    pub(crate) fn unaligned(self) -> String {
        self.text
    }

    /// The aligned text.
    pub(crate) fn finish(self) -> String {
        align(&self.text)
    }
}

/// Adds a line: page, level, format and arguments.
macro_rules! put {
    ($page:expr, $level:expr, $($text:tt)*) => { $page.line($level, format_args!($($text)*)) };
}
pub(crate) use put;

/// Blanks between a cell and the next.
const PADDING: usize = 2;

/// Replaces tabs: a cell ends at a tab, and a column is as wide as its widest cell among neighbouring lines which have
/// that column.
fn align(text: &str) -> String {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|line| vec![0; line.len() - 1]).collect();
    let columns = lines.iter().map(|line| line.len() - 1).max().unwrap_or(0);
    for column in 0..columns {
        let mut start = 0;
        while start < lines.len() {
            let run = lines[start..].iter().take_while(|line| line.len() > column + 1).count();
            if run == 0 {
                start += 1;
                continue;
            }
            let block = start..start + run;
            let width = lines[block.clone()].iter().map(|l| l[column].chars().count() + PADDING).max().unwrap_or(0);
            for line in &mut widths[block] {
                line[column] = width;
            }
            start += run;
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (line, widths) in lines.iter().zip(&widths) {
        for (at, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if let Some(width) = widths.get(at) {
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_lines_share_a_column() {
        let text = "Name:\tx\nLong name:\ty\nIPs:\n  IP:\t1\tz\n  Port:\t22\tzz\n";
        let expected = "Name:       x\nLong name:  y\nIPs:\n  IP:    1   z\n  Port:  22  zz\n";
        assert_eq!(align(text), expected);
    }

    #[test]
    fn times_are_local_and_absent_ones_zero() {
        let clock = Clock { now: Timestamp::UNIX_EPOCH, zone: TimeZone::fixed(jiff::tz::offset(1)) };
        assert_eq!(clock.time("2026-01-02T03:04:05Z"), "Fri, 02 Jan 2026 04:04:05 +0100");
        assert_eq!(clock.time(""), "Mon, 01 Jan 0001 00:00:00 +0000");
        assert_eq!(clock.since(""), "<unknown>");
    }

    #[test]
    fn control_characters_are_escaped() {
        let mut page = Page::new(Clock { now: Timestamp::UNIX_EPOCH, zone: TimeZone::UTC });
        put!(page, 1, "a:\t{}", "\u{1b}[1m\rx");
        assert_eq!(page.finish(), "  a:  ^[[1m\\rx\n");
    }
}
