//! Reading the objects of one namespace from a watch cache.

use generic::resource::{Resource, Stored, decode_cached};
use machinery::{ApiResult, meta};
use storage::cache::Freshness;

/// All objects of a namespace, decoded.
pub(super) async fn objects(resource: &Resource, namespace: &str) -> ApiResult<Vec<Stored>> {
    let prefix = resource.key_prefix(namespace)?;
    let snapshot = resource.cache().list(&prefix, Freshness::Any).await.map_err(|e| resource.store_error(e))?;
    snapshot.range(None).map(|(_, cached)| decode_cached(cached)).collect()
}

/// An annotation of a namespace.
pub(super) async fn annotation(namespaces: &Resource, namespace: &str, name: &str) -> ApiResult<Option<String>> {
    let found = namespaces.get_settled("", namespace).await?;
    let found = decode_cached(&found)?.object;
    let annotation = meta::text_map(&found, "annotations").find(|(key, _)| *key == name);
    Ok(annotation.map(|(_, value)| value.to_owned()))
}
