//! Start and end of a process: the tokio runtime, logs, signals, exit codes.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// Log settings every component has.
#[derive(Clone, Debug, clap::Args)]
pub struct LoggingArgs {
    /// Log format: text or json.
    #[arg(long = "logging-format", default_value = "text", value_parser = ["text", "json"])]
    pub logging_format: String,
    /// Number for the log level verbosity.
    #[arg(short = 'v', long = "v", default_value_t = 0)]
    pub verbosity: i32,
}

/// Installs the process's log output on standard error.
fn install_logs(args: &LoggingArgs) {
    let level = match args.verbosity {
        ..=1 => "info",
        2..=4 => "info,kube=info",
        5..=7 => "debug,hyper=info,h2=info,rustls=info,tower=info",
        _ => "trace,hyper=info,h2=info,rustls=info,tower=info",
    };
    let registry = tracing_subscriber::registry().with(EnvFilter::new(level));
    let installed = if args.logging_format == "json" {
        registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init()
    } else {
        registry.with(fmt::layer().with_ansi(false).with_writer(std::io::stderr)).try_init()
    };
    if installed.is_err() {
        tracing::debug!("logs are set up already");
    }
}

/// Runs a component: `work` gets a token that SIGTERM or SIGINT cancels; a second signal ends the process at once.
pub fn run<F, E>(logging: &LoggingArgs, work: impl FnOnce(CancellationToken) -> F) -> ExitCode
where
    F: Future<Output = Result<(), E>>,
    E: std::error::Error,
{
    install_logs(logging);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime does not start");
            return ExitCode::FAILURE;
        }
    };
    let stop = CancellationToken::new();
    let outcome = runtime.block_on(async {
        tokio::spawn(signals(stop.clone()));
        work(stop).await
    });
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            eprintln!("Error: {text}");
            ExitCode::FAILURE
        }
    }
}

async fn signals(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    for first in [true, false] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if first {
            tracing::info!("received a signal, shutting down");
            stop.cancel();
        } else {
            std::process::exit(1);
        }
    }
}
