//! `kustomization.yaml`.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use serde_json::Value;

use super::KustomizeError;

/// Names that the file may have.
const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// The fields that are understood. Those of plugins, Helm charts, notes on origins and the removed variables are refused by
/// name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Kustomization {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) metadata: Value,
    pub(super) resources: Vec<String>,
    pub(super) bases: Vec<String>,
    pub(super) components: Vec<String>,
    pub(super) namespace: String,
    pub(super) name_prefix: String,
    pub(super) name_suffix: String,
    pub(super) common_labels: BTreeMap<String, String>,
    pub(super) common_annotations: BTreeMap<String, String>,
    pub(super) labels: Vec<Labels>,
    pub(super) images: Vec<Image>,
    pub(super) replicas: Vec<Replicas>,
    pub(super) config_map_generator: Vec<Generator>,
    pub(super) secret_generator: Vec<Generator>,
    pub(super) generator_options: GeneratorOptions,
    pub(super) patches: Vec<Patch>,
    pub(super) patches_strategic_merge: Vec<String>,
    #[serde(rename = "patchesJson6902")]
    pub(super) patches_json: Vec<Patch>,
    pub(super) replacements: Vec<Replacement>,
    pub(super) sort_options: Option<SortOptions>,
}

/// Labels and where they go.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Labels {
    pub(super) pairs: BTreeMap<String, String>,
    pub(super) include_selectors: bool,
    pub(super) include_templates: bool,
}

/// Another name, tag or digest for an image.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) new_name: String,
    pub(super) new_tag: String,
    pub(super) tag_suffix: String,
    pub(super) digest: String,
}

/// A number of replicas.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Replicas {
    pub(super) name: String,
    pub(super) count: i64,
}

/// A ConfigMap or Secret that is made.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Generator {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) behavior: String,
    pub(super) files: Vec<String>,
    pub(super) literals: Vec<String>,
    pub(super) envs: Vec<String>,
    pub(super) env: String,
    #[serde(rename = "type")]
    pub(super) secret_type: String,
    pub(super) options: Option<GeneratorOptions>,
}

/// What generated objects have in common.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct GeneratorOptions {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) disable_name_suffix_hash: bool,
    pub(super) immutable: bool,
}

/// A patch and what it is for.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Patch {
    pub(super) path: String,
    pub(super) patch: String,
    pub(super) target: Option<Selector>,
    pub(super) options: BTreeMap<String, bool>,
}

/// Objects by their names and labels; names are regular expressions.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Selector {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) label_selector: String,
    pub(super) annotation_selector: String,
}

/// A value that is copied.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Replacement {
    pub(super) path: String,
    pub(super) source: Option<Source>,
    pub(super) source_value: Option<String>,
    pub(super) targets: Vec<Target>,
}

/// Where a value comes from.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Source {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) field_path: String,
    pub(super) options: FieldOptions,
}

/// Where a value goes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Target {
    pub(super) select: Selector,
    pub(super) reject: Vec<Selector>,
    pub(super) field_paths: Vec<String>,
    pub(super) options: FieldOptions,
}

/// A part of a field, and whether fields are made.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct FieldOptions {
    pub(super) delimiter: String,
    pub(super) index: i64,
    pub(super) encoding: String,
    pub(super) create: bool,
}

/// The order of the output.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct SortOptions {
    pub(super) order: String,
    pub(super) legacy_sort_options: Option<LegacyOrder>,
}

/// Kinds that come first and last.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct LegacyOrder {
    pub(super) order_first: Vec<String>,
    pub(super) order_last: Vec<String>,
}

impl Kustomization {
    /// Reads the file of a directory.
    pub(super) fn read(directory: &Path) -> Result<Self, KustomizeError> {
        let there: Vec<&str> = NAMES.iter().copied().filter(|name| directory.join(name).is_file()).collect();
        let shown = || directory.display().to_string();
        let name = match there.as_slice() {
            [] => return Err(KustomizeError::Missing(shown())),
            [one] => one,
            _ => return Err(KustomizeError::Several(shown())),
        };
        let text = super::load::read(&directory.join(name))?;
        let mut documents =
            crate::resolve::files::documents(&text, name).map_err(|e| KustomizeError::plain(e.to_string()))?;
        let document = if documents.is_empty() { Value::Object(serde_json::Map::new()) } else { documents.remove(0) };
        let file: Self = serde_json::from_value(document).map_err(|error| {
            let text = error.to_string();
            let unknown = text.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`'));
            KustomizeError::plain(match unknown {
                Some((field, _)) => format!("invalid Kustomization: json: unknown field {field:?}"),
                None => format!("invalid Kustomization: {text}"),
            })
        })?;
        file.check().map_err(|wrong| {
            KustomizeError::plain(format!("Failed to read kustomization file under {}:\n{wrong}", shown()))
        })?;
        file.sort_options.as_ref().map_or(Ok(()), SortOptions::check)?;
        Ok(file)
    }

    /// Kind and version of the file.
    fn check(&self) -> Result<(), String> {
        let (kind, wanted) = match self.kind.as_str() {
            "" | "Kustomization" => ("Kustomization", "kustomize.config.k8s.io/v1beta1"),
            "Component" => ("Component", "kustomize.config.k8s.io/v1alpha1"),
            _ => return Err("kind should be Kustomization or Component".to_owned()),
        };
        if self.api_version.is_empty() || self.api_version == wanted {
            return Ok(());
        }
        Err(format!("apiVersion for {kind} should be {wanted}"))
    }
}

impl SortOptions {
    fn check(&self) -> Result<(), KustomizeError> {
        match (self.order.as_str(), &self.legacy_sort_options) {
            ("fifo", Some(_)) => Err(KustomizeError::plain(
                "the field 'sortOptions.legacySortOptions' is set but the selected sort order is 'fifo', not 'legacy'",
            )),
            ("fifo" | "legacy", _) => Ok(()),
            _ => Err(KustomizeError::plain("the field 'sortOptions.order' must be one of [fifo, legacy]")),
        }
    }
}
