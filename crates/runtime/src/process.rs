//! Start and end of a process: command line, logs, the tokio runtime, signals, exit codes.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Clock, RealClock},
    env, features,
    flags::{CommandLine, FlagError, FlagValue, Parsed},
    health::HealthChecks,
    logging, metrics,
    tasks::TaskGroup,
    version,
};

pub use crate::flags::LoggingArgs;

/// Time the tasks of a process have to end after its main future did.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// What a component is called and how its command line behaves.
#[derive(Clone, Copy, Debug)]
pub struct ComponentInfo {
    /// Name of the binary, such as `kube-scheduler`.
    pub name: &'static str,
    /// What it does, for `--help`.
    pub about: &'static str,
    /// Deprecated flags and what is said when they are used.
    pub deprecated: &'static [(&'static str, &'static str)],
}

/// What every component works with. Cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    /// Name of the component.
    pub component: &'static str,
    /// Metrics of the process.
    pub registry: Registry,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The root of all tasks.
    pub tasks: TaskGroup,
    /// Cancelled by the first SIGTERM or SIGINT.
    pub shutdown: CancellationToken,
    /// Health checks of the process.
    pub health: HealthChecks,
    /// Effective flags.
    pub flags: Arc<[FlagValue]>,
}

impl Runtime {
    /// A runtime on the current tokio runtime: what [`run_component`] hands out, and what tests make.
    pub fn new(component: &'static str, flags: Vec<FlagValue>) -> Result<Self, prometheus::Error> {
        let registry = metrics::registry()?;
        let health = HealthChecks::new();
        health.register_metrics(&registry)?;
        Ok(Self {
            component,
            registry,
            clock: RealClock::shared(),
            tasks: TaskGroup::new(component),
            shutdown: CancellationToken::new(),
            health,
            flags: flags.into(),
        })
    }

    /// Whether a flag was given on the command line.
    pub fn given(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f.name == flag && f.given)
    }
}

#[derive(Args)]
struct Outer<A: Args> {
    #[command(flatten)]
    logging: LoggingArgs,
    /// --version, --version=raw prints version information and quits; --version=vX.Y.Z... sets the reported version
    #[arg(long, default_value = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    version: String,
    #[command(flatten)]
    component: A,
}

/// Runs a daemon: parses its command line, sets up the process, and awaits what `main` returns.
///
/// The first SIGTERM or SIGINT cancels `Runtime::shutdown`, the second ends the process at once.
pub fn run_component<A, F, Fut, E>(info: ComponentInfo, main: F) -> ExitCode
where
    A: Args,
    F: FnOnce(A, Runtime) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: std::error::Error + 'static,
{
    let mut command_line = CommandLine::new::<Outer<A>>(info.name, info.about, info.deprecated);
    let usage = command_line.usage();
    let parsed: Parsed<Outer<A>> = match command_line.parse(std::env::args().skip(1)) {
        Ok(parsed) => parsed,
        Err(FlagError::Help(text)) => {
            print_out(&text);
            return ExitCode::SUCCESS;
        }
        Err(FlagError::Usage(text)) => {
            eprintln!("{usage}\nError: {text}");
            return ExitCode::FAILURE;
        }
    };
    for warning in &parsed.warnings {
        eprintln!("{warning}");
    }
    match print_version(&parsed.args.version) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("Error: {text}");
            return ExitCode::FAILURE;
        }
    }
    let alpha =
        parsed.flags.iter().find(|f| f.name == "feature-gates").is_some_and(|f| features::logging_alpha(&f.value));
    if set_up_logs(&parsed.args.logging, alpha).is_err() {
        return ExitCode::FAILURE;
    }
    for flag in &parsed.flags {
        tracing::info!(v = 1, plain = true, "FLAG: --{}={:?}", flag.name, flag.value);
    }
    tracing::info!(version = version::git_version(), component = info.name, "Version");
    let [gc, processors, traceback] =
        ["GOGC", "GOMAXPROCS", "GOTRACEBACK"].map(|name| env::var(name).unwrap_or_default());
    tracing::info!(GOGC = gc, GOMAXPROCS = processors, GOTRACEBACK = traceback, "Golang settings");
    let component = parsed.args.component;
    let flags = parsed.flags;
    block_on(async move {
        let runtime = Runtime::new(info.name, flags).map_err(Failure::from_error)?;
        tokio::spawn(signals(runtime.shutdown.clone()));
        let outcome = main(component, runtime.clone()).await;
        // Who failed, or lost the lease that allowed it to act, does not finish what it was doing: another may do it by now.
        if outcome.is_ok() {
            let unfinished = runtime.tasks.stop(STOP_DEADLINE).await;
            if !unfinished.is_empty() {
                tracing::warn!(tasks = %unfinished.join(" "), "Tasks did not finish in time");
            }
        }
        outcome.map_err(Failure::from_error)
    })
}

/// Installs logs and the panic hook; settings that are wrong are told in the default format.
fn set_up_logs(args: &LoggingArgs, alpha: bool) -> Result<(), Failure> {
    let problems = logging::validate(args, alpha);
    logging::install(if problems.is_empty() { args } else { &DEFAULT_LOGS });
    install_panic_hook();
    match problems.as_slice() {
        [] => Ok(()),
        [one] => Err(Failure::from_text(one)),
        all => Err(Failure::from_text(&format!("[{}]", all.join(", ")))),
    }
}

/// How logs are written before the settings are known to be good.
static DEFAULT_LOGS: std::sync::LazyLock<LoggingArgs> = std::sync::LazyLock::new(LoggingArgs::default);

/// Runs a daemon that parsed its own command line: `work` gets a token that SIGTERM or SIGINT cancels; a second signal
/// ends the process at once.
pub fn run<F, E>(logging: &LoggingArgs, work: impl FnOnce(CancellationToken) -> F) -> ExitCode
where
    F: Future<Output = Result<(), E>>,
    E: std::error::Error + 'static,
{
    if set_up_logs(logging, false).is_err() {
        return ExitCode::FAILURE;
    }
    block_on(async move {
        let stop = CancellationToken::new();
        tokio::spawn(signals(stop.clone()));
        work(stop).await.map_err(Failure::from_error)
    })
}

/// Runs a command-line tool: no flags, no logs set up; the token is cancelled by the first SIGTERM or SIGINT. The work
/// prints its own errors and says how the process ends.
pub fn run_tool<Fut>(work: impl FnOnce(CancellationToken) -> Fut) -> ExitCode
where
    Fut: Future<Output = ExitCode>,
{
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match built {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        let stop = CancellationToken::new();
        tokio::spawn(signals(stop.clone()));
        work(stop).await
    });
    runtime.shutdown_background();
    code
}

/// The error was reported already.
struct Failure;

impl Failure {
    fn from_error(error: impl std::error::Error + 'static) -> Self {
        tracing::error!(err = &error as &dyn std::error::Error, "command failed");
        Self
    }

    fn from_text(text: &str) -> Self {
        tracing::error!(err = text, "command failed");
        Self
    }
}

fn block_on(work: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "command failed");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    logging::flush();
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Serves `--version`; `true` when the process is done with that.
fn print_version(asked: &str) -> Result<bool, String> {
    match asked {
        "false" => Ok(false),
        "true" => {
            print_out(&format!("Kubernetes {}\n", version::git_version()));
            Ok(true)
        }
        "raw" => {
            print_out(&format!("{}\n", version::raw()));
            Ok(true)
        }
        other if other.starts_with('v') => version::override_git_version(other).map(|()| false),
        other => Err(format!(
            "invalid argument {other:?} for \"--version\" flag: strconv.ParseBool: parsing {other:?}: invalid syntax"
        )),
    }
}

fn print_out(text: &str) {
    use std::io::Write;
    // A closed standard output has no reader to tell.
    let _closed = std::io::stdout().lock().write_all(text.as_bytes()).is_err();
}

fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        let trace = std::backtrace::Backtrace::capture();
        tracing::error!(panic = %text, location = %place, stacktrace = %trace, "Observed a panic");
    }));
}

async fn signals(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals cannot be received");
        return;
    };
    for first in [true, false] {
        let name = tokio::select! {
            _ = terminate.recv() => "terminated",
            _ = interrupt.recv() => "interrupt",
        };
        if first {
            tracing::info!(signal = name, "Received a signal, shutting down");
            stop.cancel();
        } else {
            logging::flush();
            std::process::exit(1);
        }
    }
}
