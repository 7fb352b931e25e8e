//! Logs in the two formats that cluster tooling reads: klog text and JSON lines, on standard error; with the gate
//! `LoggingAlphaOptions`, what is no error may go to standard output, through a buffer.
//!
//! Verbosity `-v` maps to tracing levels: errors, warnings and `info!` are always written, `debug!` from 4, `trace!`
//! from 6. An event with a field `v` is written from that verbosity on (`info!(v = 2, "…")`).

mod line;
mod sink;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI32, Ordering},
    },
    time::SystemTime,
};

use jiff::tz::TimeZone;
use parking_lot::RwLock;
use tracing::{Event, Level, Metadata, Subscriber, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt, util::SubscriberInitExt};

use self::sink::{Sink, Streams};
use crate::flags::LoggingArgs;

/// Verbosity from which `debug!` and `trace!` are written.
const DEBUG_FROM: i32 = 4;
const TRACE_FROM: i32 = 6;
/// How much more verbosity libraries need.
const LIBRARY_OFFSET: i32 = 4;
/// Crates whose chatter is of interest to their own developers only.
/// Exact for kube: this workspace has crates whose names begin with it.
const LIBRARIES: [&str; 10] =
    ["hyper", "h2", "rustls", "tower", "tonic", "mio", "tokio", "kube_client", "kube_core", "kube_runtime"];

/// The verbosity in force; `PUT /debug/flags/v` changes it.
static VERBOSITY: AtomicI32 = AtomicI32::new(0);
static INSTALLED: OnceLock<()> = OnceLock::new();
static SINK: OnceLock<Arc<dyn Sink>> = OnceLock::new();
static FORM: OnceLock<Arc<RwLock<Form>>> = OnceLock::new();
static LOGGERS: OnceLock<&'static [(&'static str, &'static str)]> = OnceLock::new();

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// klog's text lines.
    Text,
    /// One JSON object a line.
    Json,
}

/// How lines look, and how verbose files are that have a verbosity of their own.
#[derive(Debug)]
struct Form {
    format: Format,
    modules: Vec<(String, i32)>,
}

/// Changes what a configuration file says of logs, which is read after the first lines were written; what is `None`
/// stays.
pub fn set_form(format: Option<Format>, modules: Option<Vec<(String, i32)>>) {
    let Some(form) = FORM.get() else { return };
    {
        let mut form = form.write();
        form.format = format.unwrap_or(form.format);
        if let Some(modules) = modules {
            form.modules = modules;
        }
    }
    tracing::callsite::rebuild_interest_cache();
}

/// Names the parts of the program in what they log (`logger`): paths of modules with names. The first call counts.
pub fn name_loggers(loggers: &'static [(&'static str, &'static str)]) {
    let _second = LOGGERS.set(loggers).is_err();
}

/// The name for what a module logs: that of the longest path that leads to it.
fn logger_of(loggers: &[(&str, &'static str)], module: &str) -> Option<&'static str> {
    let leads = |path: &str| module.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let named = loggers.iter().filter(|(path, _)| leads(path));
    named.max_by_key(|(path, _)| path.len()).map(|(_, name)| *name)
}

/// Changes the verbosity of a running process.
pub fn set_verbosity(level: i32) {
    VERBOSITY.store(level, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

/// The verbosity in force.
pub fn verbosity() -> i32 {
    VERBOSITY.load(Ordering::Relaxed)
}

/// All that is wrong with the settings. `alpha` is the gate `LoggingAlphaOptions`.
pub fn validate(args: &LoggingArgs, alpha: bool) -> Vec<String> {
    let mut problems = Vec::new();
    if !matches!(args.logging_format.as_str(), "text" | "json") {
        problems.push(format!("format: Invalid value: {:?}: Unsupported log format", args.logging_format));
    }
    if args.logging_format == "json" && !args.vmodule.is_empty() {
        problems.push("vmodule: Forbidden: Only supported for text log format".into());
    }
    if let Err(problem) = vmodule(&args.vmodule) {
        problems.push(problem);
    }
    if (args.log_text_split_stream || args.log_json_split_stream) && !alpha {
        problems.push("options.splitStream: Forbidden: Feature LoggingAlphaOptions is disabled".into());
    }
    for (form, size) in [("text", &args.log_text_info_buffer_size), ("json", &args.log_json_info_buffer_size)] {
        match buffer_size(size) {
            None => problems.push(format!("invalid argument {size:?} for \"--log-{form}-info-buffer-size\" flag")),
            Some(0) => {}
            Some(_) if alpha => {}
            Some(_) => {
                problems.push("options.infoBufferSize: Forbidden: Feature LoggingAlphaOptions is disabled".into());
            }
        }
    }
    problems
}

/// Bytes of a quantity.
fn buffer_size(text: &str) -> Option<usize> {
    let quantity = machinery::quantity::Quantity::parse(text).ok()?;
    usize::try_from(quantity.value()).ok()
}

/// Installs the process's log output. The first call counts.
pub fn install(args: &LoggingArgs) {
    if INSTALLED.set(()).is_err() {
        return;
    }
    VERBOSITY.store(args.verbosity, Ordering::Relaxed);
    let (format, split, size) = if args.logging_format == "json" {
        (Format::Json, args.log_json_split_stream, &args.log_json_info_buffer_size)
    } else {
        (Format::Text, args.log_text_split_stream, &args.log_text_info_buffer_size)
    };
    let modules = vmodule(&args.vmodule).unwrap_or_default();
    let sink: Arc<dyn Sink> = if split {
        Arc::new(Streams::split(buffer_size(size).unwrap_or(0), args.log_flush_frequency))
    } else {
        Arc::new(Streams::one())
    };
    let _second = SINK.set(Arc::clone(&sink)).is_err();
    let form = Arc::new(RwLock::new(Form { format, modules }));
    let _second = FORM.set(Arc::clone(&form)).is_err();
    let output = Output { form, sink, zone: TimeZone::system() };
    if tracing_subscriber::registry().with(output).try_init().is_err() {
        tracing::debug!("logs are set up already");
    }
}

/// Writes what is buffered; at the end of the process.
pub fn flush() {
    if let Some(sink) = SINK.get() {
        sink.flush();
    }
}

fn vmodule(text: &str) -> Result<Vec<(String, i32)>, String> {
    let parse = |pair: &str| {
        let (pattern, level) = pair.split_once('=').filter(|(p, _)| !p.is_empty())?;
        Some((pattern.to_owned(), level.parse().ok()?))
    };
    text.split(',')
        .filter(|p| !p.is_empty())
        .map(|pair| parse(pair).ok_or_else(|| format!("{pair:?} does not have the pattern=N format")))
        .collect()
}

struct Output {
    form: Arc<RwLock<Form>>,
    sink: Arc<dyn Sink>,
    /// In whose time text lines are.
    zone: TimeZone,
}

impl Output {
    fn verbosity_for(&self, metadata: &Metadata<'_>) -> i32 {
        let level = verbosity();
        let form = self.form.read();
        if form.modules.is_empty() {
            return level;
        }
        let file = metadata.file().and_then(|f| f.rsplit('/').next()).unwrap_or_default();
        let stem = file.strip_suffix(".rs").unwrap_or(file);
        form.modules.iter().find(|(pattern, _)| matches_glob(pattern, stem)).map_or(level, |(_, n)| *n)
    }

    fn wanted(&self, metadata: &Metadata<'_>) -> bool {
        let krate = metadata.target().split("::").next().unwrap_or_default();
        let library =
            LIBRARIES.iter().any(|l| krate.strip_prefix(l).is_some_and(|r| r.is_empty() || r.starts_with('_')));
        let from = match *metadata.level() {
            // What goes wrong in a library is reported by the one who called it.
            Level::ERROR | Level::WARN | Level::INFO => 0,
            Level::DEBUG => DEBUG_FROM,
            Level::TRACE => TRACE_FROM,
        };
        self.verbosity_for(metadata) >= if library { from + LIBRARY_OFFSET } else { from }
    }
}

impl<S: Subscriber> Layer<S> for Output {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wanted(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _ctx: Context<'_, S>) -> bool {
        self.wanted(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        None
    }

    fn on_event(&self, event: &Event<'_>, _ctx: Context<'_, S>) {
        let mut fields = line::Fields::default();
        event.record(&mut fields);
        if fields.v.is_some_and(|v| v > self.verbosity_for(event.metadata())) {
            return;
        }
        if fields.logger.is_none() {
            let loggers = LOGGERS.get().copied().unwrap_or_default();
            fields.logger = logger_of(loggers, event.metadata().target()).map(str::to_owned);
        }
        let format = self.form.read().format;
        let text = match format {
            Format::Text => line::text(event.metadata(), &fields, SystemTime::now(), &self.zone),
            Format::Json => line::json(event.metadata(), &fields, SystemTime::now()),
        };
        self.sink.write(*event.metadata().level(), text.as_bytes());
    }
}

/// Shell patterns with `*` and `?`.
fn matches_glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == '?' || *c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    p = at + 1;
                    t = from + 1;
                    star = Some((at, from + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests;
