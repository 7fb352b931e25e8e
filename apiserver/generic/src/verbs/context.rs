//! The moment of a write: one clock reading for everything it stamps.

use rules::strategy::Context;
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::user::User;

/// The current time, second precision.
#[derive(Clone, Debug)]
pub struct Moment {
    /// As a timestamp.
    pub at: OffsetDateTime,
    /// As RFC 3339, UTC.
    pub text: String,
}

impl Moment {
    /// Reads the clock.
    pub fn now() -> Self {
        Self::of(OffsetDateTime::now_utc())
    }

    /// A given instant, truncated to seconds.
    pub fn of(at: OffsetDateTime) -> Self {
        let at = at.replace_nanosecond(0).unwrap_or(at);
        Self { at, text: at.format(&Rfc3339).unwrap_or_default() }
    }

    /// Seconds later (or earlier, when negative).
    pub fn plus(&self, seconds: i64) -> Self {
        Self::of(self.at.saturating_add(time::Duration::seconds(seconds)))
    }

    /// Parses a stored timestamp.
    pub fn parse(text: &str) -> Option<Self> {
        OffsetDateTime::parse(text, &Rfc3339).ok().map(Self::of)
    }

    /// Calls `f` with the strategy context of this moment and user.
    pub fn with_context<T>(&self, user: &User, f: impl FnOnce(&Context<'_>) -> T) -> T {
        let extra: Option<Value> = (!user.extra.is_empty()).then(|| json!(user.extra));
        f(&Context {
            now: &self.text,
            user: &user.name,
            user_uid: &user.uid,
            groups: &user.groups,
            extra: extra.as_ref(),
        })
    }
}
