//! `--encryption-provider-config`: `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`.

use std::path::Path;

use base64::{Engine, prelude::BASE64_STANDARD};
use runtime::config_file;
use serde::Deserialize;
use storage::encrypted::{Algorithm, Provider, Rules};

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
    kms: Option<serde_json::Value>,
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

/// Reads a configuration; `prefix` is that of everything stored, without a slash at its end.
pub(crate) fn read(path: &Path, prefix: &str) -> Result<Rules, EncryptionError> {
    rules(&config_file::read(path)?, prefix)
}

fn rules(text: &str, prefix: &str) -> Result<Rules, EncryptionError> {
    let versions = &["apiserver.config.k8s.io/v1"];
    let configuration: Configuration = config_file::decode(text, versions, "EncryptionConfiguration")?;
    let invalid = |text: String| EncryptionError::Invalid(text);
    if configuration.resources.is_empty() {
        return Err(invalid("resources: Required value: provider config has no resources".into()));
    }
    let mut rules = Vec::new();
    for (at, entry) in configuration.resources.into_iter().enumerate() {
        let mut providers = Vec::new();
        for choice in entry.providers {
            providers.extend(keys_of(choice).map_err(|why| invalid(format!("resources[{at}].providers: {why}")))?);
        }
        if providers.is_empty() {
            return Err(invalid(format!("resources[{at}].providers: Required value: at least one provider is needed")));
        }
        for resource in &entry.resources {
            rules.extend(prefixes(resource, prefix).into_iter().map(|prefix| (prefix, providers.clone())));
        }
    }
    Ok(Rules::new(rules))
}

fn keys_of(choice: Choice) -> Result<Vec<Provider>, String> {
    if choice.kms.is_some() {
        return Err("kms providers are not supported".into());
    }
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
            rules(&text, "/r").map(drop).map_err(|error| error.to_string()).err().unwrap_or_default()
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
        assert!(told("  - other: {}\n").contains("other"), "unknown fields are errors");
    }
}
