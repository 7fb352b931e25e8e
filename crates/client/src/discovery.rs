//! What the server serves, cached.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kube::{Client, core::discovery::v2::APIGroupDiscoveryList};
use machinery::GroupVersionResource;
use tokio::{sync::Mutex, time::Instant};

/// Age at which a snapshot is fetched anew.
const MAX_AGE: Duration = Duration::from_secs(10 * 60);

/// A resource of one group version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveredResource {
    /// Group, version, plural name.
    pub gvr: GroupVersionResource,
    /// Kind.
    pub kind: String,
    /// Singular name.
    pub singular: String,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Verbs.
    pub verbs: Vec<String>,
    /// Names of subresources.
    pub subresources: Vec<String>,
}

impl DiscoveredResource {
    /// Whether a verb is served.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// The handle kube wants.
    pub fn api_resource(&self) -> kube::core::ApiResource {
        crate::api_resource(&self.gvr, &self.kind)
    }
}

/// All resources at one time, versions of a group in order of preference.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Resources.
    pub resources: Vec<DiscoveredResource>,
    /// Group versions whose server did not answer: what is missing here may exist.
    pub failed: Vec<String>,
}

impl Snapshot {
    /// Resource of a group version.
    pub fn find(&self, gvr: &GroupVersionResource) -> Option<&DiscoveredResource> {
        self.resources.iter().find(|r| r.gvr == *gvr)
    }

    /// Resource of a kind in a group version.
    pub fn of_kind(&self, group: &str, version: &str, kind: &str) -> Option<&DiscoveredResource> {
        self.resources.iter().find(|r| r.gvr.group == group && r.gvr.version == version && r.kind == kind)
    }

    /// Resource of a kind in the preferred version that has it.
    pub fn preferred_kind(&self, group: &str, kind: &str) -> Option<&DiscoveredResource> {
        self.resources.iter().find(|r| r.gvr.group == group && r.kind == kind)
    }

    /// Each resource once, in the preferred version of its group that has it.
    pub fn preferred(&self) -> Vec<&DiscoveredResource> {
        let mut seen = BTreeSet::new();
        self.resources.iter().filter(|r| seen.insert((&r.gvr.group, &r.gvr.resource))).collect()
    }
}

/// Discovery with a cache. Share it by `Arc`.
pub struct Discovery {
    client: Client,
    cached: Mutex<Option<(Instant, Arc<Snapshot>)>>,
}

impl Discovery {
    /// Nothing is fetched before it is asked for.
    pub fn new(client: Client) -> Self {
        Self { client, cached: Mutex::new(None) }
    }

    /// The cached snapshot, fetched if there is none or it is old.
    pub async fn snapshot(&self) -> Result<Arc<Snapshot>, kube::Error> {
        if let Some((at, snapshot)) = self.cached.lock().await.clone()
            && at.elapsed() < MAX_AGE
        {
            return Ok(snapshot);
        }
        self.refresh().await
    }

    /// A snapshot of now.
    pub async fn refresh(&self) -> Result<Arc<Snapshot>, kube::Error> {
        let snapshot = Arc::new(fetch(&self.client).await?);
        *self.cached.lock().await = Some((Instant::now(), Arc::clone(&snapshot)));
        Ok(snapshot)
    }

    /// Forgets what was fetched.
    pub async fn invalidate(&self) {
        *self.cached.lock().await = None;
    }

    /// Looks a kind up, once more on the server if the cache does not know it.
    pub async fn kind(
        &self,
        group: &str,
        version: &str,
        kind: &str,
    ) -> Result<Option<DiscoveredResource>, kube::Error> {
        if let Some(found) = self.snapshot().await?.of_kind(group, version, kind) {
            return Ok(Some(found.clone()));
        }
        Ok(self.refresh().await?.of_kind(group, version, kind).cloned())
    }
}

async fn fetch(client: &Client) -> Result<Snapshot, kube::Error> {
    let mut snapshot = Snapshot::default();
    let (core, groups) =
        futures::future::try_join(client.list_core_api_versions_aggregated(), client.list_api_groups_aggregated())
            .await?;
    let aggregated = |list: &APIGroupDiscoveryList| list.items.iter().any(|g| !g.versions.is_empty());
    if !aggregated(&core) {
        return fetch_by_group(client).await;
    }
    for group in core.items.iter().chain(&groups.items) {
        let name = group.metadata.as_ref().and_then(|m| m.name.clone()).unwrap_or_default();
        for version in &group.versions {
            let text = version.version.clone().unwrap_or_default();
            if version.freshness.as_deref() == Some("Stale") {
                snapshot.failed.push(if name.is_empty() { text.clone() } else { format!("{name}/{text}") });
            }
            for resource in &version.resources {
                let kind = resource.response_kind.as_ref().and_then(|k| k.kind.clone()).unwrap_or_default();
                snapshot.resources.push(DiscoveredResource {
                    gvr: GroupVersionResource {
                        group: name.clone(),
                        version: text.clone(),
                        resource: resource.resource.clone().unwrap_or_default(),
                    },
                    kind,
                    singular: resource.singular_resource.clone().unwrap_or_default(),
                    short_names: resource.short_names.clone(),
                    categories: resource.categories.clone(),
                    namespaced: resource.scope.as_deref() == Some("Namespaced"),
                    verbs: resource.verbs.clone(),
                    subresources: resource.subresources.iter().filter_map(|s| s.subresource.clone()).collect(),
                });
            }
        }
    }
    Ok(snapshot)
}

/// For servers that do not aggregate: one request per group version.
async fn fetch_by_group(client: &Client) -> Result<Snapshot, kube::Error> {
    let mut snapshot = Snapshot::default();
    let core = client.list_core_api_versions().await?;
    for version in core.versions {
        let list = client.list_core_api_resources(&version).await?;
        snapshot.resources.extend(resources_of("", &version, list));
    }
    for group in client.list_api_groups().await?.groups {
        let preferred = group.preferred_version.as_ref().map(|v| v.version.clone()).unwrap_or_default();
        let mut versions: Vec<String> = group.versions.iter().map(|v| v.version.clone()).collect();
        // A stable sort brings the preferred version to the front and keeps the server's order of the others.
        versions.sort_by_key(|v| *v != preferred);
        for version in versions {
            let group_version = format!("{}/{version}", group.name);
            match client.list_api_group_resources(&group_version).await {
                Ok(list) => snapshot.resources.extend(resources_of(&group.name, &version, list)),
                Err(error) => {
                    tracing::debug!(%error, group_version, "discovery of a group version failed");
                    snapshot.failed.push(group_version);
                }
            }
        }
    }
    Ok(snapshot)
}

fn resources_of(
    group: &str,
    version: &str,
    list: k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList,
) -> Vec<DiscoveredResource> {
    let subresources: Vec<(String, String)> =
        list.resources.iter().filter_map(|r| r.name.split_once('/')).map(|(a, b)| (a.into(), b.into())).collect();
    let whole = list.resources.into_iter().filter(|r| !r.name.contains('/'));
    whole
        .map(|r| DiscoveredResource {
            subresources: subresources.iter().filter(|(of, _)| *of == r.name).map(|(_, s)| s.clone()).collect(),
            gvr: GroupVersionResource { group: group.into(), version: version.into(), resource: r.name },
            kind: r.kind,
            singular: r.singular_name,
            short_names: r.short_names.unwrap_or_default(),
            categories: r.categories.unwrap_or_default(),
            namespaced: r.namespaced,
            verbs: r.verbs,
        })
        .collect()
}
