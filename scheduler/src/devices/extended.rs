//! Extended resources that devices stand for: a Pod wants `example.com/gpu: 2`, a class says that its devices are what the
//! name means, and a claim is made for the Pod when it gets a node. A node whose kubelet offers the resource itself needs
//! none.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use controller::Cached;
use k8s_openapi::api::{
    core::v1::ContainerExtendedResourceRequest,
    resource::v1::{DeviceRequest, ExactDeviceRequest},
};

use super::inventory::Place;
use crate::objects::{DeviceClassView, OF_CLASS, Template};

/// Classes by the resources that they stand for.
#[derive(Debug, Default)]
pub(super) struct Meanings(HashMap<Box<str>, Box<str>>);

impl Meanings {
    /// Of classes that stand for the same resource the newest counts, of those the first by name.
    pub(super) fn new(mut classes: Vec<Arc<Cached<DeviceClassView>>>) -> Self {
        classes.sort_by(|a, b| a.created.cmp(&b.created).then_with(|| b.key.name.cmp(&a.key.name)));
        let mut meanings = HashMap::new();
        for class in classes {
            let name = class.key.name.as_str();
            meanings.insert(format!("{OF_CLASS}{name}").into(), name.into());
            if let Some(resource) = &class.resource {
                meanings.insert(resource.clone(), name.into());
            }
        }
        Self(meanings)
    }

    pub(super) fn class(&self, resource: &str) -> Option<&str> {
        self.0.get(resource).map(|class| &**class)
    }
}

/// What a Pod wants of resources that devices stand for.
#[derive(Debug)]
pub(super) struct Backed {
    template: Arc<Template>,
    /// Resources with their classes.
    classes: BTreeMap<Box<str>, Box<str>>,
}

/// What the claim of a Pod asks for, and which container each request is for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Asked {
    pub(super) requests: Vec<DeviceRequest>,
    pub(super) mappings: Vec<ContainerExtendedResourceRequest>,
}

impl Backed {
    /// `None` if no class stands for anything that the Pod wants.
    pub(super) fn new(template: &Arc<Template>, meanings: &Meanings) -> Option<Self> {
        let names = template.extended.iter().flat_map(|container| &container.amounts);
        let classes: BTreeMap<_, _> =
            names.filter_map(|(name, _)| Some((name.clone(), meanings.class(name)?.into()))).collect();
        (!classes.is_empty()).then(|| Self { template: Arc::clone(template), classes })
    }

    /// For each resource whether a node needs devices for it, because it does not offer the resource itself.
    pub(super) fn missing(&self, place: &Place<'_>) -> Vec<bool> {
        self.classes.keys().map(|resource| !place.node.provides(resource)).collect()
    }

    /// The requests for those resources that are missing. Init containers are over when the others start, so that one
    /// that wants as many as another container has the same devices.
    pub(super) fn asked(&self, missing: &[bool]) -> Asked {
        let wanted: Vec<(&str, &str)> = self
            .classes
            .iter()
            .zip(missing)
            .filter(|(_, missing)| **missing)
            .map(|((resource, class), _)| (&**resource, &**class))
            .collect();
        let mut asked = Asked::default();
        // Requests that init containers may share: resource, amount and name.
        let mut shared: Vec<(&str, i64, String)> = Vec::new();
        for passing in [false, true] {
            for need in self.template.extended.iter().filter(|need| need.passing == passing) {
                let amounts = need.amounts.iter().filter_map(|(resource, amount)| {
                    let (name, class) = wanted.iter().find(|(name, _)| **name == **resource)?;
                    Some((*name, *class, *amount))
                });
                for (at, (resource, class, amount)) in amounts.enumerate() {
                    let same = |(r, n, _): &&(&str, i64, String)| passing && *r == resource && *n == amount;
                    let request = match shared.iter().find(same) {
                        Some((_, _, name)) => name.clone(),
                        None => {
                            let name = format!("container-{}-request-{at}", need.at);
                            asked.requests.push(request(&name, class, amount));
                            // A sidecar keeps what it has while init containers run.
                            if !need.sidecar {
                                shared.push((resource, amount, name.clone()));
                            }
                            name
                        }
                    };
                    asked.mappings.push(ContainerExtendedResourceRequest {
                        container_name: need.container.to_string(),
                        resource_name: resource.to_owned(),
                        request_name: request,
                    });
                }
            }
        }
        asked
    }
}

fn request(name: &str, class: &str, count: i64) -> DeviceRequest {
    let exactly = ExactDeviceRequest {
        device_class_name: class.to_owned(),
        allocation_mode: Some("ExactCount".to_owned()),
        count: Some(count),
        ..ExactDeviceRequest::default()
    };
    DeviceRequest { name: name.to_owned(), exactly: Some(exactly), first_available: None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{devices::testing::class, plugins::testing::pod_view};

    #[test]
    fn the_newest_class_counts() {
        let meanings = Meanings::new(vec![
            class("old", json!({"extendedResourceName": "example.com/gpu"}), "2026-01-01T00:00:00Z"),
            class("b", json!({"extendedResourceName": "example.com/gpu"}), "2026-01-02T00:00:00Z"),
            class("a", json!({"extendedResourceName": "example.com/gpu"}), "2026-01-02T00:00:00Z"),
        ]);
        assert_eq!(meanings.class("example.com/gpu"), Some("a"));
        assert_eq!(meanings.class("deviceclass.resource.kubernetes.io/old"), Some("old"));
        assert_eq!(meanings.class("example.com/nic"), None);
    }

    #[test]
    fn requests_by_container() {
        let meanings = Meanings::new(vec![class(
            "gpu",
            json!({"extendedResourceName": "example.com/gpu"}),
            "2026-01-01T00:00:00Z",
        )]);
        let of = |name: &str, n: &str, more: serde_json::Value| {
            let mut all = json!({"name": name, "image": "i",
                "resources": {"requests": {"example.com/gpu": n, "example.com/other": "1", "cpu": "1"}}});
            all.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
            all
        };
        let pod = pod_view("p", |p| {
            p.spec(
                "initContainers",
                json!([of("first", "2", json!({})), of("side", "1", json!({"restartPolicy": "Always"}))]),
            )
            .spec("containers", json!([of("main", "2", json!({})), of("none", "0", json!({}))]))
        });
        let backed = Backed::new(&pod.template, &meanings).unwrap();
        let asked = backed.asked(&[true]);
        let told: Vec<(&str, Option<i64>)> =
            asked.requests.iter().map(|r| (r.name.as_str(), r.exactly.as_ref().unwrap().count)).collect();
        assert_eq!(told, [("container-1-request-0", Some(1)), ("container-2-request-0", Some(2))]);
        let mapped: Vec<(&str, &str)> =
            asked.mappings.iter().map(|m| (m.container_name.as_str(), m.request_name.as_str())).collect();
        assert_eq!(
            mapped,
            [("side", "container-1-request-0"), ("main", "container-2-request-0"), ("first", "container-2-request-0")]
        );
        assert_eq!(backed.asked(&[false]), Asked::default());
        assert!(Backed::new(&pod_view("q", |p| p).template, &meanings).is_none());
    }
}
