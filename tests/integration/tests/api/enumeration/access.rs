//! Who may do what: without a right, and with exactly one.

use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};

use super::{
    NAMESPACE, Resource,
    wire::{Encoding, ask},
};

/// What every authenticated user may do.
const FOR_ALL: [&str; 3] = ["selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"];
/// An object that is not there.
const ABSENT: &str = "absent";

/// A verb of a resource or subresource, as a request.
#[derive(Clone)]
pub(super) struct Request {
    group: String,
    plural: String,
    subresource: String,
    verb: String,
    method: &'static str,
    path: String,
    /// Whether the request names an object.
    named: bool,
    namespace: Option<&'static str>,
    /// Another verb of the same resource.
    other: Option<Box<Request>>,
}

impl Request {
    /// All requests that a resource and its subresources serve.
    pub(super) fn of(resource: &Resource) -> Vec<Self> {
        let own = std::iter::once((String::new(), &resource.verbs));
        let subresources = resource.subresources.iter().map(|sub| (format!("/{}", sub.name), &sub.verbs));
        let mut requests = Vec::new();
        for (subresource, verbs) in own.chain(subresources) {
            let all: Vec<Self> = verbs.iter().map(|verb| Self::new(resource, &subresource, verb)).collect();
            for (at, request) in all.iter().enumerate() {
                let other = all.get((at + 1) % all.len()).filter(|other| other.verb != request.verb);
                requests.push(Self { other: other.cloned().map(Box::new), ..request.clone() });
            }
        }
        requests
    }

    fn new(resource: &Resource, subresource: &str, verb: &str) -> Self {
        let (collection, item) = (resource.collection(), format!("{}{subresource}", resource.item(ABSENT)));
        let (method, path) = match verb {
            "get" => ("GET", item),
            "list" => ("GET", collection),
            "watch" => ("GET", format!("{collection}?watch=true&timeoutSeconds=60")),
            "create" if subresource.is_empty() => ("POST", collection),
            "create" => ("POST", item),
            "update" => ("PUT", item),
            "patch" => ("PATCH", item),
            "delete" => ("DELETE", item),
            "deletecollection" => ("DELETE", format!("{collection}?labelSelector=none%3Dnone")),
            other => panic!("{}: an unknown verb {other}", resource.plural),
        };
        let named = path.contains(ABSENT);
        let namespace = match (resource.namespaced, resource.plural.as_str()) {
            (true, _) => Some(NAMESPACE),
            (false, "namespaces") if named => Some(ABSENT),
            _ => None,
        };
        Self {
            group: resource.group().to_owned(),
            plural: resource.plural.clone(),
            subresource: subresource.to_owned(),
            verb: verb.to_owned(),
            method,
            path,
            named,
            namespace,
            other: None,
        }
    }

    /// What somebody without the right is told.
    fn refusal(&self, user: &str) -> String {
        let Self { group, plural, subresource, verb, .. } = self;
        let resource = if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") };
        let name = if self.named { format!(" \"{ABSENT}\"") } else { String::new() };
        let place = match self.namespace {
            Some(namespace) => format!("in the namespace \"{namespace}\""),
            None => "at the cluster scope".to_owned(),
        };
        format!(
            "{resource}{name} is forbidden: User \"{user}\" cannot {verb} resource \"{plural}{subresource}\" in API \
             group \"{group}\" {place}"
        )
    }

    /// Code and, of refusals, message of the answer.
    async fn send(&self, client: &Client, user: Option<&str>) -> (u16, String) {
        let content_type = if self.method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = http::Request::builder().method(self.method).uri(&self.path).header("content-type", content_type);
        let request = user.into_iter().fold(request, |request, user| request.header("impersonate-user", user));
        let body = if matches!(self.method, "GET" | "DELETE") { Vec::new() } else { b"{}".to_vec() };
        let answer = client.send(request.body(Body::from(body)).expect("a request")).await;
        let answer = answer.unwrap_or_else(|error| panic!("{} {}: {error}", self.method, self.path));
        let code = answer.status().as_u16();
        if code != 403 {
            return (code, String::new());
        }
        let bytes = answer.into_body().collect().await.expect("a body").to_bytes();
        let status: Value = serde_json::from_slice(&bytes).expect("a Status");
        (code, status["message"].as_str().unwrap_or_default().to_owned())
    }
}

impl Request {
    /// The right that the request needs. What goes into a running container needs another: a WebSocket starts as a GET.
    fn rights(&self) -> Vec<&str> {
        let streams = matches!(self.subresource.as_str(), "/exec" | "/attach" | "/portforward");
        if streams && self.verb == "get" { vec!["get", "create"] } else { vec![&self.verb] }
    }
}

/// Makes a user who may do this and nothing else.
async fn allow(client: &Client, name: &str, request: &Request) {
    let group = "rbac.authorization.k8s.io";
    let resource = format!("{}{}", request.plural, request.subresource);
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name},
        "rules": [{"apiGroups": [request.group], "resources": [resource], "verbs": request.rights()}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": group, "kind": "User", "name": name}],
    });
    for (plural, object) in [("clusterroles", role), ("clusterrolebindings", binding)] {
        let path = format!("/apis/{group}/v1/{plural}");
        let (code, answer) = ask(client, "POST", &path, Encoding::Json, &object).await;
        assert_eq!(code, 201, "{answer}");
    }
}

/// Tries one verb as a user without rights, as one with exactly this right, and the next verb as the latter.
pub(super) async fn check(admin: &Client, nobody: &Client, number: usize, request: &Request) {
    if FOR_ALL.contains(&request.plural.as_str()) {
        assert_ne!(request.send(nobody, None).await.0, 403, "{}", request.path);
        return;
    }
    assert_eq!(request.send(nobody, None).await, (403, request.refusal("nobody")));
    let user = format!("user-{number}");
    allow(admin, &user, request).await;
    // Rules are followed, not read with each request.
    harness::wait_until("the right to be known", || async {
        let (code, message) = request.send(admin, Some(&user)).await;
        assert_ne!(code, 401, "{} {}", request.method, request.path);
        if code == 403 { Err(format!("{} {}: {message}", request.method, request.path)) } else { Ok(()) }
    })
    .await;
    if let Some(other) = request.other.as_ref().filter(|other| !request.rights().contains(&other.verb.as_str())) {
        assert_eq!(other.send(admin, Some(&user)).await, (403, other.refusal(&user)));
    }
}
