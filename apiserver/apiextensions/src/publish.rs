//! What discovery and OpenAPI show of a definition.

use std::sync::Arc;

use api::{
    Kind, Subresource,
    discovery::{CUSTOM_GROUP_PRIORITY, VERSION_PRIORITY},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use generic::published::{Describe, Offer, OpenApi};
use machinery::GroupVersionKind;
use schema::{custom::Custom, v2, v3};
use sha2::{Digest, Sha256};

use crate::{
    definition::{Definition, Source, Version},
    version::VERBS,
};

/// Verbs that are left while the definition is being deleted.
const LAST_VERBS: [&str; 5] = ["delete", "deletecollection", "get", "list", "watch"];

/// Name of a definition among publishers.
pub(crate) fn publisher(name: &str) -> String {
    format!("definition/{name}")
}

struct Described {
    source: Arc<Source>,
    kind: Kind,
    list_kind: String,
    selectable: Vec<String>,
}

impl Described {
    fn with<T>(&self, of: impl FnOnce(&Custom<'_>) -> T) -> T {
        let schema = self.source.schema(&self.kind.gvk.version);
        of(&Custom { kind: &self.kind, list_kind: &self.list_kind, schema: &schema, selectable: &self.selectable })
    }
}

impl Describe for Described {
    fn v3(&self) -> v3::Part {
        self.with(|custom| custom.v3())
    }

    fn v2(&self) -> v2::Part {
        self.with(|custom| custom.v2())
    }
}

/// base64 of the first eight bytes of a hash of the stored group, version and kind.
fn storage_version_hash(group: &str, version: &str, kind: &str) -> String {
    let hash = Sha256::digest(format!("{group}/{version}/{kind}"));
    STANDARD.encode(&hash[..8])
}

fn kind(definition: &Definition, version: &Version) -> Kind {
    let spec = &definition.spec;
    let names = &definition.status.accepted_names;
    let gvk = GroupVersionKind::new(&spec.group, &version.name, &names.kind);
    let owned = |verbs: &[&str]| verbs.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
    let verbs = if definition.is_deleting() { owned(&LAST_VERBS) } else { owned(&VERBS) };
    let mut subresources = Vec::new();
    if version.subresources.status.is_some() {
        subresources.push(Subresource {
            name: "status".into(),
            gvk: gvk.clone(),
            foreign: false,
            verbs: owned(&["get", "patch", "update"]),
        });
    }
    if version.subresources.scale.is_some() {
        subresources.push(Subresource {
            name: "scale".into(),
            gvk: GroupVersionKind::new("autoscaling", "v1", "Scale"),
            foreign: true,
            verbs: owned(&["get", "patch", "update"]),
        });
    }
    Kind {
        plural: names.plural.clone(),
        singular: names.singular.clone(),
        short_names: names.short_names.clone(),
        categories: names.categories.clone(),
        namespaced: definition.is_namespaced(),
        verbs,
        subresources,
        storage_version_hash: storage_version_hash(&spec.group, definition.storage_version(), &names.kind),
        gvk,
    }
}

/// One offer per served version.
pub(crate) fn offers(definition: &Definition, source: &Arc<Source>) -> Vec<Offer> {
    let served = definition.spec.versions.iter().filter(|v| v.served);
    served
        .map(|version| {
            let kind = kind(definition, version);
            let described = Described {
                source: Arc::clone(source),
                kind: kind.clone(),
                list_kind: definition.status.accepted_names.list_kind.clone(),
                selectable: version.selectable_fields.iter().map(|f| f.json_path.clone()).collect(),
            };
            Offer {
                group: definition.spec.group.clone(),
                version: version.name.clone(),
                group_priority: CUSTOM_GROUP_PRIORITY,
                version_priority: VERSION_PRIORITY,
                resources: vec![kind],
                is_stale: false,
                openapi: OpenApi::Described(Arc::new(described)),
            }
        })
        .collect()
}
