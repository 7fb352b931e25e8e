//! A CustomResourceDefinition as it is read here. Schemas stay in its JSON until they are needed.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use bytes::Bytes;
use machinery::schema::{SchemaRef, TypeId, TypeTable};
use schema::structural::{self, Schema};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

/// Holds a definition until its objects are gone.
pub(crate) const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Definition {
    pub(crate) metadata: Metadata,
    pub(crate) spec: Spec,
    #[serde(default)]
    pub(crate) status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) deletion_timestamp: Option<String>,
    pub(crate) finalizers: Vec<String>,
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct Spec {
    pub(crate) group: String,
    pub(crate) scope: String,
    pub(crate) names: Names,
    pub(crate) versions: Vec<Version>,
    #[serde(default)]
    pub(crate) conversion: Conversion,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Names {
    pub(crate) plural: String,
    pub(crate) singular: String,
    pub(crate) short_names: Vec<String>,
    pub(crate) kind: String,
    pub(crate) list_kind: String,
    pub(crate) categories: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Version {
    pub(crate) name: String,
    pub(crate) served: bool,
    pub(crate) storage: bool,
    pub(crate) deprecated: bool,
    pub(crate) deprecation_warning: Option<String>,
    pub(crate) subresources: Subresources,
    pub(crate) additional_printer_columns: Vec<Column>,
    pub(crate) selectable_fields: Vec<SelectableField>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Subresources {
    pub(crate) status: Option<Empty>,
    pub(crate) scale: Option<Scale>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Empty {}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Scale {
    pub(crate) spec_replicas_path: String,
    pub(crate) status_replicas_path: String,
    pub(crate) label_selector_path: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Column {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) format: String,
    pub(crate) description: String,
    pub(crate) priority: i32,
    pub(crate) json_path: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct SelectableField {
    pub(crate) json_path: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Conversion {
    pub(crate) strategy: String,
    pub(crate) webhook: Value,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) conditions: Vec<Condition>,
    pub(crate) accepted_names: Names,
    pub(crate) stored_versions: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Definition {
    pub(crate) fn is_namespaced(&self) -> bool {
        self.spec.scope == "Namespaced"
    }

    pub(crate) fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    pub(crate) fn condition(&self, kind: &str) -> Option<&Condition> {
        self.status.conditions.iter().find(|c| c.kind == kind)
    }

    pub(crate) fn is_true(&self, kind: &str) -> bool {
        self.condition(kind).is_some_and(|c| c.status == "True")
    }

    pub(crate) fn storage_version(&self) -> &str {
        self.spec.versions.iter().find(|v| v.storage).map_or("", |v| &v.name)
    }
}

/// The JSON of a definition. Status changes replace it; its schemas stay what they were.
pub(crate) struct Source {
    json: ArcSwap<Bytes>,
}

impl Source {
    pub(crate) fn new(json: Bytes) -> Arc<Self> {
        Arc::new(Self { json: ArcSwap::from_pointee(json) })
    }

    /// Takes a later state of the same schemas, so that the former is not kept in memory.
    pub(crate) fn refresh(&self, json: Bytes) {
        self.json.store(Arc::new(json));
    }

    /// The schema of a version as it was given.
    pub(crate) fn schema(&self, version: &str) -> Value {
        let json = self.json.load();
        let found = schemas(&json).into_iter().find(|(name, _)| name == version);
        found.and_then(|(_, raw)| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct SchemasOf<'a> {
    #[serde(borrow)]
    spec: SpecOf<'a>,
}

#[derive(Deserialize)]
struct SpecOf<'a> {
    #[serde(borrow, default)]
    versions: Vec<VersionOf<'a>>,
}

#[derive(Deserialize)]
struct VersionOf<'a> {
    name: String,
    #[serde(borrow, default)]
    schema: Option<Validation<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Validation<'a> {
    #[serde(borrow, rename = "openAPIV3Schema", default)]
    schema: Option<&'a RawValue>,
}

/// The schemas of all versions as they stand in the JSON.
pub(crate) fn schemas(json: &[u8]) -> Vec<(String, &RawValue)> {
    let Ok(parsed) = serde_json::from_slice::<SchemasOf<'_>>(json) else { return Vec::new() };
    let versions = parsed.spec.versions.into_iter();
    versions.filter_map(|v| Some((v.name, v.schema?.schema?))).collect()
}

/// The schema of one version, compiled when it is first needed.
pub(crate) struct LazySchema {
    source: Arc<Source>,
    version: String,
    compiled: OnceLock<Schema>,
    types: OnceLock<(TypeTable, TypeId)>,
}

impl LazySchema {
    pub(crate) fn new(source: &Arc<Source>, version: &str) -> Arc<Self> {
        Arc::new(Self {
            source: Arc::clone(source),
            version: version.to_owned(),
            compiled: OnceLock::new(),
            types: OnceLock::new(),
        })
    }

    pub(crate) fn get(&self) -> &Schema {
        self.compiled.get_or_init(|| Schema::compile(&self.source.schema(&self.version)))
    }

    pub(crate) fn types(&self) -> SchemaRef<'_> {
        let (table, root) = self.types.get_or_init(|| structural::type_table(self.get()));
        table.get(*root)
    }
}
