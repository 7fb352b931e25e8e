//! `api-resources`, `api-versions`, `version`.

use crate::{
    cli::{ApiResources, Version},
    cluster::Cluster,
    error::CommandError,
    table::render,
};

/// Runs `api-resources`.
pub async fn resources(cluster: &Cluster, options: &ApiResources) -> Result<String, CommandError> {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut seen: Vec<(String, String)> = Vec::new();
    for resource in cluster.resources().await? {
        let key = (resource.group.clone(), resource.plural.clone());
        if options.api_group.as_ref().is_some_and(|g| *g != resource.group) || seen.contains(&key) {
            continue;
        }
        let row = vec![
            resource.plural.clone(),
            resource.short_names.join(","),
            resource.api_version(),
            resource.namespaced.to_string(),
            resource.kind.clone(),
        ];
        rows.push((resource.group.clone(), row));
        seen.push(key);
    }
    rows.sort();
    let headers: Vec<String> =
        ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"].iter().map(|h| (*h).to_owned()).collect();
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(_, row)| row).collect();
    Ok(render((!options.no_headers).then_some(headers.as_slice()), &rows))
}

/// Runs `api-versions`.
pub async fn versions(cluster: &Cluster) -> Result<String, CommandError> {
    let mut versions: Vec<String> = cluster.resources().await?.iter().map(|r| r.api_version()).collect();
    versions.sort();
    versions.dedup();
    Ok(versions.join("\n") + "\n")
}

/// Runs `version`.
pub async fn version(cluster: Option<&Cluster>, options: &Version) -> Result<String, CommandError> {
    let mut out = format!("Client Version: {}\n", runtime::version::GIT_VERSION);
    if let (false, Some(cluster)) = (options.client, cluster) {
        let answer = cluster.send(http::Method::GET, "/version", &[], Vec::new()).await?;
        out.push_str(&format!("Server Version: {}\n", answer["gitVersion"].as_str().unwrap_or("")));
    }
    Ok(out)
}
