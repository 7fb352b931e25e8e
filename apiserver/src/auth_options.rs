//! Flags about who asks and what they may do.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use generic::{
    authn::jwt::{
        self,
        config::{AuthenticationConfiguration, ClaimMappings, ClaimRule, Issuer, JwtAuthenticator, Mapping},
    },
    authz::config::{AuthorizerConfig, ConnectionInfo, WebhookConfig},
};
use runtime::flags::duration;

/// Time that a webhook has by the flags.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// The mode that asks nobody.
const ALLOW: &str = "AlwaysAllow";

/// Flags of authentication by others.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Authentication flags")]
pub struct AuthenticationOptions {
    /// File with the issuers of JSON web tokens and with where requests need no credentials.
    #[arg(long)]
    pub authentication_config: Option<PathBuf>,
    /// kubeconfig of a webhook that knows tokens.
    #[arg(long)]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// Version of the TokenReviews that it gets.
    #[arg(long, default_value = "v1beta1")]
    pub authentication_token_webhook_version: String,
    /// How long its answers hold.
    #[arg(long, default_value = "2m0s", value_parser = duration)]
    pub authentication_token_webhook_cache_ttl: Duration,
    /// Issuer of OpenID tokens, an https URL.
    #[arg(long, default_value = "")]
    pub oidc_issuer_url: String,
    /// Audience of OpenID tokens.
    #[arg(long, default_value = "")]
    pub oidc_client_id: String,
    /// Authorities of the issuer's server; those of the system by default.
    #[arg(long)]
    pub oidc_ca_file: Option<PathBuf>,
    /// Claim that is the user name.
    #[arg(long, default_value = "sub")]
    pub oidc_username_claim: String,
    /// What is put in front of user names; - for nothing.
    #[arg(long, default_value = "")]
    pub oidc_username_prefix: String,
    /// Claim that is the groups.
    #[arg(long, default_value = "")]
    pub oidc_groups_claim: String,
    /// What is put in front of groups.
    #[arg(long, default_value = "")]
    pub oidc_groups_prefix: String,
    /// Algorithms that OpenID tokens may be signed by.
    #[arg(long, value_delimiter = ',', default_value = "RS256")]
    pub oidc_signing_algs: Vec<String>,
    /// Claims that OpenID tokens must have, key=value.
    #[arg(long, value_delimiter = ',')]
    pub oidc_required_claim: Vec<String>,
}

impl AuthenticationOptions {
    fn names_issuer(&self) -> bool {
        !self.oidc_issuer_url.is_empty() || !self.oidc_client_id.is_empty()
    }

    /// All that is wrong.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.oidc_issuer_url.is_empty() != self.oidc_client_id.is_empty() {
            problems.push(
                "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set".into(),
            );
        }
        if self.authentication_config.is_some() && self.names_issuer() {
            problems.push("authentication-config file and oidc-* flags are mutually exclusive".into());
        }
        problems.extend(jwt::algorithms(&self.oidc_signing_algs).err());
        for claim in self.oidc_required_claim.iter().filter(|claim| !claim.contains('=')) {
            problems.push(format!(
                "invalid argument {claim:?} for \"--oidc-required-claim\" flag: must be formatted as key=value"
            ));
        }
        if !matches!(self.authentication_token_webhook_version.as_str(), "v1" | "v1beta1") {
            problems
                .push(format!("unsupported version {:?} of TokenReviews", self.authentication_token_webhook_version));
        }
        problems
    }

    /// The configuration that the flags stand for, with the authorities of the issuer (PEM).
    pub(crate) fn configuration(&self, authorities: String) -> Option<AuthenticationConfiguration> {
        if !self.names_issuer() {
            return None;
        }
        let prefix = match self.oidc_username_prefix.as_str() {
            "-" => String::new(),
            "" if self.oidc_username_claim != "email" => format!("{}#", self.oidc_issuer_url),
            prefix => prefix.to_owned(),
        };
        let claim = |claim: &str, prefix: &str| Mapping {
            claim: claim.to_owned(),
            prefix: (!claim.is_empty()).then(|| prefix.to_owned()),
            expression: String::new(),
        };
        let required = self.oidc_required_claim.iter().filter_map(|text| text.split_once('='));
        let rule = |(name, value): (&str, &str)| ClaimRule {
            claim: name.to_owned(),
            required_value: value.to_owned(),
            ..ClaimRule::default()
        };
        let jwt = JwtAuthenticator {
            issuer: Issuer {
                url: self.oidc_issuer_url.clone(),
                certificate_authority: authorities,
                audiences: vec![self.oidc_client_id.clone()],
                ..Issuer::default()
            },
            claim_validation_rules: required.map(rule).collect(),
            claim_mappings: ClaimMappings {
                username: claim(&self.oidc_username_claim, &prefix),
                groups: claim(&self.oidc_groups_claim, &self.oidc_groups_prefix),
                ..ClaimMappings::default()
            },
            user_validation_rules: Vec::new(),
        };
        Some(AuthenticationConfiguration { jwt: vec![jwt], anonymous: None })
    }
}

fn quoted(texts: &[String]) -> String {
    texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(" ")
}

/// Flags of authorization.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Authorization flags")]
pub struct AuthorizationOptions {
    /// Authorizers in order: Node, RBAC, ABAC, Webhook, AlwaysAllow, AlwaysDeny. AlwaysAllow unless
    /// there is a file.
    #[arg(long, value_delimiter = ',')]
    pub authorization_mode: Vec<String>,
    /// File with the authorizers.
    #[arg(long)]
    pub authorization_config: Option<PathBuf>,
    /// File with the policies of mode ABAC, one a line.
    #[arg(long)]
    pub authorization_policy_file: Option<PathBuf>,
    /// kubeconfig of the webhook of mode Webhook.
    #[arg(long)]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// Version of the SubjectAccessReviews that it gets.
    #[arg(long, default_value = "v1beta1")]
    pub authorization_webhook_version: String,
    /// How long "allowed" of it holds.
    #[arg(long, default_value = "5m0s", value_parser = duration)]
    pub authorization_webhook_cache_authorized_ttl: Duration,
    /// How long its other answers hold.
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub authorization_webhook_cache_unauthorized_ttl: Duration,
}

impl AuthorizationOptions {
    /// All that is wrong.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let modes = &self.authorization_mode;
        if self.authorization_config.is_some()
            && (!modes.is_empty() || self.authorization_webhook_config_file.is_some())
        {
            problems.push(
                "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* \
                 flags are defined"
                    .into(),
            );
            return problems;
        }
        for (at, mode) in modes.iter().enumerate() {
            if modes[..at].contains(mode) {
                problems.push(format!("authorization-mode [{}] has mode specified more than once", quoted(modes)));
            }
            if !matches!(mode.as_str(), "ABAC" | "AlwaysAllow" | "AlwaysDeny" | "Node" | "RBAC" | "Webhook") {
                problems.push(format!("authorization-mode {mode:?} is not a valid mode"));
            }
        }
        if modes.len() > 1 && modes.iter().any(|mode| mode == "AlwaysAllow") {
            problems.push("AlwaysAllow is not accepted together with other modes".into());
        }
        if !matches!(self.authorization_webhook_version.as_str(), "v1" | "v1beta1") {
            problems
                .push(format!("unsupported version {:?} of SubjectAccessReviews", self.authorization_webhook_version));
        }
        match (modes.iter().any(|mode| mode == "ABAC"), &self.authorization_policy_file) {
            (true, None) => problems.push("authorization-mode ABAC's authorization policy file not passed".into()),
            (false, Some(_)) => {
                problems.push("cannot specify --authorization-policy-file without mode ABAC".into());
            }
            _ => {}
        }
        let asks = modes.iter().any(|mode| mode == "Webhook");
        match (asks, &self.authorization_webhook_config_file) {
            (true, None) => {
                problems.push("authorization-mode Webhook needs --authorization-webhook-config-file".into())
            }
            (false, Some(_)) => {
                problems.push("cannot specify --authorization-webhook-config-file without mode Webhook".into())
            }
            _ => {}
        }
        problems
    }

    /// Whether everybody may do everything.
    pub(crate) fn allows_everything(&self) -> bool {
        self.authorization_config.is_none()
            && (self.authorization_mode.is_empty() || self.authorization_mode.iter().any(|mode| mode == ALLOW))
    }

    /// The authorizers that the flags stand for.
    pub(crate) fn authorizers(&self) -> Vec<AuthorizerConfig> {
        let default = [ALLOW.to_owned()];
        let modes = if self.authorization_mode.is_empty() { &default[..] } else { &self.authorization_mode };
        let webhook = || WebhookConfig {
            authorized_ttl: self.authorization_webhook_cache_authorized_ttl,
            unauthorized_ttl: self.authorization_webhook_cache_unauthorized_ttl,
            timeout: WEBHOOK_TIMEOUT,
            subject_access_review_version: self.authorization_webhook_version.clone(),
            failure_policy: "NoOpinion".into(),
            connection_info: ConnectionInfo {
                kind: "KubeConfigFile".into(),
                kube_config_file: self.authorization_webhook_config_file.clone(),
            },
            ..WebhookConfig::default()
        };
        let of = |mode: &String| AuthorizerConfig {
            kind: mode.clone(),
            name: if mode == "Webhook" { "default".into() } else { mode.to_lowercase() },
            webhook: (mode == "Webhook").then(webhook),
        };
        modes.iter().map(of).collect()
    }
}
