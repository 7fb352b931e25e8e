//! `Time` and `MicroTime` texts.

use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339};

/// A text that is no RFC 3339 time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parsing time {0} as \"2006-01-02T15:04:05Z07:00\": cannot parse")]
pub struct TimeError(String);

/// Parses RFC 3339.
pub fn parse(text: &str) -> Result<OffsetDateTime, TimeError> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map(|t| t.to_offset(UtcOffset::UTC))
        .map_err(|_| TimeError(crate::field::go_quote(text)))
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
        assert!(parse("yesterday").is_err());
    }
}
