//! Flags of ServiceAccount tokens.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use runtime::flags::duration;

/// The shortest and the longest `--service-account-max-token-expiration`.
const LIVES: std::ops::RangeInclusive<Duration> = Duration::from_secs(3600)..=Duration::from_secs(1 << 32);

/// Issuer of a server on its embedded store.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Flags of ServiceAccount tokens.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Authentication flags")]
pub struct AccountOptions {
    /// Issuers of ServiceAccount tokens; the first signs. Required with etcd; a server on its embedded store has
    /// https://kubernetes.default.svc.cluster.local by default.
    #[arg(long)]
    pub service_account_issuer: Vec<String>,
    /// Address of the keys in the discovery document; by default that of this server.
    #[arg(long, default_value = "")]
    pub service_account_jwks_uri: String,
    /// Keys that ServiceAccount tokens may be signed with, PEM; by default the key of --tls-private-key-file.
    #[arg(long)]
    pub service_account_key_file: Vec<PathBuf>,
    /// Key that signs ServiceAccount tokens, PEM. Required with etcd; a server on its embedded store makes one and keeps
    /// it in --cert-dir by default.
    #[arg(long)]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// Unix socket of a service that signs ServiceAccount tokens and says which keys they are verified with. Excludes
    /// the two flags above.
    #[arg(long)]
    pub service_account_signing_endpoint: Option<PathBuf>,
    /// Whether the objects that tokens were made for must still be there.
    #[arg(long, default_value_t = true)]
    pub service_account_lookup: bool,
    /// The longest life of a token; those that ask for more get this. 0 for no bound.
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub service_account_max_token_expiration: Duration,
    /// Whether tokens of projected volumes live longer than they say.
    #[arg(long, default_value_t = true)]
    pub service_account_extend_token_expiration: bool,
}

impl AccountOptions {
    /// Fills in what a server can find itself whose store is its own: where others share it, they have to agree.
    pub(crate) fn complete(&mut self, shared: bool) {
        if self.service_account_issuer.is_empty() && !shared {
            self.service_account_issuer.push(ISSUER.to_owned());
        }
    }

    /// All that is wrong.
    pub(crate) fn validate(&self, shared: bool) -> Vec<String> {
        let mut problems = Vec::new();
        let elsewhere = self.service_account_signing_endpoint.is_some();
        if shared && self.service_account_signing_key_file.is_none() && !elsewhere {
            problems.push("--service-account-signing-key-file and --service-account-issuer are required flags".into());
        }
        let own = self.service_account_signing_key_file.is_some() || !self.service_account_key_file.is_empty();
        if elsewhere && own {
            problems.push(
                "can't set `--service-account-signing-key-file` and/or `--service-account-key-file` along with \
                 `--service-account-signing-endpoint` (these options are mutually exclusive)"
                    .into(),
            );
        }
        let longest = self.service_account_max_token_expiration;
        if !longest.is_zero() && !LIVES.contains(&longest) {
            problems
                .push("the service-account-max-token-expiration must be between 1 hour and 2^32 seconds".to_owned());
        }
        if self.service_account_issuer.iter().all(String::is_empty) {
            problems.push("service-account-issuer is a required flag".to_owned());
        }
        let uri = &self.service_account_jwks_uri;
        if !uri.is_empty() && !uri.starts_with("https://") {
            problems.push(format!("service-account-jwks-uri requires https scheme, parsed as: {uri}"));
        }
        problems
    }

    /// The longest life of a token, seconds.
    pub(crate) fn longest(&self) -> Option<i64> {
        let longest = self.service_account_max_token_expiration.as_secs();
        i64::try_from(longest).ok().filter(|seconds| *seconds > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        accounts: AccountOptions,
    }

    #[test]
    fn bad_settings_are_refused() {
        for (flag, problem) in [
            ("--service-account-max-token-expiration=59m", "must be between 1 hour"),
            ("--service-account-max-token-expiration=2h", ""),
            ("--service-account-jwks-uri=http://keys", "requires https scheme"),
            ("--service-account-jwks-uri=https://keys", ""),
            ("--service-account-signing-endpoint=/s --service-account-key-file=k", "are mutually exclusive"),
            ("--service-account-signing-endpoint=/s", ""),
        ] {
            let flags = ["x"].into_iter().chain(flag.split(' '));
            let mut accounts = <Flags as clap::Parser>::parse_from(flags).accounts;
            accounts.complete(false);
            let problems = accounts.validate(false);
            assert_eq!(problems.is_empty(), problem.is_empty(), "{flag}: {problems:?}");
            assert!(problems.join(" ").contains(problem), "{flag}: {problems:?}");
        }
    }

    #[test]
    fn servers_on_one_store_have_to_agree() {
        let mut accounts = <Flags as clap::Parser>::parse_from(["x"]).accounts;
        accounts.complete(true);
        assert_eq!(
            accounts.validate(true),
            [
                "--service-account-signing-key-file and --service-account-issuer are required flags",
                "service-account-issuer is a required flag",
            ]
        );
        accounts.complete(false);
        assert_eq!(accounts.service_account_issuer, [ISSUER]);
    }
}
