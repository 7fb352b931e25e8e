//! One served version: its endpoint.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use generic::{
    endpoint::{Custom, Endpoint, Nature, ScalePaths, ScaleSelector, Subresource},
    resource::Resource,
};
use machinery::{
    ApiResult, GroupVersion, GroupVersionKind, GroupVersionResource, decode::FieldProblems, schema::SchemaRef,
};
use rules::strategy::Strategy;
use serde_json::Value;

use crate::{
    conversion::Converter,
    definition::{Definition, LazySchema, Scale, Version},
    printer::ColumnPrinter,
    strategy::VersionStrategy,
};

/// Verbs of a custom resource.
pub(crate) const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

pub(crate) struct ServedVersion {
    strategy: Arc<VersionStrategy>,
    converter: Converter,
    served: GroupVersion,
    stored: GroupVersion,
    serves_stored_form: bool,
    selectable: Arc<[String]>,
    deprecation: Option<String>,
    is_terminating: bool,
}

#[async_trait]
impl Custom for ServedVersion {
    fn strategy(&self) -> &dyn Strategy {
        &*self.strategy
    }

    fn schema(&self) -> SchemaRef<'_> {
        self.strategy.schema.types()
    }

    fn check(&self, object: &mut Value) -> FieldProblems {
        self.strategy.check(object)
    }

    fn serves_stored_form(&self) -> bool {
        self.serves_stored_form
    }

    async fn load(&self, objects: Vec<Value>) -> ApiResult<Vec<Value>> {
        let mut objects = self.converter.convert(objects, &self.served).await?;
        objects.iter_mut().for_each(|object| self.strategy.read(object));
        Ok(objects)
    }

    async fn unload(&self, object: Value) -> ApiResult<Value> {
        let mut all = self.converter.convert(vec![object], &self.stored).await?;
        all.pop().ok_or_else(|| machinery::ApiError::internal("conversion lost an object"))
    }

    fn selectable(&self) -> &Arc<[String]> {
        &self.selectable
    }

    fn deprecation(&self) -> Option<&str> {
        self.deprecation.as_deref()
    }

    fn is_terminating(&self) -> bool {
        self.is_terminating
    }
}

/// `.spec.replicas` as `/spec/replicas`.
fn pointer(path: &str) -> String {
    path.replace('.', "/")
}

fn scale_paths(scale: &Scale) -> ScalePaths {
    let selector = Some(&scale.label_selector_path).filter(|path| !path.is_empty());
    ScalePaths {
        spec_replicas: pointer(&scale.spec_replicas_path),
        status_replicas: pointer(&scale.status_replicas_path),
        selector: selector.map(|path| (pointer(path), ScaleSelector::Text)),
        must_have_replicas: true,
    }
}

/// What everyone is told who asks for a deprecated version.
fn deprecation(definition: &Definition, version: &Version) -> Option<String> {
    if !version.deprecated {
        return None;
    }
    if let Some(text) = &version.deprecation_warning {
        return Some(text.clone());
    }
    let spec = &definition.spec;
    let kind = &spec.names.kind;
    let mut text = format!("{}/{} {kind} is deprecated", spec.group, version.name);
    let newer = spec
        .versions
        .iter()
        .filter(|v| v.served && !v.deprecated)
        .min_by(|a, b| api::discovery::compare_versions(&a.name, &b.name))
        .filter(|v| api::discovery::compare_versions(&v.name, &version.name).is_lt());
    if let Some(newer) = newer {
        text.push_str(&format!("; use {}/{} {kind}", spec.group, newer.name));
    }
    Some(text)
}

/// The strategy of a version.
pub(crate) fn strategy(definition: &Definition, version: &Version, schema: Arc<LazySchema>) -> Arc<VersionStrategy> {
    Arc::new(VersionStrategy {
        schema,
        namespaced: definition.is_namespaced(),
        has_status: version.subresources.status.is_some(),
    })
}

/// The endpoint of a version.
pub(crate) fn endpoint(
    definition: &Definition,
    version: &Version,
    strategy: Arc<VersionStrategy>,
    converter: &Converter,
    resource: &Arc<Resource>,
) -> Endpoint {
    let spec = &definition.spec;
    let names = &definition.status.accepted_names;
    let stored = GroupVersion::new(&spec.group, definition.storage_version());
    let others_stored = definition.status.stored_versions.iter().any(|v| *v != stored.version);
    let custom = ServedVersion {
        strategy,
        converter: converter.clone(),
        served: GroupVersion::new(&spec.group, &version.name),
        serves_stored_form: version.storage && !others_stored,
        stored,
        selectable: version.selectable_fields.iter().map(|f| f.json_path.trim_start_matches('.').to_owned()).collect(),
        deprecation: deprecation(definition, version),
        is_terminating: definition.is_deleting(),
    };
    let mut subresources = BTreeMap::new();
    if version.subresources.status.is_some() {
        subresources.insert("status", Subresource::Part);
    }
    if let Some(scale) = &version.subresources.scale {
        subresources.insert("scale", Subresource::Scale(scale_paths(scale)));
    }
    Endpoint {
        gvr: GroupVersionResource::new(&spec.group, &version.name, &names.plural),
        gvk: GroupVersionKind::new(&spec.group, &version.name, &names.kind),
        list_kind: names.list_kind.clone(),
        namespaced: definition.is_namespaced(),
        verbs: VERBS.iter().map(|v| (*v).to_owned()).collect(),
        nature: Nature::Custom(Arc::new(custom)),
        resource: Some(Arc::clone(resource)),
        conversion: None,
        printer: Box::new(ColumnPrinter::new(&version.additional_printer_columns)),
        hooks: None,
        subresources,
    }
}
