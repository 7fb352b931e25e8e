//! The server: requests, discovery, and resolving what users type into resources.

use http::{Method, Request};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use machinery::{GroupVersion, Status};
use serde_json::Value;

use crate::{cli::Global, error::CommandError};

/// A resource as discovery lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Group; empty for the core group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural.
    pub plural: String,
    /// Singular.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories.
    pub categories: Vec<String>,
    /// Verbs.
    pub verbs: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
}

impl Resource {
    /// `plural.group`, or `plural` in the core group.
    pub fn title(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `apiVersion` of objects.
    pub fn api_version(&self) -> String {
        GroupVersion::new(&self.group, &self.version).to_string()
    }

    /// Path of a collection; of all namespaces when none is given.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", self.group) };
        let scope = match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("/namespaces/{namespace}"),
            None => String::new(),
        };
        format!("{root}/{}{scope}/{}", self.version, self.plural)
    }
}

/// A connection with what is known of the server.
pub struct Cluster {
    client: Client,
    /// Namespace of commands that name none.
    pub namespace: String,
    /// URL of the server.
    pub url: String,
}

impl Cluster {
    /// Connects as the kubeconfig and the global flags say.
    pub async fn connect(global: &Global) -> Result<Self, CommandError> {
        let fail = |e: &dyn std::fmt::Display| CommandError::plain(e.to_string());
        let options = KubeConfigOptions {
            context: global.context.clone(),
            cluster: global.cluster.clone(),
            user: global.user.clone(),
        };
        let mut config = match &global.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).map_err(|e| fail(&e))?;
                Config::from_custom_kubeconfig(file, &options).await.map_err(|e| fail(&e))?
            }
            None => Config::from_kubeconfig(&options).await.map_err(|e| fail(&e))?,
        };
        if let Some(server) = &global.server {
            config.cluster_url =
                server.parse().map_err(|_| CommandError::plain(format!("invalid server URL {server:?}")))?;
        }
        if let Some(token) = &global.token {
            config.auth_info.token = Some(token.clone().into());
        }
        if let Some(user) = &global.r#as {
            config.auth_info.impersonate = Some(user.clone());
        }
        let namespace = global.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let url = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|e| fail(&e))?;
        Ok(Self { client, namespace, url })
    }

    /// Sends a request and decodes the JSON answer.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Value, CommandError> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body).map_err(|e| CommandError::plain(e.to_string()))?;
        self.client.request::<Value>(request).await.map_err(|e| self.refused(e))
    }

    /// A GET whose answer is text.
    pub async fn text(&self, path: &str) -> Result<String, CommandError> {
        let request = Request::get(path).body(Vec::new()).map_err(|e| CommandError::plain(e.to_string()))?;
        self.client.request_text(request).await.map_err(|e| self.refused(e))
    }

    fn refused(&self, error: kube::Error) -> CommandError {
        match error {
            kube::Error::Api(status) => {
                let status = serde_json::to_value(&*status).ok().and_then(|v| serde_json::from_value::<Status>(v).ok());
                CommandError::Server(Box::new(status.unwrap_or_default()))
            }
            other => {
                let mut text = other.to_string();
                let mut source = std::error::Error::source(&other);
                while let Some(cause) = source {
                    text = cause.to_string();
                    source = cause.source();
                }
                if text.contains("Connection refused") {
                    let host = self.url.trim_start_matches("https://").trim_end_matches('/');
                    return CommandError::Verbatim(format!(
                        "The connection to the server {host} was refused - did you specify the right host or port?"
                    ));
                }
                CommandError::Verbatim(format!("Unable to connect to the server: {text}"))
            }
        }
    }

    /// All resources, core group first, then groups in the server's order; preferred versions first.
    pub async fn resources(&self) -> Result<Vec<Resource>, CommandError> {
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        let mut all = Vec::new();
        for path in ["/api", "/apis"] {
            let document = self.send(Method::GET, path, &[("accept", accept)], Vec::new()).await?;
            for group in document["items"].as_array().into_iter().flatten() {
                let name = group["metadata"]["name"].as_str().unwrap_or("");
                for version in group["versions"].as_array().into_iter().flatten() {
                    let number = version["version"].as_str().unwrap_or("");
                    let resources = version["resources"].as_array().into_iter().flatten();
                    all.extend(resources.map(|r| resource(name, number, r)));
                }
            }
        }
        Ok(all)
    }

    /// The resource that a word stands for: plural, singular, short name or kind, perhaps with `.group` or
    /// `.version.group`.
    pub async fn resolve(&self, word: &str) -> Result<Resource, CommandError> {
        let all = self.resources().await?;
        find(&all, word)
            .cloned()
            .ok_or_else(|| CommandError::plain(format!("the server doesn't have a resource type {word:?}")))
    }
}

fn resource(group: &str, version: &str, row: &Value) -> Resource {
    let text = |key: &str| row[key].as_str().unwrap_or("").to_owned();
    let list = |key: &str| -> Vec<String> {
        row[key].as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        plural: text("resource"),
        singular: text("singularResource"),
        kind: row["responseKind"]["kind"].as_str().unwrap_or("").to_owned(),
        short_names: list("shortNames"),
        categories: list("categories"),
        verbs: list("verbs"),
        namespaced: row["scope"] == "Namespaced",
    }
}

/// The first resource that a word fits.
pub fn find<'a>(all: &'a [Resource], word: &str) -> Option<&'a Resource> {
    let (name, rest) = word.split_once('.').unwrap_or((word, ""));
    let lower = name.to_lowercase();
    all.iter().find(|r| {
        let named = r.plural == lower
            || r.singular == lower
            || r.kind.to_lowercase() == lower
            || r.short_names.contains(&lower);
        let grouped = rest.is_empty() || r.group == rest || format!("{}.{}", r.version, r.group) == rest;
        named && grouped
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_find_resources() {
        let deploy = resource(
            "apps",
            "v1",
            &json!({"resource": "deployments", "singularResource": "deployment", "shortNames": ["deploy"],
                    "responseKind": {"kind": "Deployment"}, "scope": "Namespaced"}),
        );
        let all = [deploy];
        for word in ["deploy", "deployment", "deployments", "Deployment", "deployments.apps", "deploy.v1.apps"] {
            assert!(find(&all, word).is_some(), "{word}");
        }
        assert!(find(&all, "deploy.batch").is_none() && find(&all, "pods").is_none());
        assert_eq!(all[0].path(Some("n")), "/apis/apps/v1/namespaces/n/deployments");
        assert_eq!(all[0].title(), "deployments.apps");
    }
}
