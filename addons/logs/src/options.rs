//! Flags.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use runtime::flags::duration;

/// Flags.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Name of the Node this runs on; the variable NODE_NAME and the host's name are used if it is empty
    #[arg(long, default_value = "")]
    pub node_name: String,
    /// Directory with the logs of Pods
    #[arg(long, default_value = "/var/log/pods")]
    pub log_directory: PathBuf,
    /// File that remembers how far each log was read
    #[arg(long, default_value = "/var/lib/timonel/logs/positions.json")]
    pub position_file: PathBuf,
    /// Where reading of logs begins that are there at the very first start
    #[arg(long, value_enum, default_value = "beginning")]
    pub read_from: ReadFrom,
    /// Namespaces whose Pods are left out
    #[arg(long, value_delimiter = ',')]
    pub exclude_namespaces: Vec<String>,
    /// Time between looks for new lines
    #[arg(long, default_value = "1s", value_parser = duration)]
    pub poll_interval: Duration,
    /// Bytes of lines that are sent at once
    #[arg(long, default_value = "1Mi", value_parser = bytes)]
    pub batch_size: u64,
    /// Longest line; longer ones are sent in pieces
    #[arg(long, default_value = "256Ki", value_parser = bytes)]
    pub max_line_size: u64,
    /// Where lines go
    #[arg(long, value_enum, default_value = "file")]
    pub sink: SinkKind,
    /// Directory of the files, with --sink=file
    #[arg(long, default_value = "/var/log/timonel-logs")]
    pub sink_directory: PathBuf,
    /// Size at which a file is rotated
    #[arg(long, default_value = "50Mi", value_parser = bytes)]
    pub sink_file_max_size: u64,
    /// Files kept for a container, with the one being written
    #[arg(long, default_value_t = 5)]
    pub sink_file_max_files: u32,
    /// Time files are kept after their last line
    #[arg(long, default_value = "168h", value_parser = duration)]
    pub sink_file_max_age: Duration,
    /// URL that lines are posted to, with --sink=http
    #[arg(long, default_value = "")]
    pub sink_url: String,
    /// What is posted
    #[arg(long, value_enum, default_value = "ndjson")]
    pub sink_format: Format,
    /// File with more headers, one "Name: value" a line, such as Authorization
    #[arg(long)]
    pub sink_header_file: Option<PathBuf>,
    /// Bundle of authorities that the server's certificate is checked with
    #[arg(long, default_value = "/etc/ssl/certs/ca-certificates.crt")]
    pub sink_ca_file: PathBuf,
    /// Time the server has for an answer
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub sink_timeout: Duration,
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, default_value = "0.0.0.0:9257")]
    pub healthz_bind_address: SocketAddr,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ReadFrom {
    /// With the oldest line.
    Beginning,
    /// With the next line.
    End,
}

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SinkKind {
    /// Into files on the node.
    File,
    /// To an HTTP server.
    Http,
}

/// What is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One JSON object a line.
    Ndjson,
    /// The push request of Loki.
    Loki,
}

/// A quantity of bytes, such as `50Mi`.
fn bytes(text: &str) -> Result<u64, String> {
    let quantity = machinery::quantity::Quantity::parse(text).map_err(|_| format!("{text:?} is not a size"))?;
    u64::try_from(quantity.value()).ok().filter(|n| *n > 0).ok_or_else(|| format!("{text:?} is not a size"))
}
