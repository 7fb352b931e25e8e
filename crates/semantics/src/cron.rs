//! Cron schedules: when the next run is.

use jiff::{Span, Timestamp, ToSpan, Zoned, civil, tz::TimeZone};

/// Years after which a schedule that matched nothing is given up.
const YEARS: i16 = 5;

/// A schedule that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not five fields.
    #[error("expected exactly 5 fields, found {0}: [{1}]")]
    Fields(usize, String),
    /// A part that is no number or name.
    #[error("failed to parse int from {0}: strconv.Atoi: parsing {0:?}: invalid syntax")]
    Number(String),
    /// Too many hyphens or slashes.
    #[error("too many {0}: {1}")]
    TooMany(&'static str, String),
    /// A number below the range.
    #[error("beginning of range ({0}) below minimum ({1}): {2}")]
    Below(u32, u32, String),
    /// A number above the range.
    #[error("end of range ({0}) above maximum ({1}): {2}")]
    Above(u32, u32, String),
    /// A range that runs backwards.
    #[error("beginning of range ({0}) beyond end of range ({1}): {2}")]
    Backwards(u32, u32, String),
    /// A step of zero.
    #[error("step of range should be a positive number: {0}")]
    Step(String),
    /// An unknown `@word`.
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    /// A bad duration after `@every`.
    #[error("failed to parse duration {0}")]
    Duration(String),
    /// Nothing at all.
    #[error("empty spec string")]
    Empty,
}

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// By the calendar.
    Calendar(Calendar),
    /// Every so many seconds.
    Every(i64),
}

/// Sets of minutes, hours, days, months and weekdays, as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether days or weekdays are not restricted, so that both have to match.
    any_day: bool,
}

struct Field {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Field; 5] = [
    Field { min: 0, max: 59, names: &[] },
    Field { min: 0, max: 23, names: &[] },
    Field { min: 1, max: 31, names: &[] },
    Field { min: 1, max: 12, names: MONTHS },
    Field { min: 0, max: 6, names: WEEKDAYS },
];

impl Field {
    fn number(&self, text: &str) -> Result<u32, ScheduleError> {
        let lower = text.to_ascii_lowercase();
        if let Some(at) = self.names.iter().position(|n| *n == lower) {
            return Ok(u32::try_from(at).unwrap_or(0) + self.min);
        }
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse().ok().filter(|_| digits).ok_or_else(|| ScheduleError::Number(text.into()))
    }

    /// The bits of a list, and whether it is a star.
    fn bits(&self, text: &str) -> Result<(u64, bool), ScheduleError> {
        let (mut bits, mut star) = (0, false);
        for part in text.split(',').filter(|p| !p.is_empty()) {
            let (more, is_star) = self.range(part)?;
            bits |= more;
            star |= is_star;
        }
        if bits == 0 { Err(ScheduleError::Number(text.into())) } else { Ok((bits, star)) }
    }

    fn range(&self, text: &str) -> Result<(u64, bool), ScheduleError> {
        let parts: Vec<&str> = text.split('/').collect();
        let (range, step) = match parts.as_slice() {
            [range] => (*range, None),
            [range, step] => (*range, Some(*step)),
            _ => return Err(ScheduleError::TooMany("slashes", text.into())),
        };
        let every = matches!(range, "*" | "?");
        let (first, mut last) = if every {
            (self.min, self.max)
        } else {
            match range.split('-').collect::<Vec<_>>().as_slice() {
                [one] => (self.number(one)?, self.number(one)?),
                [first, last] => (self.number(first)?, self.number(last)?),
                _ => return Err(ScheduleError::TooMany("hyphens", text.into())),
            }
        };
        let step = match step {
            None => 1,
            Some(step) => {
                if !every && !range.contains('-') {
                    last = self.max;
                }
                Field { min: 0, max: 0, names: &[] }.number(step)?
            }
        };
        if first < self.min {
            return Err(ScheduleError::Below(first, self.min, text.into()));
        }
        if last > self.max {
            return Err(ScheduleError::Above(last, self.max, text.into()));
        }
        if first > last {
            return Err(ScheduleError::Backwards(first, last, text.into()));
        }
        let width = usize::try_from(step).unwrap_or(0);
        if width == 0 {
            return Err(ScheduleError::Step(text.into()));
        }
        let bits = (first..=last).step_by(width).fold(0, |bits, n| bits | 1 << n);
        Ok((bits, every && step == 1))
    }
}

impl Schedule {
    /// Reads a schedule.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        if text.is_empty() {
            return Err(ScheduleError::Empty);
        }
        if text.starts_with('@') {
            return Self::descriptor(text);
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields.as_slice() else {
            return Err(ScheduleError::Fields(fields.len(), fields.join(" ")));
        };
        let (days, any_date) = FIELDS[2].bits(day)?;
        let (weekdays, any_weekday) = FIELDS[4].bits(weekday)?;
        Ok(Self::Calendar(Calendar {
            minutes: FIELDS[0].bits(minute)?.0,
            hours: FIELDS[1].bits(hour)?.0,
            days,
            months: FIELDS[3].bits(month)?.0,
            weekdays,
            any_day: any_date || any_weekday,
        }))
    }

    fn descriptor(text: &str) -> Result<Self, ScheduleError> {
        let equal = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ => {
                let Some(every) = text.strip_prefix("@every ") else {
                    return Err(ScheduleError::Descriptor(text.into()));
                };
                let duration = machinery::duration::parse(every).map_err(|_| ScheduleError::Duration(text.into()))?;
                return Ok(Self::Every((duration.0 / 1_000_000_000).max(1)));
            }
        };
        Self::parse(equal)
    }

    /// The first run after a time; `None` if there is none within years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(seconds) => Timestamp::from_second(after.as_second().checked_add(*seconds)?).ok(),
            Self::Calendar(calendar) => calendar.next(after, zone),
        }
    }
}

fn has(bits: u64, number: i8) -> bool {
    u32::try_from(number).is_ok_and(|n| bits >> n & 1 == 1)
}

impl Calendar {
    fn day_matches(&self, at: &Zoned) -> bool {
        let date = has(self.days, at.day());
        let weekday = has(self.weekdays, at.weekday().to_sunday_zero_offset());
        if self.any_day { date && weekday } else { date || weekday }
    }

    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let minute = Timestamp::from_second(after.as_second().div_euclid(60).checked_add(1)?.checked_mul(60)?).ok()?;
        let mut at = minute.to_zoned(zone.clone());
        let limit = at.year().checked_add(YEARS)?;
        while at.year() <= limit {
            at = if !has(self.months, at.month()) {
                start_of(at.date().first_of_month().checked_add(1.month()).ok()?, zone)?
            } else if !self.day_matches(&at) {
                start_of(at.date().tomorrow().ok()?, zone)?
            } else if !has(self.hours, at.hour()) {
                step(&at, 60 - i64::from(at.minute()))?
            } else if !has(self.minutes, at.minute()) {
                step(&at, 1)?
            } else {
                return Some(at.timestamp());
            };
        }
        None
    }
}

/// The first moment of a day.
fn start_of(date: civil::Date, zone: &TimeZone) -> Option<Zoned> {
    date.to_zoned(zone.clone()).ok()
}

/// Minutes later on the clock that does not jump.
fn step(at: &Zoned, minutes: i64) -> Option<Zoned> {
    at.checked_add(Span::new().try_minutes(minutes).ok()?).ok()
}

#[cfg(test)]
mod tests;
