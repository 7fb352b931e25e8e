//! One log line.

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use jiff::{Timestamp, tz::TimeZone};
use machinery::field::go_quote;
use serde_json::Value;
use tracing::{
    Level, Metadata,
    field::{Field, Visit},
};

/// A value as it was logged.
pub(super) enum Logged {
    Text(String),
    /// Numbers and booleans, which are not quoted.
    Plain(Value),
}

/// Fields of an event.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) message: String,
    pub(super) error: Option<String>,
    pub(super) v: Option<i32>,
    /// The message is a sentence as it stands, without values of its own: text lines do not quote it.
    pub(super) plain: bool,
    /// The part of the program that says it.
    pub(super) logger: Option<String>,
    pub(super) rest: Vec<(&'static str, Logged)>,
}

impl Fields {
    fn text(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            "err" | "error" => self.error = Some(value),
            "logger" => self.logger = Some(value),
            name => self.rest.push((name, Logged::Text(value))),
        }
    }

    fn plain(&mut self, field: &Field, value: Value) {
        if field.name() == "v"
            && let Some(v) = value.as_i64()
        {
            self.v = Some(i32::try_from(v).unwrap_or(i32::MAX));
            return;
        }
        self.rest.push((field.name(), Logged::Plain(value)));
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.plain(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "plain" {
            self.plain = value;
            return;
        }
        self.plain(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, util::chain(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.text(field, format!("{value:?}"));
    }
}

fn location(metadata: &Metadata<'_>) -> String {
    let file = metadata.file().and_then(|f| f.rsplit('/').next()).unwrap_or("unknown");
    format!("{file}:{}", metadata.line().unwrap_or(0))
}

/// `I1121 06:03:32.123456       1 server.rs:42] "Starting watch" path="/x"`, with the time of the zone.
pub(super) fn text(metadata: &Metadata<'_>, fields: &Fields, now: SystemTime, zone: &TimeZone) -> String {
    let severity = match *metadata.level() {
        Level::ERROR => 'E',
        Level::WARN => 'W',
        Level::INFO | Level::DEBUG | Level::TRACE => 'I',
    };
    let at = zone.to_datetime(Timestamp::try_from(now).unwrap_or_default());
    let mut line = format!(
        "{severity}{:02}{:02} {:02}:{:02}:{:02}.{:06} {:>7} {}] {}",
        at.month(),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.subsec_nanosecond() / 1000,
        std::process::id(),
        location(metadata),
        if fields.plain { fields.message.clone() } else { go_quote(&fields.message) },
    );
    if let Some(error) = &fields.error {
        pair(&mut line, "err", error);
    }
    if let Some(logger) = &fields.logger {
        pair(&mut line, "logger", logger);
    }
    for (name, value) in &fields.rest {
        match value {
            Logged::Text(text) => pair(&mut line, name, text),
            // Writing to a string does not fail.
            Logged::Plain(plain) => drop(write!(line, " {name}={plain}")),
        }
    }
    line.push('\n');
    line
}

fn pair(line: &mut String, name: &str, value: &str) {
    line.push(' ');
    line.push_str(name);
    if value.contains('\n') {
        line.push_str("=<\n");
        for part in value.lines() {
            line.push('\t');
            line.push_str(part);
            line.push('\n');
        }
        line.push_str(" >");
        return;
    }
    line.push('=');
    // Debug output of strings comes with quotes, that of other values is its own notation.
    let own_notation = value.len() > 1
        && ((value.starts_with('"') && value.ends_with('"'))
            || (value.starts_with('[') && value.ends_with(']'))
            || (value.starts_with('{') && value.ends_with('}')));
    if own_notation {
        line.push_str(value);
    } else {
        line.push_str(&go_quote(value));
    }
}

/// `{"ts":…,"caller":"server.rs:42","logger":"…","msg":"…","v":0,…}`, in this order.
pub(super) fn json(metadata: &Metadata<'_>, fields: &Fields, now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let whole = i64::try_from(since.as_secs()).unwrap_or(i64::MAX).saturating_mul(1000);
    let ts = Value::from(whole as f64 + f64::from(since.subsec_micros()) / 1000.0);
    let mut line = format!("{{\"ts\":{ts}");
    member(&mut line, "caller", &Value::String(location(metadata)));
    if let Some(logger) = &fields.logger {
        member(&mut line, "logger", &Value::String(logger.clone()));
    }
    member(&mut line, "msg", &Value::String(fields.message.clone()));
    if *metadata.level() != Level::ERROR {
        let v = fields.v.unwrap_or(match *metadata.level() {
            Level::DEBUG => super::DEBUG_FROM,
            Level::TRACE => super::TRACE_FROM,
            Level::ERROR | Level::WARN | Level::INFO => 0,
        });
        member(&mut line, "v", &Value::from(v));
    }
    if let Some(error) = &fields.error {
        member(&mut line, "err", &Value::String(error.clone()));
    }
    for (name, value) in &fields.rest {
        match value {
            Logged::Text(text) => member(&mut line, name, &Value::String(text.clone())),
            Logged::Plain(plain) => member(&mut line, name, plain),
        }
    }
    line.push_str("}\n");
    line
}

fn member(line: &mut String, name: &str, value: &Value) {
    // Writing to a string does not fail.
    let _written = write!(line, ",{}:{value}", Value::from(name)).is_ok();
}
