//! Access to any resource.

use kube::{
    Api, Client,
    core::{ApiResource, DynamicResourceScope, NamespaceResourceScope, Resource},
};
use machinery::GroupVersionResource;

/// The handle kube wants for a group, version, resource and kind.
pub fn api_resource(gvr: &GroupVersionResource, kind: &str) -> ApiResource {
    let api_version = if gvr.group.is_empty() { gvr.version.clone() } else { format!("{}/{}", gvr.group, gvr.version) };
    ApiResource {
        group: gvr.group.clone(),
        version: gvr.version.clone(),
        api_version,
        kind: kind.to_owned(),
        plural: gvr.resource.clone(),
    }
}

/// Objects of a resource as value trees (or any other dynamic form): in a namespace, or all when `namespace` is `None`.
pub fn api_for<K>(client: Client, resource: &ApiResource, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = DynamicResourceScope, DynamicType = ApiResource>,
{
    match namespace.filter(|n| !n.is_empty()) {
        Some(namespace) => Api::namespaced_with(client, namespace, resource),
        None => Api::all_with(client, resource),
    }
}

/// Objects of a built-in namespaced kind.
pub fn typed_api<K>(client: Client, namespace: &str) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    if namespace.is_empty() { Api::all(client) } else { Api::namespaced(client, namespace) }
}
