//! Durations as Go writes and reads them (`1h2m3.5s`), and as tables show ages.

use std::time::Duration;

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("time: {problem} {quoted}")]
pub struct DurationError {
    problem: &'static str,
    quoted: String,
}

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A signed duration in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(pub i64);

impl TryFrom<GoDuration> for Duration {
    type Error = GoDuration;

    fn try_from(value: GoDuration) -> Result<Self, GoDuration> {
        u64::try_from(value.0).map(Self::from_nanos).map_err(|_| value)
    }
}

/// Parses a Go duration.
pub fn parse(text: &str) -> Result<GoDuration, DurationError> {
    let fail = |problem| DurationError { problem, quoted: crate::field::go_quote(text) };
    let invalid = || fail("invalid duration");
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(GoDuration(0));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        if unit.is_empty() && !number.is_empty() {
            return Err(fail("missing unit in duration"));
        }
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else { return Err(invalid()) };
        total = total.checked_add(scaled(number, *scale).ok_or_else(invalid)?).ok_or_else(invalid)?;
        rest = next;
    }
    let signed = if negative { -total } else { total };
    i64::try_from(signed).map(GoDuration).map_err(|_| invalid())
}

fn scaled(number: &str, scale: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let mut value = if whole.is_empty() { 0 } else { whole.parse::<i128>().ok()?.checked_mul(scale)? };
    let mut unit = scale;
    for digit in fraction.bytes() {
        unit /= 10;
        value += i128::from(digit.checked_sub(b'0')?) * unit;
    }
    Some(value)
}

/// Formats as Go's `Duration.String`.
pub fn format(duration: GoDuration) -> String {
    let nanos = duration.0.unsigned_abs();
    let sign = if duration.0 < 0 { "-" } else { "" };
    let fraction = |value: u64, scale: u64, unit: &str| {
        let (whole, part) = (value / scale, value % scale);
        if part == 0 {
            return format!("{whole}{unit}");
        }
        let width = scale.ilog10() as usize;
        let digits = format!("{part:0width$}");
        format!("{whole}.{}{unit}", digits.trim_end_matches('0'))
    };
    let text = match nanos {
        0 => return "0s".into(),
        n if n < 1_000 => format!("{n}ns"),
        n if n < 1_000_000 => fraction(n, 1_000, "µs"),
        n if n < 1_000_000_000 => fraction(n, 1_000_000, "ms"),
        n => {
            let (hours, minutes) = (n / 3_600_000_000_000, n / 60_000_000_000 % 60);
            let seconds = fraction(n % 60_000_000_000, 1_000_000_000, "s");
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, m) => format!("{m}m{seconds}"),
                (h, m) => format!("{h}h{m}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

/// Seconds as people read them: `119s`, `5m23s`, `3h`, `2d`, `8y`.
pub fn human(seconds: i64) -> String {
    let pair = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match seconds {
        ..=-2 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        for text in ["0s", "1h2m3s", "1.5s", "300ms", "2m0s", "-1s", "1h0m0s"] {
            assert_eq!(format(parse(text).expect(text)), text);
        }
        assert_eq!(parse("1h"), Ok(GoDuration(3_600_000_000_000)));
    }

    #[test]
    fn errors_are_gos() {
        assert_eq!(parse("abc").map_err(|e| e.to_string()), Err("time: invalid duration \"abc\"".into()));
        assert_eq!(parse("10").map_err(|e| e.to_string()), Err("time: missing unit in duration \"10\"".into()));
    }

    #[test]
    fn for_people() {
        for (seconds, want) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (119, "119s"),
            (120, "2m"),
            (323, "5m23s"),
            (179 * 60, "179m"),
            (3 * 3600, "3h"),
            (8 * 3600 - 60, "7h59m"),
            (47 * 3600, "47h"),
            (48 * 3600, "2d"),
            (8 * 86400 - 3600, "7d23h"),
            (8 * 86400, "8d"),
            (729 * 86400, "729d"),
            (730 * 86400, "2y"),
            ((8 * 365 - 1) * 86400, "7y364d"),
            (8 * 365 * 86400, "8y"),
        ] {
            assert_eq!(human(seconds), want, "{seconds}");
        }
    }
}
