//! Files of configMap, secret, downwardAPI and projected volumes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, Pod, ProjectedVolumeSource, ServiceAccountTokenProjection, VolumeProjection,
};

use super::atomic::{File, Payload};
use super::tokens::Tokens;
use crate::env::fields;
use crate::node::NodeFacts;
use crate::objects::{ObjectError, Objects};
use crate::pods;

const DEFAULT_MODE: i32 = 0o644;
const TOKEN_MODE: u32 = 0o600;

/// What payloads are made from.
pub(super) struct Sources<'a> {
    pub pod: &'a Pod,
    pub objects: &'a dyn Objects,
    pub tokens: &'a Tokens,
    pub node: &'a NodeFacts,
}

/// How absent objects and keys of one kind are worded.
#[derive(Clone, Copy)]
enum Kind {
    ConfigMap,
    Secret,
}

impl Sources<'_> {
    pub(super) async fn config_map(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: Option<i32>,
        optional: Option<bool>,
    ) -> Result<Payload, String> {
        let found = self.objects.config_map(pods::namespace(self.pod), name).await;
        let Some(map) = absent_is_fine(found, optional)? else { return Ok(Payload::new()) };
        let mut data: BTreeMap<&str, &[u8]> = BTreeMap::new();
        data.extend(map.data.iter().flatten().map(|(key, text)| (key.as_str(), text.as_bytes())));
        data.extend(map.binary_data.iter().flatten().map(|(key, bytes)| (key.as_str(), bytes.0.as_slice())));
        select(&data, items, mode, optional, Kind::ConfigMap)
    }

    pub(super) async fn secret(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        mode: Option<i32>,
        optional: Option<bool>,
    ) -> Result<Payload, String> {
        let found = self.objects.secret(pods::namespace(self.pod), name).await;
        let Some(secret) = absent_is_fine(found, optional)? else { return Ok(Payload::new()) };
        let data = secret.data.iter().flatten().map(|(key, bytes)| (key.as_str(), bytes.0.as_slice())).collect();
        select(&data, items, mode, optional, Kind::Secret)
    }

    pub(super) fn downward(&self, files: &[DownwardAPIVolumeFile], mode: Option<i32>) -> Result<Payload, String> {
        let mut payload = Payload::new();
        for file in files {
            let text = match (&file.field_ref, &file.resource_field_ref) {
                (Some(selector), _) => fields::field(self.pod, selector, self.node, &[]),
                (None, Some(selector)) => fields::resource(self.pod, "", selector, self.node),
                (None, None) => continue,
            };
            let data = text.map_err(|error| error.to_string())?.into_bytes();
            payload.insert(clean(&file.path), File { data, mode: bits(file.mode.or(mode)), owner: None });
        }
        Ok(payload)
    }

    pub(super) async fn projected(&self, source: &ProjectedVolumeSource) -> Result<Payload, String> {
        let mut payload = Payload::new();
        let mut errors = Vec::new();
        for projection in source.sources.iter().flatten() {
            match self.projection(projection, source.default_mode).await {
                Ok(files) => payload.extend(files),
                Err(error) => errors.push(error),
            }
        }
        match errors.as_slice() {
            [] => Ok(payload),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }

    async fn projection(&self, from: &VolumeProjection, mode: Option<i32>) -> Result<Payload, String> {
        if let Some(map) = &from.config_map {
            return self.config_map(&map.name, map.items.as_deref(), mode, map.optional).await;
        }
        if let Some(secret) = &from.secret {
            return self.secret(&secret.name, secret.items.as_deref(), mode, secret.optional).await;
        }
        if let Some(downward) = &from.downward_api {
            return self.downward(downward.items.as_deref().unwrap_or_default(), mode);
        }
        if let Some(token) = &from.service_account_token {
            return self.token(token, mode).await;
        }
        Err("projected volume source is not supported on this node".to_owned())
    }

    async fn token(&self, projection: &ServiceAccountTokenProjection, mode: Option<i32>) -> Result<Payload, String> {
        let text = self.tokens.get(self.pod, projection, self.objects).await.map_err(|error| error.to_string())?;
        let group = pods::spec(self.pod).security_context.as_ref().and_then(|context| context.fs_group);
        let owner = common_user(self.pod);
        let mode = if group.is_some() || owner.is_some() { TOKEN_MODE } else { bits(mode) };
        let file = File { data: text.into_bytes(), mode, owner: owner.filter(|_| group.is_none()) };
        Ok(Payload::from([(clean(&projection.path), file)]))
    }
}

/// The one user that all containers run as, if there is one.
fn common_user(pod: &Pod) -> Option<u32> {
    let shared = pods::spec(pod).security_context.as_ref().and_then(|context| context.run_as_user);
    let mut users = pods::all_containers(pod)
        .map(|(container, _)| container.security_context.as_ref().and_then(|context| context.run_as_user).or(shared));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

fn absent_is_fine<T>(found: Result<T, ObjectError>, optional: Option<bool>) -> Result<Option<T>, String> {
    match found {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() && optional == Some(true) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn select(
    data: &BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: Option<bool>,
    kind: Kind,
) -> Result<Payload, String> {
    let file = |bytes: &[u8], mode| File { data: bytes.to_vec(), mode: bits(mode), owner: None };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.iter().map(|(key, bytes)| ((*key).to_owned(), file(bytes, mode))).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match (data.get(item.key.as_str()), optional) {
            (Some(bytes), _) => {
                payload.insert(clean(&item.path), file(bytes, item.mode.or(mode)));
            }
            (None, Some(true)) => {}
            (None, _) => {
                return Err(match kind {
                    Kind::ConfigMap => format!("configmap references non-existent config key: {}", item.key),
                    Kind::Secret => format!("references non-existent secret key: {}", item.key),
                });
            }
        }
    }
    Ok(payload)
}

fn bits(mode: Option<i32>) -> u32 {
    u32::try_from(mode.unwrap_or(DEFAULT_MODE)).unwrap_or(0o644) & 0o777
}

/// `a//b/./c` and `a/b/c` are the same file.
fn clean(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if path.starts_with('/') { format!("/{}", parts.join("/")) } else { parts.join("/") }
}
