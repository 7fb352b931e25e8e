//! Certificates, keys and who is trusted with which.

use std::{net::IpAddr, sync::Arc};

use generic::{
    authn::{
        Authenticator, TokenAuthenticator,
        bearer::Bearer,
        bootstrap::BootstrapTokens,
        front_proxy::FrontProxy,
        jwt::{
            self, JwtAuthenticators,
            config::{self, AuthenticationConfiguration},
        },
        service_account::{FixedKeys, ServiceAccountTokens, SigningKey, TokenKeys, TokenSigner, VerifyingKey},
        token_file::TokenFile,
        webhook::TokenWebhook,
        x509::X509,
    },
    remote::Remote,
};
use rcgen::KeyPair;
use runtime::{
    Registry, Runtime, clock::RealClock, config_file, metrics::Stability, serving::SecureServing, tasks::TaskGroup, tls,
};
use tokio_util::sync::CancellationToken;

use crate::{
    StartError,
    external_signer::ExternalSigner,
    options::Options,
    reload::{self, ReloadMetrics, shown},
    resources::Resources,
};

/// Names of the `kubernetes` Service.
const NAMES: [&str; 4] =
    ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];

/// Paths that may be read without credentials.
const ANONYMOUS_PATHS: [&str; 8] = [
    "/livez",
    "/livez/*",
    "/readyz",
    "/readyz/*",
    "/healthz",
    "/version",
    "/version/",
    "/api/v1/namespaces/kube-public/configmaps/cluster-info",
];

/// Keys of ServiceAccount tokens, and who signs client certificates.
pub(crate) struct Identity {
    pub(crate) signer: Arc<dyn TokenSigner>,
    pub(crate) keys: Arc<dyn TokenKeys>,
    pub(crate) client_ca: Option<Vec<u8>>,
}

/// Loads what the flags name, and makes what they leave out. Who signs elsewhere may bound the life of tokens.
pub(crate) async fn load(
    options: &mut Options,
    registry: &Registry,
    stop: &CancellationToken,
) -> Result<Identity, StartError> {
    let client_ca = options.client_ca_file.as_deref().map(tls::read).transpose()?;
    let accounts = &mut options.accounts;
    let Some(socket) = accounts.service_account_signing_endpoint.clone() else {
        let (signer, keys) = own_keys(options)?;
        return Ok(Identity { signer: Arc::new(signer), keys: Arc::new(FixedKeys::new(keys)), client_ca });
    };
    let wanted = accounts.service_account_max_token_expiration;
    let (signer, longest) = ExternalSigner::start(socket, wanted, registry, stop).await?;
    accounts.service_account_max_token_expiration = longest;
    Ok(Identity { signer: Arc::clone(&signer) as Arc<dyn TokenSigner>, keys: signer, client_ca })
}

/// The key that signs, and all that verify.
fn own_keys(options: &Options) -> Result<(SigningKey, Vec<VerifyingKey>), StartError> {
    let signing_file = match &options.accounts.service_account_signing_key_file {
        Some(file) => file.clone(),
        None => {
            let file = options.serving.cert_dir.join("service-account.key");
            if !file.exists() {
                let key = KeyPair::generate().map_err(|e| StartError::Flags(e.to_string()))?;
                tls::write_private(&file, key.serialize_pem().as_bytes())?;
            }
            file
        }
    };
    let signing_pem = tls::read(&signing_file)?;
    let mut keys = VerifyingKey::from_pem(&signing_pem)?;
    let files = &options.accounts.service_account_key_file;
    let by_default = options.serving.tls_private_key_file.iter().filter(|_| files.is_empty());
    for file in files.iter().chain(by_default) {
        keys.extend(VerifyingKey::from_pem(&tls::read(file)?)?);
    }
    Ok((SigningKey::from_pem(&signing_pem)?, keys))
}

/// Binds the secure port. A certificate that is made here is for the names of the `kubernetes` Service and for the
/// addresses that the server is reached at.
pub(crate) fn bind(
    options: &Options,
    advertise: IpAddr,
    service_ip: IpAddr,
    tasks: &TaskGroup,
) -> Result<SecureServing, StartError> {
    let names = NAMES.map(str::to_owned);
    let addresses = [advertise, service_ip, IpAddr::from([127, 0, 0, 1])];
    Ok(SecureServing::bind_to(&options.serving, options.listen(), "apiserver", &names, &addresses, tasks)?)
}

/// Who finds out who asks.
pub(crate) struct Authentication {
    /// The authenticators in upstream's order.
    pub(crate) authenticators: Vec<Arc<dyn Authenticator>>,
    /// The token resolver, for TokenReviews.
    pub(crate) bearer: Arc<Bearer>,
    /// Keys of ServiceAccount tokens.
    pub(crate) keys: Arc<dyn TokenKeys>,
    /// Paths that need no credentials.
    pub(crate) anonymous: Vec<String>,
}

/// What authentication is set up in.
pub(crate) struct Context<'a> {
    pub(crate) registry: &'a Registry,
    /// Names the server.
    pub(crate) id: &'a str,
    pub(crate) stop: &'a CancellationToken,
    pub(crate) runtime: &'a Runtime,
}

/// Sets up authentication as the flags say.
pub(crate) async fn authentication(
    options: &Options,
    identity: &Identity,
    resources: &Resources,
    audiences: &[String],
    context: &Context<'_>,
) -> Result<Authentication, StartError> {
    let tasks = &context.runtime.tasks;
    let mut all: Vec<Arc<dyn Authenticator>> = Vec::new();
    if let Some(file) = &options.requestheader_client_ca_file {
        let lower = |names: &[String]| names.iter().map(|n| n.to_lowercase()).collect::<Vec<_>>();
        all.push(Arc::new(FrontProxy {
            authorities: tls::watch_bundle(file, tasks)?,
            allowed_names: options.requestheader_allowed_names.clone(),
            username_headers: lower(&options.requestheader_username_headers),
            uid_headers: lower(&options.requestheader_uid_headers),
            group_headers: lower(&options.requestheader_group_headers),
            extra_prefixes: lower(&options.requestheader_extra_headers_prefix),
        }));
    }
    if let Some(file) = &options.client_ca_file {
        let expirations = runtime::metrics::certificate_expirations(context.registry)?;
        all.push(Arc::new(X509 { authorities: tls::watch_bundle(file, tasks)?, expirations }));
    }
    let mut tokens: Vec<Arc<dyn TokenAuthenticator>> = Vec::new();
    if let Some(file) = &options.token_auth_file {
        let text = tls::read(file)?;
        tokens.push(Arc::new(TokenFile::parse(&String::from_utf8_lossy(&text))?));
    }
    tokens.push(Arc::new(ServiceAccountTokens {
        keys: Arc::clone(&identity.keys),
        issuers: options.accounts.service_account_issuer.clone(),
        audiences: audiences.to_vec(),
        service_accounts: resources.get("", "serviceaccounts")?,
        pods: resources.get("", "pods")?,
        secrets: resources.get("", "secrets")?,
        nodes: resources.get("", "nodes")?,
        lookup: options.accounts.service_account_lookup,
    }));
    if options.enable_bootstrap_token_auth {
        tokens.push(Arc::new(BootstrapTokens { secrets: resources.get("", "secrets")? }));
    }
    let (issuers, anonymous) = issuers(options, audiences, context)?;
    tokens.extend(issuers.map(|issuers| issuers as Arc<dyn TokenAuthenticator>));
    if let Some(file) = &options.authentication.authentication_token_webhook_config_file {
        let flags = &options.authentication;
        let remote = Remote::of_kubeconfig(file).await.map_err(|error| StartError::Flags(error.to_string()))?;
        let (version, ttl) =
            (&flags.authentication_token_webhook_version, flags.authentication_token_webhook_cache_ttl);
        tokens.push(Arc::new(TokenWebhook::new(remote, version, audiences, ttl, RealClock::shared())));
    }
    let bearer = Arc::new(Bearer(tokens));
    all.push(Arc::clone(&bearer) as Arc<dyn Authenticator>);
    Ok(Authentication { authenticators: all, bearer, keys: Arc::clone(&identity.keys), anonymous })
}

fn decode_authentication(text: &str) -> Result<AuthenticationConfiguration, String> {
    config_file::decode(text, &config::VERSIONS, config::KIND).map_err(|error| error.to_string())
}

type Issuers = (Option<Arc<JwtAuthenticators>>, Vec<String>);

/// Issuers of JSON web tokens as flags or the file say, and the paths that need no credentials. The issuers of the file
/// are followed.
fn issuers(options: &Options, audiences: &[String], context: &Context<'_>) -> Result<Issuers, StartError> {
    let flags = |why: String| StartError::Flags(why);
    let (own, clock) = (options.accounts.service_account_issuer.clone(), RealClock::shared());
    let anonymous = options.anonymous_auth && !options.authorization.allows_everything();
    if anonymous != options.anonymous_auth {
        tracing::warn!(
            "AnonymousAuth is not allowed with the AlwaysAllow authorizer. Resetting AnonymousAuth to false. You should \
             use a different authorizer"
        );
    }
    let default: &[&str] = if anonymous { &ANONYMOUS_PATHS } else { &[] };
    let default: Vec<String> = default.iter().map(|path| (*path).to_owned()).collect();
    let Some(file) = &options.authentication.authentication_config else {
        let authorities =
            options.authentication.oidc_ca_file.as_deref().map(tls::read).transpose()?.unwrap_or_default();
        let authorities = String::from_utf8_lossy(&authorities).into_owned();
        let Some(config) = options.authentication.configuration(authorities) else { return Ok((None, default)) };
        let algorithms = jwt::algorithms(&options.authentication.oidc_signing_algs).map_err(flags)?;
        let issuers = JwtAuthenticators::new(&config, &own, &algorithms, audiences, &clock);
        return Ok((Some(Arc::new(issuers.map_err(|errors| flags(shown(&errors)))?)), default));
    };
    let text = config_file::read(file).map_err(|error| flags(error.to_string()))?;
    let config = decode_authentication(&text).map_err(flags)?;
    let issuers = JwtAuthenticators::new(&config, &own, &[], audiences, &clock);
    let issuers = Arc::new(issuers.map_err(|errors| flags(shown(&errors)))?);
    let anonymous = match config.anonymous {
        None => default,
        Some(_) if context.runtime.flags.iter().any(|flag| flag.name == "anonymous-auth" && flag.given) => {
            let text = "--anonymous-auth flag cannot be set when anonymous field is configured in authentication \
                        configuration file";
            return Err(flags(text.into()));
        }
        Some(anonymous) if !anonymous.enabled => Vec::new(),
        Some(anonymous) if anonymous.conditions.is_empty() => vec!["*".into()],
        Some(anonymous) => anonymous.conditions.into_iter().map(|condition| condition.path).collect(),
    };
    let metrics = ReloadMetrics::new(context.registry, "authentication", Stability::Beta, context.id)?;
    let shared = Arc::clone(&issuers);
    reload::follow(file, context.stop, metrics, move |text| {
        let replaced = decode_authentication(&text)
            .and_then(|config| shared.replace(&config, &own, &[], &clock).map_err(|errors| shown(&errors)));
        Box::pin(std::future::ready(replaced))
    })?;
    Ok((Some(issuers), anonymous))
}
