//! `--encryption-provider-config`: `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`.

use std::{collections::HashSet, path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use base64::{Engine, prelude::BASE64_STANDARD};
use prometheus::Registry;
use runtime::{
    clock::{Clock, RealClock},
    config_file,
    health::{HealthChecks, Scope},
    metrics::Stability,
};
use serde::Deserialize;
use storage::encrypted::{Algorithm, Envelope, Provider, Rules, Sealer, SharedRules};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    kms::{KeyService, KmsMetrics},
    reload::{self, ReloadMetrics},
};

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EncryptionError {
    /// The file cannot be read or decoded.
    #[error("error while parsing file: {0}")]
    File(#[from] config_file::ConfigError),
    /// It says something wrong.
    #[error("{0}")]
    Invalid(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Configuration {
    resources: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    resources: Vec<String>,
    providers: Vec<Choice>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Choice {
    aesgcm: Option<Keys>,
    aescbc: Option<Keys>,
    secretbox: Option<Keys>,
    identity: Option<Identity>,
    kms: Option<Kms>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    name: String,
    secret: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Kms {
    #[serde(default)]
    api_version: String,
    name: String,
    endpoint: String,
    #[serde(default)]
    cachesize: Option<i32>,
    #[serde(default = "three_seconds")]
    timeout: String,
}

fn three_seconds() -> String {
    "3s".to_owned()
}

/// A configuration in use: its rules, and the services that keep its keys.
pub(crate) struct Encryption {
    pub(crate) rules: Rules,
    pub(crate) services: Vec<Arc<KeyService>>,
}

/// Reads a configuration, and asks its services; `prefix` is that of everything stored, without a slash at its end.
pub(crate) async fn load(text: &str, prefix: &str, metrics: &KmsMetrics) -> Result<Encryption, EncryptionError> {
    let encryption = decode(text, prefix, &RealClock::shared())?;
    for service in &encryption.services {
        service.measure(metrics.clone());
        service.start().await.map_err(EncryptionError::Invalid)?;
    }
    Ok(encryption)
}

fn decode(text: &str, prefix: &str, clock: &Arc<dyn Clock>) -> Result<Encryption, EncryptionError> {
    let versions = &["apiserver.config.k8s.io/v1"];
    let configuration: Configuration = config_file::decode(text, versions, "EncryptionConfiguration")?;
    let invalid = |text: String| EncryptionError::Invalid(text);
    if configuration.resources.is_empty() {
        return Err(invalid("resources: Required value: provider config has no resources".into()));
    }
    let (mut rules, mut services) = (Vec::new(), Vec::<Arc<KeyService>>::new());
    let mut names = HashSet::new();
    for (at, entry) in configuration.resources.into_iter().enumerate() {
        let mut sealers: Vec<Sealer> = Vec::new();
        for (which, mut choice) in entry.providers.into_iter().enumerate() {
            let wrong = |why: String| invalid(format!("resources[{at}].providers: {why}"));
            if let Some(kms) = choice.kms.take() {
                let path = format!("resources[{at}].providers[{which}].kms");
                let service = Arc::new(service(&kms, &path, &mut names, clock).map_err(invalid)?);
                sealers.push(Sealer::Envelope(Arc::clone(&service) as Arc<dyn Envelope>));
                services.push(service);
                continue;
            }
            sealers.extend(keys_of(choice).map_err(wrong)?.into_iter().map(Sealer::from));
        }
        if sealers.is_empty() {
            return Err(invalid(format!("resources[{at}].providers: Required value: at least one provider is needed")));
        }
        for resource in &entry.resources {
            rules.extend(prefixes(resource, prefix).into_iter().map(|prefix| (prefix, sealers.clone())));
        }
    }
    Ok(Encryption { rules: Rules::new(rules), services })
}

fn service(kms: &Kms, path: &str, names: &mut HashSet<String>, clock: &Arc<dyn Clock>) -> Result<KeyService, String> {
    let wrong = |field: &str, value: &str, why: &str| format!("{path}.{field}: Invalid value: {value:?}: {why}");
    match kms.api_version.as_str() {
        "v2" => {}
        "" | "v1" => {
            let text = "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead";
            return Err(wrong("apiVersion", "v1", text));
        }
        other => return Err(wrong("apiVersion", other, "unsupported apiVersion, only v2 is supported")),
    }
    if kms.name.is_empty() {
        return Err(format!("{path}.name: Required value: a KMS provider must have a name"));
    }
    if kms.name.contains(':') {
        return Err(wrong("name", &kms.name, "KMS provider name must not contain ':'"));
    }
    if !names.insert(kms.name.clone()) {
        return Err(wrong("name", &kms.name, "invalid KMS provider name, must be unique"));
    }
    if kms.cachesize.is_some() {
        return Err(wrong("cachesize", "", "cachesize is not supported in v2"));
    }
    let timeout = machinery::duration::parse(&kms.timeout).ok().and_then(|parsed| Duration::try_from(parsed).ok());
    let timeout = timeout.filter(|timeout| !timeout.is_zero());
    let timeout = timeout.ok_or_else(|| wrong("timeout", &kms.timeout, "timeout should be a positive value"))?;
    KeyService::new(&kms.name, &kms.endpoint, timeout, Arc::clone(clock))
        .map_err(|why| wrong("endpoint", &kms.endpoint, &why))
}

/// What the flags ask for, in use.
pub(crate) struct InUse {
    rules: SharedRules,
    services: Arc<ArcSwap<Services>>,
    reloads: bool,
}

/// Services that are asked how they are as long as this lives.
#[derive(Default)]
struct Services {
    all: Vec<Arc<KeyService>>,
    _stop: Option<DropGuard>,
}

impl Services {
    fn follow(all: Vec<Arc<KeyService>>) -> Self {
        let stop = CancellationToken::new();
        for service in &all {
            tokio::spawn(Arc::clone(service).follow(stop.clone()));
        }
        Self { all, _stop: Some(stop.drop_guard()) }
    }

    fn health(&self) -> Result<(), String> {
        let wrong: Vec<String> = self.all.iter().filter_map(|service| service.health().err()).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join(", ")) }
    }
}

impl InUse {
    /// Reads the file and, if it is to be followed, reads it again when it changes. `id` names the server.
    pub(crate) async fn start(
        file: &Path,
        prefix: &str,
        reloads: bool,
        (registry, id): (&Registry, &str),
        stop: &CancellationToken,
    ) -> Result<Self, crate::StartError> {
        let text = config_file::read(file).map_err(EncryptionError::File)?;
        let told = KmsMetrics::register(registry, id)?;
        let Encryption { rules, services } = load(&text, prefix, &told).await?;
        let rules = SharedRules::new(rules);
        let services = Arc::new(ArcSwap::from_pointee(Services::follow(services)));
        if reloads {
            let metrics = ReloadMetrics::new(registry, "encryption", Stability::Alpha, id)?;
            let (shared, followed, prefix) = (rules.clone(), Arc::clone(&services), prefix.to_owned());
            reload::follow(file, stop, metrics, move |text| {
                let (rules, services, prefix) = (shared.clone(), Arc::clone(&followed), prefix.clone());
                let told = told.clone();
                Box::pin(async move {
                    let new = load(&text, &prefix, &told).await.map_err(|error| error.to_string())?;
                    rules.replace(new.rules);
                    services.store(Arc::new(Services::follow(new.services)));
                    Ok(())
                })
            })?;
        }
        Ok(Self { rules, services, reloads })
    }

    /// The rules, which follow the file.
    pub(crate) fn rules(&self) -> SharedRules {
        self.rules.clone()
    }

    /// Adds the checks of the services: one for all if the file is followed, else one for each.
    pub(crate) fn add_checks(&self, health: &HealthChecks) {
        if self.reloads {
            let services = Arc::clone(&self.services);
            health.add_to(Scope::ALL, "kms-providers", move || services.load().health());
            return;
        }
        for (at, service) in self.services.load().all.iter().enumerate() {
            let service = Arc::clone(service);
            health.add_to(Scope::ALL, &format!("kms-provider-{at}"), move || service.health());
        }
    }
}

fn keys_of(choice: Choice) -> Result<Vec<Provider>, String> {
    let mut providers = Vec::new();
    for (algorithm, keys) in [
        (Algorithm::AesGcm, choice.aesgcm),
        (Algorithm::AesCbc, choice.aescbc),
        (Algorithm::Secretbox, choice.secretbox),
    ] {
        for key in keys.into_iter().flat_map(|keys| keys.keys) {
            let secret = BASE64_STANDARD.decode(&key.secret);
            let secret = secret.map_err(|_| format!("secret of key {:?} must be base64 encoded", key.name))?;
            providers.push(Provider::new(algorithm, &key.name, secret).map_err(|why| why.to_string())?);
        }
    }
    if choice.identity.is_some() {
        providers.push(Provider::identity());
    }
    match providers.is_empty() {
        true => {
            Err("provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity"
                .into())
        }
        false => Ok(providers),
    }
}

/// Where the objects of `plural[.group]` are stored; `*.group` and `*.*` stand for several.
fn prefixes(resource: &str, prefix: &str) -> Vec<String> {
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    match (plural, group) {
        ("*", "*") => vec![format!("{prefix}/")],
        ("*", group) => {
            let kinds = api::api().kinds().iter().filter(|kind| kind.is_stored() && kind.gvk.group == group);
            let built_in = kinds.map(|kind| format!("{prefix}/{}", api::storage_prefix(group, &kind.plural)));
            let custom = (!group.is_empty()).then(|| format!("{prefix}/{group}/"));
            built_in.chain(custom).collect()
        }
        (plural, group) => {
            let known = api::api().kinds().iter().any(|kind| kind.gvk.group == group && kind.plural == plural);
            vec![match known {
                true => format!("{prefix}/{}", api::storage_prefix(group, plural)),
                false => format!("{prefix}/{group}/{plural}/"),
            }]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_have_places() {
        let of = |resource: &str| prefixes(resource, "/r");
        assert_eq!(of("secrets"), ["/r/secrets/"]);
        assert_eq!(of("services"), ["/r/services/specs/"]);
        assert_eq!(of("deployments.apps"), ["/r/deployments/"]);
        assert_eq!(of("things.example.com"), ["/r/example.com/things/"]);
        assert_eq!(of("*.*"), ["/r/"]);
        assert!(of("*.").contains(&"/r/minions/".to_owned()) && of("*.batch").contains(&"/r/jobs/".to_owned()));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let told = |providers: &str| {
            let text = format!(
                "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: \
                 [secrets]\n  providers:\n{providers}"
            );
            decode(&text, "/r", &RealClock::shared())
                .map(drop)
                .map_err(|error| error.to_string())
                .err()
                .unwrap_or_default()
        };
        assert_eq!(
            told(
                "  - secretbox: {keys: [{name: a, secret: AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=}]}\n  - identity: {}\n"
            ),
            ""
        );
        assert_eq!(
            told("  - aescbc: {keys: [{name: a, secret: AAAA}]}\n"),
            "resources[0].providers: secret is not of the expected length, got 3, expected [16 24 32]"
        );
        assert!(told("  - {}\n").contains("does not contain any of the expected providers"));
        assert!(told("  - aesgcm: {keys: [{name: a, secret: '*'}]}\n").contains("must be base64 encoded"));
        for (kms, wanted) in [
            ("name: a, endpoint: 'unix:///a'", "kms.apiVersion: Invalid value: \"v1\": KMSv1 is deprecated"),
            ("apiVersion: v2, name: 'a:b', endpoint: 'unix:///a'", "KMS provider name must not contain ':'"),
            ("apiVersion: v2, name: a, endpoint: 'http://a'", "unsupported scheme \"http\" for remote KMS provider"),
            ("apiVersion: v2, name: a, endpoint: 'unix:///a', cachesize: 1", "cachesize is not supported in v2"),
            ("apiVersion: v2, name: a, endpoint: 'unix:///a', timeout: 0s", "timeout should be a positive value"),
        ] {
            let all = told(&format!("  - kms: {{{kms}}}\n"));
            assert!(all.contains(wanted), "{all}");
        }
        assert!(told("  - other: {}\n").contains("other"), "unknown fields are errors");
    }
}
