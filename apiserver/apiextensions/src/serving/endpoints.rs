//! Endpoints of one definition over their watch cache.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use generic::resource::{Resource, StrategyRef};
use machinery::{ApiError, GroupResource, GroupVersionKind};
use sha2::{Digest, Sha256};

use super::Settings;
use crate::{
    conversion::Converter,
    definition::{Definition, LazySchema, Source, schemas},
    publish, version,
    webhook::Webhook,
};

/// Time for a new watch cache to be filled.
const FILLED_WITHIN: Duration = Duration::from_secs(20);

/// A hash of the schemas of a definition.
fn schemas_hash(json: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (name, schema) in schemas(json) {
        hash.update(name.len().to_le_bytes());
        hash.update(name);
        hash.update(schema.get());
    }
    hash.finalize().into()
}

/// What is served of a definition.
pub(super) struct Served {
    pub(super) resource: Arc<Resource>,
    /// With its accepted names.
    definition: Arc<Definition>,
    schemas: [u8; 32],
    source: Arc<Source>,
    places: Vec<(String, String, String)>,
    is_published: bool,
}

impl Served {
    /// Whether endpoints of a definition would be the same, but for its end.
    fn serves(&self, definition: &Definition, schemas: [u8; 32]) -> bool {
        let (own, other) = (&self.definition, definition);
        self.schemas == schemas
            && own.spec == other.spec
            && own.status.accepted_names == other.status.accepted_names
            && own.status.stored_versions == other.status.stored_versions
    }

    /// Whether new objects are refused.
    pub(super) fn is_terminating(&self) -> bool {
        self.definition.is_deleting()
    }

    /// Tells discovery and OpenAPI, once.
    pub(super) fn publish(&mut self, settings: &Settings) {
        if !self.is_published {
            let publisher = publish::publisher(&self.definition.metadata.name);
            settings.published.publish(&publisher, publish::offers(&self.definition, &self.source));
            self.is_published = true;
        }
    }

    /// Takes the endpoints away and ends the watches.
    pub(super) fn end(self, settings: &Settings) {
        settings.endpoints.replace(&self.places, Vec::new());
        self.resource.cache().close_watches();
    }
}

/// Serves a definition with its accepted names. What is served already stays as long as nothing changed that matters;
/// else it is replaced once the new watch cache is filled.
pub(super) async fn serve(
    settings: &Settings,
    definition: &Arc<Definition>,
    json: &Bytes,
    served: Option<Served>,
) -> Result<Served, (Option<Served>, ApiError)> {
    let schemas = schemas_hash(json);
    let Some(served) = served else {
        return fresh(settings, definition, json, schemas, &[]).await.map_err(|error| (None, error));
    };
    if !served.serves(definition, schemas) {
        return match fresh(settings, definition, json, schemas, &served.places).await {
            Ok(new) => {
                served.resource.cache().close_watches();
                Ok(new)
            }
            Err(error) => Err((Some(served), error)),
        };
    }
    served.source.refresh(json.clone());
    if served.is_terminating() == definition.is_deleting() {
        return Ok(served);
    }
    let resource = Arc::clone(&served.resource);
    Ok(install(settings, definition, schemas, served.source, resource, &served.places))
}

async fn fresh(
    settings: &Settings,
    definition: &Arc<Definition>,
    json: &Bytes,
    schemas: [u8; 32],
    former: &[(String, String, String)],
) -> Result<Served, ApiError> {
    let spec = &definition.spec;
    let names = &definition.status.accepted_names;
    let storage = spec.versions.iter().find(|v| v.storage).ok_or_else(|| ApiError::internal("no storage version"))?;
    let source = Source::new(json.clone());
    let strategy = version::strategy(definition, storage, LazySchema::new(&source, &storage.name));
    let resource = Arc::new(Resource::new(
        GroupVersionKind::new(&spec.group, &storage.name, &names.kind),
        GroupResource::new(&spec.group, &names.plural),
        definition.is_namespaced(),
        StrategyRef::Shared(strategy),
        format!("{}/{}/{}/", settings.prefix, spec.group, names.plural),
        Arc::clone(&settings.store),
        &settings.keeping,
    ));
    tokio::time::timeout(FILLED_WITHIN, resource.cache().ready())
        .await
        .map_err(|_| ApiError::unavailable("the watch cache is not filled"))?;
    Ok(install(settings, definition, schemas, source, resource, former))
}

/// How objects of a definition are converted. A webhook that cannot be called fails when it is needed.
fn converter(settings: &Settings, definition: &Definition) -> Converter {
    let conversion = &definition.spec.conversion;
    if conversion.strategy != "Webhook" {
        return Converter::Rename;
    }
    match Webhook::new(&settings.webhooks, &conversion.webhook) {
        Ok(webhook) => Converter::Webhook(Arc::new(webhook)),
        Err(why) => Converter::Impossible(why.into()),
    }
}

/// Puts endpoints for all served versions in place of the former ones.
fn install(
    settings: &Settings,
    definition: &Arc<Definition>,
    schemas: [u8; 32],
    source: Arc<Source>,
    resource: Arc<Resource>,
    former: &[(String, String, String)],
) -> Served {
    let spec = &definition.spec;
    let converter = converter(settings, definition);
    let mut endpoints = Vec::new();
    for one in spec.versions.iter().filter(|v| v.served) {
        let strategy = version::strategy(definition, one, LazySchema::new(&source, &one.name));
        endpoints.push(version::endpoint(definition, one, strategy, &converter, &resource));
    }
    let places =
        endpoints.iter().map(|e| (e.gvr.group.clone(), e.gvr.version.clone(), e.gvr.resource.clone())).collect();
    settings.endpoints.replace(former, endpoints);
    Served { resource, definition: Arc::clone(definition), schemas, source, places, is_published: false }
}
