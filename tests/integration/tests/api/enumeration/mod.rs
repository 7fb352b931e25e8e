//! Every resource, verb and subresource that discovery shows, by enumeration: a kind without an object in
//! `objects.yaml`, or a subresource without a case in `subresources`, fails here.

mod access;
mod life;
mod subresources;
mod wire;

use std::{collections::HashMap, panic::AssertUnwindSafe};

use futures::{FutureExt, StreamExt, future, stream};
use harness::{
    ApiServer,
    server::{ADMIN_TOKEN, NOBODY_TOKEN},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIResource, APIResourceList};
use kube::Client;
use serde::Deserialize;
use serde_json::{Value, json};

use self::wire::{Encoding, ask};

/// Where namespaced objects live.
const NAMESPACE: &str = "enumeration";
/// How many kinds live at once.
const AT_ONCE: usize = 8;

/// A subresource, as discovery shows it.
struct Subresource {
    name: String,
    verbs: Vec<String>,
    api_version: String,
    kind: String,
}

/// A resource, as discovery shows it.
struct Resource {
    group_version: String,
    plural: String,
    kind: String,
    namespaced: bool,
    verbs: Vec<String>,
    subresources: Vec<Subresource>,
}

impl Resource {
    fn has(&self, verb: &str) -> bool {
        self.verbs.iter().any(|own| own == verb)
    }

    fn group(&self) -> &str {
        self.group_version.split_once('/').map_or("", |(group, _)| group)
    }

    fn collection(&self) -> String {
        let root = if self.group().is_empty() { "api" } else { "apis" };
        let place = if self.namespaced { format!("/namespaces/{NAMESPACE}") } else { String::new() };
        format!("/{root}/{}{place}/{}", self.group_version, self.plural)
    }

    fn item(&self, name: &str) -> String {
        format!("{}/{name}", self.collection())
    }
}

/// What a list of discovery says, subresources with their resources.
fn resources_of(list: APIResourceList) -> Vec<Resource> {
    let (subresources, resources): (Vec<APIResource>, Vec<APIResource>) =
        list.resources.into_iter().partition(|row| row.name.contains('/'));
    let mut resources: Vec<Resource> = resources
        .into_iter()
        .map(|row| Resource {
            group_version: list.group_version.clone(),
            plural: row.name,
            kind: row.kind,
            namespaced: row.namespaced,
            verbs: row.verbs,
            subresources: Vec::new(),
        })
        .collect();
    for row in subresources {
        let (plural, name) = row.name.split_once('/').expect("a subresource");
        let api_version = match (&row.group, &row.version) {
            (Some(group), Some(version)) => format!("{group}/{version}"),
            _ => list.group_version.clone(),
        };
        let owner = resources.iter_mut().find(|resource| resource.plural == plural).expect("its resource");
        owner.subresources.push(Subresource { name: name.to_owned(), verbs: row.verbs, api_version, kind: row.kind });
    }
    resources
}

async fn discovered(client: &Client) -> Vec<Resource> {
    let mut resources = resources_of(client.list_core_api_resources("v1").await.expect("the core group"));
    for group in client.list_api_groups().await.expect("groups").groups {
        for version in group.versions {
            let list = client.list_api_group_resources(&version.group_version).await.expect("a group version");
            resources.extend(resources_of(list));
        }
    }
    resources
}

/// The table of objects by version and kind.
fn objects() -> HashMap<(String, String), Value> {
    let documents = serde_yaml::Deserializer::from_str(include_str!("objects.yaml"));
    documents
        .map(|document| {
            let object = Value::deserialize(document).expect("an object");
            let part = |name: &str| object[name].as_str().expect("a text").to_owned();
            ((part("apiVersion"), part("kind")), object)
        })
        .collect()
}

async fn prepare(client: &Client) {
    for (path, object) in [
        (
            "/api/v1/namespaces".to_owned(),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        ),
        (
            format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"),
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}),
        ),
    ] {
        let (code, answer) = ask(client, "POST", &path, Encoding::Json, &object).await;
        assert_eq!(code, 201, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_lives_through_every_verb() {
    let server = ApiServer::start().await;
    let client = server.plain_client(ADMIN_TOKEN).await;
    prepare(&client).await;
    let objects = objects();
    let resources = discovered(&client).await;
    assert!(resources.len() >= 60, "{} resources", resources.len());
    let lives = resources.iter().map(async |resource| {
        let object = objects.get(&(resource.group_version.clone(), resource.kind.clone()));
        let lived = AssertUnwindSafe(life::live(&client, resource, object)).catch_unwind().await;
        lived.is_err().then_some(&resource.kind)
    });
    let failed: Vec<_> = stream::iter(lives).buffer_unordered(AT_ONCE).filter_map(future::ready).collect().await;
    assert_eq!(failed, Vec::<&String>::new(), "what failed is told above");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_needs_its_own_right() {
    let server = ApiServer::start().await;
    let client = server.plain_client(ADMIN_TOKEN).await;
    prepare(&client).await;
    let nobody = server.plain_client(NOBODY_TOKEN).await;
    let resources = discovered(&client).await;
    let requests: Vec<_> = resources.iter().flat_map(access::Request::of).collect();
    let asked = requests.iter().enumerate().map(|(number, request)| access::check(&client, &nobody, number, request));
    stream::iter(asked).buffer_unordered(2 * AT_ONCE).collect::<()>().await;
}
