//! Credential providers: programs that know the credentials of some registries.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::credentials::{Keyring, matches, pattern};
use super::{Credential, Reference};
use crate::config::Span;
use crate::metrics::METRICS;
use crate::platform::{Program, run_program};

const CONFIG_VERSION: &str = "kubelet.config.k8s.io/v1";
const VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";
const DEADLINE: Duration = Duration::from_secs(60);
const MAX_ANSWER: u64 = 1 << 20;
/// Answers that are kept; more than a node has registries.
const REMEMBERED: usize = 1024;

/// A configuration that cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("failed to register CRI auth plugins: {0}")]
pub struct ProviderError(String);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Config {
    api_version: String,
    kind: String,
    providers: Vec<Provider>,
}

/// One program and the images it is for.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Provider {
    name: String,
    match_images: Vec<String>,
    default_cache_duration: Option<String>,
    api_version: String,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<Variable>,
    #[serde(default)]
    token_attributes: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    kind: &'static str,
    api_version: &'static str,
    image: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    kind: String,
    api_version: String,
    cache_key_type: String,
    cache_duration: Option<String>,
    #[serde(default)]
    auth: BTreeMap<String, Login>,
}

#[derive(Deserialize)]
struct Login {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// Provider, and what its answer is for: an image, a registry, or anything.
type Key = (String, String);

/// All programs of the node.
pub struct Providers {
    dir: PathBuf,
    all: Vec<Provider>,
    answers: Mutex<HashMap<Key, (Instant, Keyring)>>,
}

impl Providers {
    /// Reads a configuration file; every program must be in the directory.
    pub fn read(file: &Path, dir: &Path) -> Result<Self, ProviderError> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| ProviderError(format!("unable to read {}: {error}", file.display())))?;
        let providers = Self::parse(&text, dir)?;
        let hash = format!("sha256:{}", hex::encode(Sha256::digest(text.as_bytes())));
        METRICS.images.provider_config.with_label_values(&[&hash]).set(1);
        Ok(providers)
    }

    fn parse(text: &str, dir: &Path) -> Result<Self, ProviderError> {
        let wrong = |text: String| Err(ProviderError(text));
        let config: Config = serde_yaml::from_str(text).map_err(|error| ProviderError(error.to_string()))?;
        if config.kind != "CredentialProviderConfig" || config.api_version != CONFIG_VERSION {
            return wrong(format!("no kind {:?} is registered for version {:?}", config.kind, config.api_version));
        }
        if config.providers.is_empty() {
            return wrong("at least 1 item in plugins is required".to_owned());
        }
        let mut names = Vec::new();
        for provider in &config.providers {
            let name = provider.name.as_str();
            if name.is_empty() || name.contains(['/', ' ']) || matches!(name, "." | "..") || names.contains(&name) {
                return wrong(format!("provider name {name:?} is empty, duplicate or not a file name"));
            }
            names.push(name);
            if provider.match_images.is_empty() {
                return wrong(format!("at least one match image is required for provider {name}"));
            }
            if provider.api_version != VERSION {
                return wrong(format!("unsupported apiVersion {:?} of provider {name}", provider.api_version));
            }
            match provider.default_cache_duration.as_deref().map(Span::parse) {
                Some(Ok(_)) => {}
                Some(Err(problem)) => return wrong(format!("defaultCacheDuration of provider {name}: {problem}")),
                None => return wrong(format!("defaultCacheDuration is required for provider {name}")),
            }
            if provider.token_attributes.is_some() {
                return wrong(format!("tokenAttributes of provider {name} are not supported"));
            }
            let path = dir.join(name);
            if !path.is_file() {
                return wrong(format!("plugin binary executable {} did not exist", path.display()));
            }
        }
        Ok(Self { dir: dir.to_owned(), all: config.providers, answers: Mutex::default() })
    }

    /// Credentials for an image, from every provider that is for it. A provider that fails has none.
    pub async fn lookup(&self, image: &Reference) -> Vec<Credential> {
        let target = match &image.domain {
            Some(domain) => format!("{domain}/{}", image.path),
            None => format!("docker.io/{}", image.path),
        };
        let mut found = Vec::new();
        for provider in &self.all {
            if !provider.match_images.iter().any(|one| matches(&pattern(one), &target)) {
                continue;
            }
            match self.ask(provider, &image.normalized, &target).await {
                Ok(ring) => found.extend(ring.lookup(image)),
                Err(error) => {
                    METRICS.images.provider_errors.with_label_values(&[&provider.name]).inc();
                    tracing::error!(provider = provider.name, error, "failed getting credential");
                }
            }
        }
        found
    }

    async fn ask(&self, provider: &Provider, image: &str, target: &str) -> Result<Keyring, String> {
        let registry = target.split('/').next().unwrap_or_default().to_owned();
        let now = Instant::now();
        for key in [image, registry.as_str(), ""] {
            let key = (provider.name.clone(), key.to_owned());
            if let Some((until, ring)) = self.answers.lock().get(&key)
                && *until > now
            {
                return Ok(ring.clone());
            }
        }
        let request = Request { kind: "CredentialProviderRequest", api_version: VERSION, image };
        let input = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
        let path = self.dir.join(&provider.name);
        let env = provider.env.iter().map(|one| (one.name.clone(), one.value.clone())).collect();
        let program = Program { path: &path, args: &provider.args, env: &env, deadline: DEADLINE, limit: MAX_ANSWER };
        let output = run_program(program, &input).await;
        let elapsed = now.elapsed().as_secs_f64();
        METRICS.images.provider_duration.with_label_values(&[&provider.name]).observe(elapsed);
        let output = output.map_err(|error| error.to_string())?;
        // What it says may hold secrets: errors about it name none of it.
        let answer: Answer = serde_json::from_slice(&output).map_err(|_| "the answer cannot be read".to_owned())?;
        self.keep(provider, answer, image, &registry)
    }

    fn keep(&self, provider: &Provider, answer: Answer, image: &str, registry: &str) -> Result<Keyring, String> {
        if answer.kind != "CredentialProviderResponse" || answer.api_version != VERSION {
            return Err(format!("unexpected response kind {:?} {:?}", answer.api_version, answer.kind));
        }
        let key = match answer.cache_key_type.as_str() {
            "Image" => image,
            "Registry" => registry,
            "Global" => "",
            other => return Err(format!("credential provider returned unsupported cacheKeyType {other:?}")),
        };
        let logins =
            answer.auth.into_iter().map(|(registry, one)| (registry, Credential::new(one.username, one.password)));
        let ring = Keyring::of(logins);
        let duration = answer.cache_duration.or_else(|| provider.default_cache_duration.clone()).unwrap_or_default();
        let duration = Span::parse(&duration).map_or(Duration::ZERO, |span| span.0);
        if !duration.is_zero() {
            let mut answers = self.answers.lock();
            let now = Instant::now();
            answers.retain(|_, (until, _)| *until > now);
            if answers.len() < REMEMBERED {
                answers.insert((provider.name.clone(), key.to_owned()), (now + duration, ring.clone()));
            }
        }
        Ok(ring)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::images::parse;

    const CONFIG: &str = "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n\
        - {name: helper, matchImages: ['*.reg.test'], defaultCacheDuration: 10m, \
        apiVersion: credentialprovider.kubelet.k8s.io/v1, args: [get], env: [{name: WHO, value: bob}]}\n";

    fn program(dir: &Path) {
        let path = dir.join("helper");
        let script = "#!/bin/sh\ncat >>\"$(dirname \"$0\")/requests\"; echo >>\"$(dirname \"$0\")/requests\"\n\
            echo '{\"kind\":\"CredentialProviderResponse\",\"apiVersion\":\"credentialprovider.kubelet.k8s.io/v1\",\
            \"cacheKeyType\":\"Registry\",\"auth\":{\"*.reg.test\":{\"username\":\"'$WHO-$1'\",\"password\":\"x\"}}}'\n";
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn programs_are_asked_once_for_a_registry() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Providers::parse(CONFIG, dir.path()).err().unwrap().to_string();
        assert!(missing.ends_with("helper did not exist"), "{missing}");
        program(dir.path());
        let providers = Providers::parse(CONFIG, dir.path()).unwrap();
        for image in ["a.reg.test/x", "a.reg.test/y"] {
            let found = providers.lookup(&parse(image).unwrap()).await;
            assert_eq!(found, [Credential::new("bob-get".into(), "x".into())], "{image}");
        }
        assert!(providers.lookup(&parse("other.test/x").unwrap()).await.is_empty());
        let requests = std::fs::read_to_string(dir.path().join("requests")).unwrap();
        assert_eq!(requests.lines().count(), 1, "{requests}");
        assert!(requests.contains(r#""image":"a.reg.test/x:latest""#), "{requests}");
    }

    #[test]
    fn configurations_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        program(dir.path());
        for (from, to) in [
            ("kind: Cred", "kind: Bred"),
            ("name: helper", "name: a/b"),
            ("matchImages: ['*.reg.test']", "matchImages: []"),
            ("defaultCacheDuration: 10m, ", ""),
            ("k8s.io/v1,", "k8s.io/v1beta1,"),
            ("args:", "arg:"),
        ] {
            assert!(CONFIG.contains(from), "{from}");
            assert!(Providers::parse(&CONFIG.replace(from, to), dir.path()).is_err(), "{to}");
        }
    }
}
