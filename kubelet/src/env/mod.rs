//! The environment of a container.

mod expand;
pub mod fields;
mod services;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};

pub use expand::expand;

use crate::node::NodeFacts;
use crate::objects::{ObjectError, Objects};
use crate::pods;

/// Why no environment could be built.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvError {
    /// A referenced object.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// A field reference.
    #[error(transparent)]
    Field(#[from] fields::FieldError),
    /// A key that is not in its object.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Namespace.
        namespace: String,
        /// Object name.
        name: String,
        /// Missing key.
        key: String,
    },
    /// A key that is not in its file.
    #[error("environment variable key {key:?} not found in file {path:?}")]
    FileKey {
        /// Missing key.
        key: String,
        /// Path in the volume.
        path: String,
    },
    /// A file that cannot be read.
    #[error("failed to read file {path:?}: {error}")]
    File {
        /// Path in the volume.
        path: String,
        /// Cause.
        error: String,
    },
    /// The API's default is missing.
    #[error("nil pod.spec.enableServiceLinks encountered, cannot construct envvars")]
    ServiceLinks,
}

/// What the environment is built from besides the Pod.
pub struct Inputs<'a> {
    /// Referenced objects.
    pub objects: &'a dyn Objects,
    /// The node.
    pub node: &'a NodeFacts,
    /// The Pod's addresses.
    pub ips: &'a [IpAddr],
    /// Directory with a subdirectory per emptyDir volume of the Pod.
    pub empty_dirs: &'a Path,
}

/// Variables by name: Services, then `envFrom`, then `env`, later ones winning.
pub async fn build(
    pod: &Pod,
    container: &Container,
    inputs: &Inputs<'_>,
) -> Result<BTreeMap<String, String>, EnvError> {
    let mut result = from_objects(pod, container, inputs.objects).await?;
    let services = service_variables(pod, inputs.objects)?;
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(text), _) if !text.is_empty() => {
                Some(expand(text, |name| result.get(name).or_else(|| services.get(name)).cloned()))
            }
            (_, Some(source)) => from_source(pod, container, source, inputs).await?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            result.insert(variable.name.clone(), value);
        }
    }
    for (name, value) in services {
        result.entry(name).or_insert(value);
    }
    Ok(result)
}

fn service_variables(pod: &Pod, objects: &dyn Objects) -> Result<BTreeMap<String, String>, EnvError> {
    let links = match pods::spec(pod).enable_service_links {
        Some(links) => links,
        None if pods::is_static(pod) => true,
        None => return Err(EnvError::ServiceLinks),
    };
    let all = match objects.services() {
        Ok(all) => all,
        Err(_) if pods::is_static(pod) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    Ok(services::variables(all.iter().map(AsRef::as_ref), pods::namespace(pod), links))
}

async fn from_objects(
    pod: &Pod,
    container: &Container,
    objects: &dyn Objects,
) -> Result<BTreeMap<String, String>, EnvError> {
    let namespace = pods::namespace(pod);
    let mut result = BTreeMap::new();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            let map = optional(objects.config_map(namespace, &reference.name).await, reference.optional)?;
            let data = map.iter().flat_map(|map| map.data.iter().flatten());
            result.extend(data.map(|(key, value)| (format!("{prefix}{key}"), value.clone())));
        }
        if let Some(reference) = &from.secret_ref {
            let secret = optional(objects.secret(namespace, &reference.name).await, reference.optional)?;
            let data = secret.iter().flat_map(|secret| secret.data.iter().flatten());
            result.extend(data.map(|(key, value)| (format!("{prefix}{key}"), text(&value.0))));
        }
    }
    Ok(result)
}

fn optional<T>(found: Result<T, ObjectError>, optional: Option<bool>) -> Result<Option<T>, ObjectError> {
    match found {
        Err(error) if error.is_not_found() && optional == Some(true) => Ok(None),
        other => other.map(Some),
    }
}

async fn from_source(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    inputs: &Inputs<'_>,
) -> Result<Option<String>, EnvError> {
    let namespace = pods::namespace(pod);
    let missing = |kind, name: &str, key: &str, optional: Option<bool>| {
        if optional == Some(true) {
            return Ok(None);
        }
        let (namespace, name, key) = (namespace.to_owned(), name.to_owned(), key.to_owned());
        Err(EnvError::Key { kind, namespace, name, key })
    };
    if let Some(selector) = &source.field_ref {
        return Ok(Some(fields::field(pod, selector, inputs.node, inputs.ips)?));
    }
    if let Some(selector) = &source.resource_field_ref {
        return Ok(Some(fields::resource(pod, &container.name, selector, inputs.node)?));
    }
    if let Some(reference) = &source.config_map_key_ref {
        let map = optional(inputs.objects.config_map(namespace, &reference.name).await, reference.optional)?;
        let Some(map) = map else { return Ok(None) };
        return match map.data.as_ref().and_then(|data| data.get(&reference.key)) {
            Some(value) => Ok(Some(value.clone())),
            None => missing("ConfigMap", &reference.name, &reference.key, reference.optional),
        };
    }
    if let Some(reference) = &source.secret_key_ref {
        let secret = optional(inputs.objects.secret(namespace, &reference.name).await, reference.optional)?;
        let Some(secret) = secret else { return Ok(None) };
        return match secret.data.as_ref().and_then(|data| data.get(&reference.key)) {
            Some(value) => Ok(Some(text(&value.0))),
            None => missing("Secret", &reference.name, &reference.key, reference.optional),
        };
    }
    if let Some(reference) = &source.file_key_ref {
        let dir = inputs.empty_dirs.join(&reference.volume_name);
        return from_file(&dir, &reference.path, &reference.key, reference.optional == Some(true));
    }
    Ok(None)
}

/// Secrets are bytes; what is not UTF-8 is shown as replacement characters.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const MAX_ENV_FILE: u64 = 64 * 1024;

fn from_file(dir: &Path, path: &str, key: &str, optional: bool) -> Result<Option<String>, EnvError> {
    let fail = |error: String| EnvError::File { path: path.to_owned(), error };
    let content = match runtime::beneath::read(dir, Path::new(path), MAX_ENV_FILE) {
        Ok(bytes) => text(&bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && optional => return Ok(None),
        Err(error) => return Err(fail(error.to_string())),
    };
    let found = content
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .rfind(|(name, _)| name.trim() == key);
    match found {
        Some((_, value)) => Ok(Some(unquote(value.trim()).to_owned())),
        None if optional => Ok(None),
        None => Err(EnvError::FileKey { key: key.to_owned(), path: path.to_owned() }),
    }
}

fn unquote(value: &str) -> &str {
    for quote in ['\'', '"'] {
        if let Some(inner) = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    value
}
