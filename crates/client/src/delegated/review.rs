//! Whether a caller may.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::{Api, Client, api::PostParams};
use runtime::{Runtime, clock::Clock, flags::DelegatedAuthArgs};

use super::{AuthMetrics, Caller};
use crate::{ApiErrorExt, answers::Answers};

/// Time for one review.
const DEADLINE: Duration = Duration::from_secs(10);

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Allowed,
    /// With the reason, if there is one.
    Denied(String),
    /// There is no answer.
    Failed,
}

pub(super) struct Reviews {
    client: Client,
    allowed_ttl: Duration,
    denied_ttl: Duration,
    known: Answers<(Caller, String, String), Decision>,
    clock: Arc<dyn Clock>,
    metrics: AuthMetrics,
}

impl Reviews {
    pub(super) fn new(client: Client, args: &DelegatedAuthArgs, metrics: AuthMetrics, runtime: &Runtime) -> Self {
        Self {
            client,
            allowed_ttl: args.authorization_webhook_cache_authorized_ttl,
            denied_ttl: args.authorization_webhook_cache_unauthorized_ttl,
            known: Answers::new(),
            clock: Arc::clone(&runtime.clock),
            metrics,
        }
    }

    pub(super) async fn ask(&self, caller: &Caller, verb: &str, path: &str) -> Decision {
        let began = self.clock.elapsed();
        let key = (caller.clone(), verb.to_owned(), path.to_owned());
        if let Some(known) = self.known.get(&key, began) {
            return known;
        }
        let resource = resource_attributes(verb, path);
        let other = resource
            .is_none()
            .then(|| NonResourceAttributes { path: Some(path.to_owned()), verb: Some(verb.to_owned()) });
        let spec = SubjectAccessReviewSpec {
            user: Some(caller.name.clone()),
            uid: Some(caller.uid.clone()).filter(|u| !u.is_empty()),
            groups: Some(caller.groups.clone()),
            extra: Some(caller.extra.clone()).filter(|e| !e.is_empty()),
            resource_attributes: resource,
            non_resource_attributes: other,
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let params = PostParams::default();
        let answered = tokio::time::timeout(DEADLINE, api.create(&params, &review)).await;
        let now = self.clock.elapsed();
        let code = match &answered {
            Ok(Ok(_)) => "201".to_owned(),
            Ok(Err(error)) => error.status().map_or_else(|| "<error>".to_owned(), |s| s.code.to_string()),
            Err(_) => "<error>".to_owned(),
        };
        self.metrics.finished(&code, now.saturating_sub(began));
        let status = match answered {
            Ok(Ok(review)) => review.status.unwrap_or_default(),
            Ok(Err(error)) => {
                tracing::error!(err = %error.text(), "Unable to authorize the request");
                return Decision::Failed;
            }
            Err(_) => {
                tracing::error!(err = "no answer in time", "Unable to authorize the request");
                return Decision::Failed;
            }
        };
        let (decision, ttl) = if status.allowed {
            (Decision::Allowed, self.allowed_ttl)
        } else {
            (Decision::Denied(status.reason.unwrap_or_default()), self.denied_ttl)
        };
        self.known.put(key, decision.clone(), now, ttl);
        decision
    }
}

/// What a path below `/apis/<group>/<version>/` is about, for components that serve an API; `verb` is the method.
fn resource_attributes(verb: &str, path: &str) -> Option<ResourceAttributes> {
    let mut parts = path.strip_prefix("/apis/")?.split('/').filter(|part| !part.is_empty());
    let (group, version) = (parts.next()?, parts.next()?);
    let mut rest: Vec<&str> = parts.collect();
    let namespace = match rest.as_slice() {
        ["namespaces", namespace, _, ..] => Some((*namespace).to_owned()),
        _ => None,
    };
    if namespace.is_some() {
        rest.drain(..2);
    }
    let (resource, name, subresource) = (rest.first()?, rest.get(1), rest.get(2));
    let verb = match (verb, name) {
        ("get" | "head", Some(_)) => "get",
        ("get" | "head", None) => "list",
        ("post", _) => "create",
        ("put", _) => "update",
        ("delete", None) => "deletecollection",
        (other, _) => other,
    };
    let text = |text: &str| Some(text.to_owned());
    Some(ResourceAttributes {
        group: text(group),
        version: text(version),
        resource: text(resource),
        name: name.and_then(|name| text(name)),
        subresource: subresource.and_then(|name| text(name)),
        namespace,
        verb: text(verb),
        ..ResourceAttributes::default()
    })
}

#[cfg(test)]
mod tests {
    use super::resource_attributes;

    #[test]
    fn paths_of_resources() {
        let shown = |verb: &str, path: &str| {
            let of = resource_attributes(verb, path)?;
            let parts = [of.verb, of.group, of.resource, of.namespace, of.name, of.subresource];
            Some(parts.map(Option::unwrap_or_default).join(" "))
        };
        let root = "/apis/metrics.k8s.io/v1beta1";
        for (verb, path, expected) in [
            ("get", format!("{root}/nodes"), Some("list metrics.k8s.io nodes   ")),
            ("get", format!("{root}/nodes/n1"), Some("get metrics.k8s.io nodes  n1 ")),
            ("get", format!("{root}/namespaces/d/pods"), Some("list metrics.k8s.io pods d  ")),
            ("get", format!("{root}/namespaces/d/pods/p/status"), Some("get metrics.k8s.io pods d p status")),
            ("post", format!("{root}/namespaces/d/pods"), Some("create metrics.k8s.io pods d  ")),
            ("get", root.to_owned(), None),
            ("get", "/apis".to_owned(), None),
            ("get", "/metrics".to_owned(), None),
        ] {
            assert_eq!(shown(verb, &path).as_deref(), expected, "{path}");
        }
    }
}
