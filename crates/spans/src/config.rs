//! `TracingConfiguration`: where traces are sent, and how many of them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use runtime::config_file::{self, ConfigError};
use serde::Deserialize;
use tonic::transport::{Channel, Endpoint, Uri};

/// Where a collector listens that is not configured.
const DEFAULT_ENDPOINT: &str = "localhost:4317";
const VERSIONS: [&str; 3] =
    ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];
const MILLION: i32 = 1_000_000;
/// Time that connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// What the operator says of traces: the fields of `TracingConfiguration`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The collector: `host:port`, or a URL of the schemes `dns`, `unix` and `unix-abstract`. The connection is not
    /// encrypted.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Of a million traces that begin here, so many are sent. Those that others have chosen are sent always.
    #[serde(default)]
    pub sampling_rate_per_million: Option<i32>,
}

/// Why there are no traces.
#[derive(Debug, thiserror::Error)]
pub enum TracingError {
    /// The file is not usable.
    #[error("failed to read tracing config: {0}")]
    File(#[from] ConfigError),
    /// What it says is wrong.
    #[error("failed to validate tracing configuration: {0}")]
    Invalid(String),
}

/// Where a collector is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Tcp(String),
    Unix(PathBuf),
    Abstract(String),
}

impl Config {
    /// Reads and checks a `TracingConfiguration`.
    pub fn read(file: &Path) -> Result<Self, TracingError> {
        let read: Self = config_file::decode(&config_file::read(file)?, &VERSIONS, "TracingConfiguration")?;
        match read.problems("").as_slice() {
            [] => Ok(read),
            [one] => Err(TracingError::Invalid(one.clone())),
            all => Err(TracingError::Invalid(format!("[{}]", all.join(", ")))),
        }
    }

    /// All that is wrong, with the names of the fields below `path`.
    pub fn problems(&self, path: &str) -> Vec<String> {
        let at = |field: &str| if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
        let mut problems = Vec::new();
        let why = match self.sampling_rate_per_million {
            Some(..0) => "sampling rate must be positive",
            Some(rate) if rate > MILLION => "sampling rate per million must be less than or equal to one million",
            _ => "",
        };
        if let (Some(rate), false) = (self.sampling_rate_per_million, why.is_empty()) {
            problems.push(format!("{}: Invalid value: {rate}: {why}", at("samplingRatePerMillion")));
        }
        if let (Some(endpoint), Err(why)) = (&self.endpoint, self.place()) {
            problems.push(format!("{}: Invalid value: {endpoint:?}: {why}", at("endpoint")));
        }
        problems
    }

    /// Chance that a trace that begins here is sent, of a million.
    pub(crate) fn rate(&self) -> u64 {
        u64::try_from(self.sampling_rate_per_million.unwrap_or(0).min(MILLION)).unwrap_or(0)
    }

    fn place(&self) -> Result<Place, String> {
        let endpoint = self.endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT);
        let (scheme, rest) = endpoint.split_once("://").unwrap_or(("dns", endpoint));
        match scheme {
            // A name server may be named first.
            "dns" => {
                let address = rest.rsplit('/').next().unwrap_or(rest);
                let uri: Result<Uri, _> = format!("http://{address}").parse();
                match uri {
                    Ok(uri) if uri.host().is_some_and(|host| !host.is_empty()) => Ok(Place::Tcp(address.to_owned())),
                    Ok(_) => Err("no host".into()),
                    Err(error) => Err(error.to_string()),
                }
            }
            "unix" => Ok(Place::Unix(PathBuf::from(rest))),
            "unix-abstract" => Ok(Place::Abstract(rest.to_owned())),
            other => Err(format!("unsupported scheme: {other}.  Options are none, dns, unix, or unix-abstract")),
        }
    }

    /// A connection to the collector, which is made when it is used, and again when it breaks.
    pub(crate) fn channel(&self) -> Result<Channel, TracingError> {
        let local = || Endpoint::from_static("http://collector.local").connect_timeout(CONNECT);
        Ok(match self.place().map_err(TracingError::Invalid)? {
            Place::Tcp(address) => Endpoint::from_shared(format!("http://{address}"))
                .map_err(|error| TracingError::Invalid(util::chain(&error)))?
                .connect_timeout(CONNECT)
                .connect_lazy(),
            Place::Unix(path) => local().connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
            })),
            Place::Abstract(name) => local().connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let stream = connect_abstract(&name);
                async move { stream.map(TokioIo::new) }
            })),
        })
    }
}

fn connect_abstract(name: &str) -> std::io::Result<tokio::net::UnixStream> {
    use std::os::{linux::net::SocketAddrExt, unix::net};
    let address = net::SocketAddr::from_abstract_name(name.as_bytes())?;
    let stream = net::UnixStream::connect_addr(&address)?;
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(endpoint: &str, rate: i32) -> Config {
        Config { endpoint: Some(endpoint.into()), sampling_rate_per_million: Some(rate) }
    }

    #[test]
    fn endpoints_are_addresses_or_sockets() {
        for (endpoint, place) in [
            ("localhost:4317", Place::Tcp("localhost:4317".into())),
            ("dns:///collector:1", Place::Tcp("collector:1".into())),
            ("dns://10.0.0.1/collector:1", Place::Tcp("collector:1".into())),
            ("unix:///run/c.sock", Place::Unix("/run/c.sock".into())),
            ("unix-abstract://c", Place::Abstract("c".into())),
        ] {
            assert_eq!(config(endpoint, 0).place(), Ok(place), "{endpoint}");
        }
        assert_eq!(Config::default().place(), Ok(Place::Tcp("localhost:4317".into())));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (config, problem) in [
            (config("a:1", -1), "tracing.samplingRatePerMillion: Invalid value: -1: sampling rate must be positive"),
            (
                config("a:1", 1_000_001),
                "tracing.samplingRatePerMillion: Invalid value: 1000001: sampling rate per million must be less than or \
                 equal to one million",
            ),
            (
                config("https://a:1", 5),
                "tracing.endpoint: Invalid value: \"https://a:1\": unsupported scheme: https.  Options are none, dns, \
                 unix, or unix-abstract",
            ),
        ] {
            assert_eq!(config.problems("tracing"), [problem]);
        }
        assert!(config("a:1", MILLION).problems("").is_empty());
    }

    #[test]
    fn files_are_strict() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tracing.yaml");
        for (text, wanted) in [
            ("apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\nsamplingRatePerMillion: 7\n", Ok(7)),
            ("apiVersion: apiserver.config.k8s.io/v1beta1\nkind: TracingConfiguration\n", Ok(0)),
            (
                "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\nrate: 7\n",
                Err("failed to read tracing config: strict decoding error: unknown field \"rate\""),
            ),
            (
                "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\nsamplingRatePerMillion: -7\n",
                Err(
                    "failed to validate tracing configuration: samplingRatePerMillion: Invalid value: -7: sampling rate \
                     must be positive",
                ),
            ),
        ] {
            std::fs::write(&file, text).unwrap();
            let read = Config::read(&file).map(|config| config.rate()).map_err(|error| error.to_string());
            assert_eq!(read, wanted.map_err(str::to_owned), "{text}");
        }
    }
}
