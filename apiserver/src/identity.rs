//! Certificates, keys and who is trusted with which.

use std::{net::IpAddr, sync::Arc};

use generic::authn::{
    Authenticator, TokenAuthenticator,
    bearer::Bearer,
    bootstrap::BootstrapTokens,
    front_proxy::FrontProxy,
    service_account::{ServiceAccountTokens, SigningKey, VerifyingKey},
    token_file::TokenFile,
    x509::X509,
};
use rcgen::KeyPair;
use runtime::{serving::SecureServing, tasks::TaskGroup, tls};

use crate::{StartError, options::Options, resources::Resources};

/// Names of the `kubernetes` Service.
const NAMES: [&str; 4] =
    ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];

/// Keys of ServiceAccount tokens, and who signs client certificates.
pub(crate) struct Identity {
    pub(crate) signing_key: Arc<SigningKey>,
    pub(crate) keys_pem: Vec<Vec<u8>>,
    pub(crate) client_ca: Option<Vec<u8>>,
}

/// Loads what the flags name, and makes what they leave out.
pub(crate) fn load(options: &Options) -> Result<Identity, StartError> {
    let signing_file = match &options.service_account_signing_key_file {
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
    let mut keys_pem = vec![signing_pem.clone()];
    for file in &options.service_account_key_file {
        keys_pem.push(tls::read(file)?);
    }
    let client_ca = options.client_ca_file.as_deref().map(tls::read).transpose()?;
    Ok(Identity { signing_key: Arc::new(SigningKey::from_pem(&signing_pem)?), keys_pem, client_ca })
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
    pub(crate) keys: Vec<VerifyingKey>,
}

/// Sets up authentication as the flags say.
pub(crate) fn authentication(
    options: &Options,
    identity: &Identity,
    resources: &Resources,
    audiences: &[String],
    tasks: &TaskGroup,
) -> Result<Authentication, StartError> {
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
        all.push(Arc::new(X509 { authorities: tls::watch_bundle(file, tasks)? }));
    }
    let mut tokens: Vec<Arc<dyn TokenAuthenticator>> = Vec::new();
    if let Some(file) = &options.token_auth_file {
        let text = tls::read(file)?;
        tokens.push(Arc::new(TokenFile::parse(&String::from_utf8_lossy(&text))?));
    }
    tokens.push(Arc::new(ServiceAccountTokens {
        keys: verifying_keys(identity)?,
        issuers: options.service_account_issuer.clone(),
        audiences: audiences.to_vec(),
        service_accounts: resources.get("", "serviceaccounts")?,
        pods: resources.get("", "pods")?,
        secrets: resources.get("", "secrets")?,
        nodes: resources.get("", "nodes")?,
    }));
    if options.enable_bootstrap_token_auth {
        tokens.push(Arc::new(BootstrapTokens { secrets: resources.get("", "secrets")? }));
    }
    let bearer = Arc::new(Bearer(tokens));
    all.push(Arc::clone(&bearer) as Arc<dyn Authenticator>);
    Ok(Authentication { authenticators: all, bearer, keys: verifying_keys(identity)? })
}

fn verifying_keys(identity: &Identity) -> Result<Vec<VerifyingKey>, StartError> {
    let mut keys = Vec::new();
    for pem in &identity.keys_pem {
        keys.extend(VerifyingKey::from_pem(pem)?);
    }
    Ok(keys)
}
