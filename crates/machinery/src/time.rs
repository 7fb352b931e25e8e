//! `Time` and `MicroTime` texts.

use time::{Date, Month, OffsetDateTime, Time, UtcOffset};

use crate::field::go_quote;

const SECONDS: &str = "2006-01-02T15:04:05Z07:00";
const MICROS: &str = "2006-01-02T15:04:05.000000Z07:00";

/// A text that is no time, with Go's words for why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parsing time {text} as \"{layout}\": {problem}")]
pub struct TimeError {
    text: String,
    layout: &'static str,
    problem: String,
}

/// Parses RFC 3339; a fraction is accepted.
pub fn parse(text: &str) -> Result<OffsetDateTime, TimeError> {
    Scanner { text, rest: text }.time(None).map_err(|f| f.explain(text, SECONDS))
}

/// Parses RFC 3339 with exactly six digits of fraction.
pub fn parse_micro(text: &str) -> Result<OffsetDateTime, TimeError> {
    Scanner { text, rest: text }.time(Some(6)).map_err(|f| f.explain(text, MICROS))
}

enum Failure<'a> {
    /// This rest of the text does not match that element of the layout.
    Element(&'a str, &'static str),
    Range(&'static str),
    Extra(&'a str),
}

impl Failure<'_> {
    fn explain(self, text: &str, layout: &'static str) -> TimeError {
        let (text, problem) = match self {
            Self::Element(rest, element) => {
                (go_quote(text), format!("cannot parse {} as {}", go_quote(rest), go_quote(element)))
            }
            Self::Range(what) => (go_quote(text), format!("{what} out of range")),
            Self::Extra(rest) => (go_quote(text), format!("extra text: {}", go_quote(rest))),
        };
        TimeError { text, layout, problem }
    }
}

struct Scanner<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn digits(&mut self, count: usize, element: &'static str) -> Result<u32, Failure<'a>> {
        let bad = Failure::Element(self.rest, element);
        let Some((digits, rest)) = self.rest.split_at_checked(count) else { return Err(bad) };
        if !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad);
        }
        self.rest = rest;
        Ok(digits.bytes().fold(0, |n, b| n * 10 + u32::from(b - b'0')))
    }

    fn literal(&mut self, literal: &'static str) -> Result<(), Failure<'a>> {
        self.rest = self.rest.strip_prefix(literal).ok_or(Failure::Element(self.rest, literal))?;
        Ok(())
    }

    fn time(mut self, fraction: Option<usize>) -> Result<OffsetDateTime, Failure<'a>> {
        let year = self.digits(4, "2006")?;
        self.literal("-")?;
        let month = self.digits(2, "01")?;
        self.literal("-")?;
        let day = self.digits(2, "02")?;
        self.literal("T")?;
        let hour = self.digits(2, "15")?;
        self.literal(":")?;
        let minute = self.digits(2, "04")?;
        self.literal(":")?;
        let second = self.digits(2, "05")?;
        let nanos = self.fraction(fraction)?;
        let offset = self.offset()?;
        if !self.rest.is_empty() {
            return Err(Failure::Extra(self.rest));
        }
        let small = |n: u32| u8::try_from(n).unwrap_or(u8::MAX);
        let month = Month::try_from(small(month)).map_err(|_| Failure::Range("month"))?;
        let year = i32::try_from(year).map_err(|_| Failure::Range("year"))?;
        let date = Date::from_calendar_date(year, month, small(day)).map_err(|_| Failure::Range("day"))?;
        for (value, limit, what) in [(hour, 24, "hour"), (minute, 60, "minute"), (second, 60, "second")] {
            if value >= limit {
                return Err(Failure::Range(what));
            }
        }
        let time = Time::from_hms_nano(small(hour), small(minute), small(second), nanos)
            .map_err(|_| Failure::Range("second"))?;
        date.with_time(time)
            .assume_offset(offset)
            .checked_to_offset(UtcOffset::UTC)
            .filter(|at| at.year() >= 0 && self.text.len() < 64)
            .ok_or(Failure::Range("year"))
    }

    fn fraction(&mut self, exact: Option<usize>) -> Result<u32, Failure<'a>> {
        let whole = self.rest;
        let digits = match self.rest.strip_prefix('.') {
            Some(rest) => {
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                let (digits, rest) = rest.split_at(end);
                if digits.is_empty() {
                    return Err(Failure::Element(whole, "Z07:00"));
                }
                self.rest = rest;
                digits
            }
            None => "",
        };
        if exact.is_some_and(|count| digits.len() != count) {
            return Err(Failure::Element(whole, ".000000"));
        }
        Ok(digits.bytes().chain(std::iter::repeat(b'0')).take(9).fold(0, |n, b| n * 10 + u32::from(b - b'0')))
    }

    fn offset(&mut self) -> Result<UtcOffset, Failure<'a>> {
        let whole = self.rest;
        let bad = || Failure::Element(whole, "Z07:00");
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(UtcOffset::UTC);
        }
        let sign: i8 = match self.rest.as_bytes().first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(bad()),
        };
        self.rest = &self.rest[1..];
        let hours = self.digits(2, "Z07:00").map_err(|_| bad())?;
        self.literal(":").map_err(|_| bad())?;
        let minutes = self.digits(2, "Z07:00").map_err(|_| bad())?;
        if hours > 23 || minutes > 59 {
            return Err(Failure::Range("time zone offset hour"));
        }
        let part = |n: u32| sign * i8::try_from(n).unwrap_or(0);
        UtcOffset::from_hms(part(hours), part(minutes), 0).map_err(|_| Failure::Range("time zone offset hour"))
    }
}

fn parts(at: OffsetDateTime) -> String {
    let at = at.to_offset(UtcOffset::UTC);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    )
}

/// `2006-01-02T15:04:05Z`.
pub fn format(at: OffsetDateTime) -> String {
    format!("{}Z", parts(at))
}

/// `2006-01-02T15:04:05.000000Z`.
pub fn format_micro(at: OffsetDateTime) -> String {
    format!("{}.{:06}Z", parts(at), at.microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        let at = parse("2024-01-02T03:04:05.678901+01:00").expect("time");
        assert_eq!(format(at), "2024-01-02T02:04:05Z");
        assert_eq!(format_micro(at), "2024-01-02T02:04:05.678901Z");
        assert_eq!(parse_micro(&format_micro(at)), Ok(at));
        assert!(parse_micro("2024-01-02T03:04:05Z").is_err());
    }

    #[test]
    fn errors_are_gos() {
        let error = |text: &str| parse(text).map_err(|e| e.to_string()).expect_err("no time");
        assert_eq!(
            error("yesterday"),
            "parsing time \"yesterday\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"yesterday\" as \"2006\""
        );
        assert!(error("2024-13-01T00:00:00Z").ends_with(": month out of range"));
        assert!(error("2024-02-30T00:00:00Z").ends_with(": day out of range"));
        assert!(error("2024-01-01T00:00:00Zx").ends_with(": extra text: \"x\""));
        assert!(parse("2024-01-01").is_err() && parse("").is_err() && parse("2024-01-01T00:00:00é").is_err());
    }
}
