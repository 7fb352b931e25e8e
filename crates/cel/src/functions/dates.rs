//! Times and spans.

use time::{Duration, OffsetDateTime, UtcOffset};

use super::failed;
use crate::{
    eval::{EvalError, Outcome},
    value::Val,
};

/// RFC 3339, in UTC, without needless digits.
pub(super) fn show_time(at: OffsetDateTime) -> String {
    let at = at.to_offset(UtcOffset::UTC);
    let date = format!("{:04}-{:02}-{:02}", at.year(), u8::from(at.month()), at.day());
    let clock = format!("{:02}:{:02}:{:02}", at.hour(), at.minute(), at.second());
    match at.nanosecond() {
        0 => format!("{date}T{clock}Z"),
        nanos => format!("{date}T{clock}.{}Z", format!("{nanos:09}").trim_end_matches('0')),
    }
}

pub(super) fn arithmetic<'a>(name: &str, a: &Val<'a>, b: &Val<'a>) -> Option<Outcome<'a>> {
    let time = |value: Option<OffsetDateTime>| value.map(Val::Timestamp).ok_or_else(|| failed("timestamp overflow"));
    let span = |value: Option<i64>| value.map(Val::Duration).ok_or_else(|| failed("duration overflow"));
    Some(match (name, a, b) {
        ("_+_", Val::Timestamp(at), Val::Duration(by)) | ("_+_", Val::Duration(by), Val::Timestamp(at)) => {
            time(at.checked_add(Duration::nanoseconds(*by)))
        }
        ("_-_", Val::Timestamp(at), Val::Duration(by)) => time(at.checked_sub(Duration::nanoseconds(*by))),
        ("_-_", Val::Timestamp(a), Val::Timestamp(b)) => span(i64::try_from((*a - *b).whole_nanoseconds()).ok()),
        ("_+_", Val::Duration(a), Val::Duration(b)) => span(a.checked_add(*b)),
        ("_-_", Val::Duration(a), Val::Duration(b)) => span(a.checked_sub(*b)),
        _ => return None,
    })
}

/// The offset of a zone: `UTC`, `+05:30`. Names of places are not known.
fn zone(text: &str) -> Result<UtcOffset, EvalError> {
    if matches!(text, "UTC" | "Z" | "") {
        return Ok(UtcOffset::UTC);
    }
    let (sign, rest) = match text.split_at_checked(1) {
        Some(("-", rest)) => (-1, rest),
        Some(("+", rest)) => (1, rest),
        _ => (1, text),
    };
    let parsed = rest.split_once(':').and_then(|(h, m)| Some((h.parse::<i8>().ok()?, m.parse::<i8>().ok()?)));
    let offset = parsed.and_then(|(hours, minutes)| UtcOffset::from_hms(sign * hours, sign * minutes, 0).ok());
    offset.ok_or_else(|| failed(format!("unknown time zone {text}")))
}

pub(super) fn call<'a>(name: &str, args: &[Val<'a>]) -> Option<Outcome<'a>> {
    match args {
        [Val::Timestamp(at)] => part(name, at.to_offset(UtcOffset::UTC)).map(Ok),
        [Val::Timestamp(at), place] => {
            let offset = zone(place.as_str()?);
            match offset {
                Ok(offset) => part(name, at.to_offset(offset)).map(Ok),
                Err(error) => Some(Err(error)),
            }
        }
        [Val::Duration(nanos)] => {
            let unit = match name {
                ".getHours" => 3_600_000_000_000,
                ".getMinutes" => 60_000_000_000,
                ".getSeconds" => 1_000_000_000,
                ".getMilliseconds" => 1_000_000,
                _ => return None,
            };
            Some(Ok(Val::Int(nanos / unit)))
        }
        _ => None,
    }
}

fn part<'a>(name: &str, at: OffsetDateTime) -> Option<Val<'a>> {
    let value = match name {
        ".getFullYear" => i64::from(at.year()),
        ".getMonth" => i64::from(u8::from(at.month())) - 1,
        ".getDate" => i64::from(at.day()),
        ".getDayOfMonth" => i64::from(at.day()) - 1,
        ".getDayOfWeek" => i64::from(at.weekday().number_days_from_sunday()),
        ".getDayOfYear" => i64::from(at.ordinal()) - 1,
        ".getHours" => i64::from(at.hour()),
        ".getMinutes" => i64::from(at.minute()),
        ".getSeconds" => i64::from(at.second()),
        ".getMilliseconds" => i64::from(at.millisecond()),
        _ => return None,
    };
    Some(Val::Int(value))
}
