//! The process.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::Router;
use runtime::Runtime;

use crate::{
    Options,
    collector::Collector,
    metrics::LogMetrics,
    options::{ReadFrom, SinkKind},
    positions,
    sink::{Endpoint, FileSink, HttpSink, HttpSinkError, Retention, Sink},
    tails::{Reading, Tails},
};

/// Time for running requests at the end.
const GRACE: Duration = Duration::from_secs(1);

/// Why the collector does not run.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The name of the host is unknown.
    #[error("cannot tell the name of this host: {0}")]
    Name(std::io::Error),
    /// The positions cannot be read.
    #[error("cannot read the position file: {0}")]
    Positions(std::io::Error),
    /// The sink cannot be used.
    #[error(transparent)]
    Sink(#[from] HttpSinkError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Reading failed in a way that cannot be.
    #[error("{0}")]
    Died(String),
    /// A metric is registered twice.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// Runs until the order to stop.
pub async fn run(options: Options, runtime: Runtime) -> Result<(), LogsError> {
    let node = runtime::env::node_name(&options.node_name).map_err(LogsError::Name)?;
    let sink = sink(&options)?;
    let kept = positions::load(&options.position_file).map_err(LogsError::Positions)?;
    let at_end = kept.is_none() && options.read_from == ReadFrom::End;
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let reading = Reading {
        root: options.log_directory.clone(),
        excluded: options.exclude_namespaces.clone(),
        node: node.into(),
        batch: size(options.batch_size),
        max_line: size(options.max_line_size),
    };
    let collector = Collector {
        tails: Tails::new(reading, kept.unwrap_or_default(), at_end),
        sink,
        position_file: options.position_file.clone(),
        poll_interval: options.poll_interval.max(Duration::from_millis(10)),
        metrics: Arc::new(LogMetrics::new(&runtime.registry)?),
        clock: Arc::clone(&runtime.clock),
        stop: runtime.shutdown.clone(),
    };
    let pages = Router::new().merge(runtime.health.router()).merge(runtime::metrics::router(runtime.registry.clone()));
    let address = options.healthz_bind_address;
    let listener = runtime::serving::listen(address).map_err(|source| LogsError::Listen { address, source })?;
    let stop = runtime.tasks.token().clone();
    runtime.tasks.spawn("pages", runtime::serving::serve_router(listener, None, pages, stop, GRACE));
    tracing::info!(directory = %options.log_directory.display(), sink = ?options.sink, "Collecting logs");
    collector.run().await.map_err(|died| LogsError::Died(died.to_string()))
}

fn sink(options: &Options) -> Result<Sink, HttpSinkError> {
    match options.sink {
        SinkKind::File => {
            let retention = Retention {
                size: options.sink_file_max_size,
                files: options.sink_file_max_files,
                age: options.sink_file_max_age,
            };
            Ok(Sink::File(Arc::new(FileSink::new(options.sink_directory.clone(), retention))))
        }
        SinkKind::Http => Ok(Sink::Http(Arc::new(HttpSink::new(&Endpoint {
            url: &options.sink_url,
            format: options.sink_format,
            header_file: options.sink_header_file.as_deref(),
            authorities: &options.sink_ca_file,
            timeout: options.sink_timeout,
        })?))),
    }
}
