//! Flags about serving as such: who may ask from where, how long, and how it ends.

use std::time::Duration;

use clap::Args;
use generic::front::{Front, FrontSettings};
use regex::Regex;
use runtime::{flags::duration, version};

use crate::{StartError, runtime_config::Forward};

/// The largest `--goaway-chance`.
const MAX_GOAWAY_CHANCE: f64 = 0.02;

/// Flags of serving.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Generic flags")]
pub struct GenericOptions {
    /// Origins that browsers may ask from: regular expressions that begin with ^ or // and end with $ or :.
    #[arg(long, value_delimiter = ',')]
    pub cors_allowed_origins: Vec<String>,
    /// Host name that clients outside know the server by.
    #[arg(long, default_value = "")]
    pub external_hostname: String,
    /// Chance, from 0 to 0.02, that an answer makes an HTTP/2 client connect anew.
    #[arg(long, default_value_t = 0.0)]
    pub goaway_chance: f64,
    /// Time that the server may take to start without being taken for dead.
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub livez_grace_period: Duration,
    /// Deadline of a request that is not a watch or a stream, and that names no shorter one.
    #[arg(long, default_value = "1m0s", value_parser = duration)]
    pub request_timeout: Duration,
    /// Seconds after which a watch that names no time ends at the earliest; it ends at twice that at the latest.
    #[arg(long, default_value_t = 1800)]
    pub min_request_timeout: u64,
    /// Reading requests at once.
    #[arg(long, default_value_t = 400)]
    pub max_requests_inflight: usize,
    /// Mutating requests at once.
    #[arg(long, default_value_t = 200)]
    pub max_mutating_requests_inflight: usize,
    /// Time between a signal and the end of serving.
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub shutdown_delay_duration: Duration,
    /// Whether the server goes on listening while requests end, and tells clients to come back.
    #[arg(long, default_value_t = false)]
    pub shutdown_send_retry_after: bool,
    /// Time over which watches are ended; 0 ends all of them at once.
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub shutdown_watch_termination_grace_period: Duration,
    /// Time that the store has to answer when the server starts.
    #[arg(long, default_value = "1m0s", value_parser = duration)]
    pub storage_initialization_timeout: Duration,
    /// Whether what the emulated version did not have is served all the same.
    #[arg(long, default_value_t = false)]
    pub emulation_forward_compatible: bool,
    /// The same of the versions that --runtime-config turns on.
    #[arg(long, default_value_t = false)]
    pub runtime_config_emulation_forward_compatible: bool,
    /// Directives of the header Strict-Transport-Security: max-age=expireTime, includeSubDomains, preload.
    #[arg(long, value_delimiter = ',')]
    pub strict_transport_security_directives: Vec<String>,
}

impl GenericOptions {
    /// All that is wrong.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.request_timeout.is_zero() {
            problems.push("--request-timeout can not be negative value".into());
        }
        if !(0.0..=MAX_GOAWAY_CHANCE).contains(&self.goaway_chance) {
            problems.push("--goaway-chance can not be less than 0 or greater than 0.02".into());
        }
        if self.storage_initialization_timeout.is_zero() {
            problems.push("--storage-initialization-timeout must be greater than 0".into());
        }
        for origin in &self.cors_allowed_origins {
            problems.extend(
                origin_problem(origin)
                    .map(|why| format!("--cors-allowed-origins has an invalid regular expression: {why}")),
            );
        }
        if !self.strict_transport_security_directives.iter().all(|directive| is_directive(directive)) {
            problems.push(
                "--strict-transport-security-directives invalid, allowed values: max-age=expireTime, \
                 includeSubDomains, preload. see https://tools.ietf.org/html/rfc6797#section-6.1 for more information"
                    .into(),
            );
        }
        problems
    }

    /// What is served that the emulated version did not have.
    pub(crate) fn forward(&self) -> Forward {
        Forward {
            emulated: version::emulated().minor,
            all: self.emulation_forward_compatible,
            named: self.runtime_config_emulation_forward_compatible,
        }
    }

    /// The front of the server.
    pub(crate) fn front(&self) -> Result<Front, StartError> {
        Front::new(&FrontSettings {
            allowed_origins: self.cors_allowed_origins.clone(),
            transport_security: self.strict_transport_security_directives.clone(),
            goaway_chance: self.goaway_chance,
            sends_retry_after: self.shutdown_send_retry_after,
            watch_grace: self.shutdown_watch_termination_grace_period,
        })
        .map_err(StartError::Flags)
    }
}

fn is_directive(text: &str) -> bool {
    match text.split_once('=') {
        Some(("max-age", seconds)) => seconds.parse::<u64>().is_ok(),
        Some(_) => false,
        None => matches!(text, "includeSubDomains" | "preload"),
    }
}

/// What is wrong with the pattern of an origin: one that is not pinned would match other people's hosts.
fn origin_problem(pattern: &str) -> Option<String> {
    if let Err(error) = Regex::new(pattern) {
        return Some(error.to_string());
    }
    let starts = pattern.starts_with('^') || pattern.contains("//");
    let ends = pattern.ends_with(['$', ':']);
    (!starts || !ends)
        .then(|| format!("regular expression does not pin to start/end of host in the origin header: {pattern:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        generic: GenericOptions,
    }

    #[test]
    fn bad_settings_are_refused() {
        let problems = |flag: &str| <Flags as clap::Parser>::parse_from(["x", flag]).generic.validate();
        for flag in [
            "--goaway-chance=0.02",
            "--cors-allowed-origins=^https://a\\.b$",
            "--cors-allowed-origins=//a\\.b:",
            "--strict-transport-security-directives=max-age=31536000,includeSubDomains,preload",
            "--shutdown-delay-duration=0s",
        ] {
            assert_eq!(problems(flag), Vec::<String>::new(), "{flag}");
        }
        for (flag, text) in [
            ("--goaway-chance=0.021", "greater than 0.02"),
            ("--request-timeout=0s", "--request-timeout can not be"),
            ("--storage-initialization-timeout=0s", "must be greater than 0"),
            ("--cors-allowed-origins=a.b", "does not pin to start/end of host"),
            ("--cors-allowed-origins=^(", "has an invalid regular expression"),
            ("--strict-transport-security-directives=max-age=soon", "allowed values: max-age=expireTime"),
            ("--strict-transport-security-directives=always", "allowed values: max-age=expireTime"),
        ] {
            assert!(problems(flag).join("\n").contains(text), "{flag}: {:?}", problems(flag));
        }
    }
}
