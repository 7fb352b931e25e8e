//! A copy of a Pod with other images, another command, or a container more.

use machinery::meta;
use serde_json::{Map, Value, json};

use super::profile::{self, Place};
use crate::{context::Context, error::CommandError};

/// What the flags ask of a copy.
#[derive(Debug, Default)]
pub(super) struct Wanted<'a> {
    pub(super) name: &'a str,
    pub(super) profile: &'a str,
    /// Name of the container to change or to add; empty for a made one.
    pub(super) container: &'a str,
    pub(super) image: &'a str,
    /// Names of containers, or `*`, and images.
    pub(super) images: Vec<(String, String)>,
    pub(super) same_node: bool,
    /// `--share-processes`, if it was given.
    pub(super) share_processes: Option<bool>,
    pub(super) keep_labels: bool,
    pub(super) keep_annotations: bool,
    pub(super) keep_init_containers: bool,
    /// Fields of probes that are kept.
    pub(super) keep_probes: Vec<&'static str>,
}

/// Probes of containers, with the flags that keep them.
const PROBES: [(&str, &str); 3] =
    [("livenessProbe", "keep-liveness"), ("readinessProbe", "keep-readiness"), ("startupProbe", "keep-startup")];

impl<'a> Wanted<'a> {
    /// As the flags say.
    pub(super) fn of(context: &'a Context) -> Self {
        let flags = &context.flags;
        let pairs = flags.list("set-image").iter().filter_map(|pair| pair.split_once('='));
        Self {
            name: flags.text("copy-to"),
            profile: flags.text("profile"),
            container: flags.text("container"),
            image: flags.text("image"),
            images: pairs.map(|(name, image)| (name.to_owned(), image.to_owned())).collect(),
            same_node: flags.bool("same-node"),
            share_processes: flags.given("share-processes").then(|| flags.bool("share-processes")),
            keep_labels: flags.bool("keep-labels"),
            keep_annotations: flags.bool("keep-annotations"),
            keep_init_containers: flags.bool("keep-init-containers"),
            keep_probes: PROBES.iter().filter(|(_, flag)| flags.bool(flag)).map(|(probe, _)| *probe).collect(),
        }
    }

    /// The copy, and the container that is the subject; none if only images were changed.
    pub(super) fn copy(
        &self,
        pod: &Value,
        fill: impl Fn(&mut Value) -> Result<(), CommandError>,
        made: impl FnOnce() -> Result<String, CommandError>,
    ) -> Result<(Value, Option<String>), CommandError> {
        let mut copy = self.bare(pod);
        self.change_images(&mut copy);
        let has = |list: &str| {
            copy["spec"][list].as_array().is_some_and(|all| all.iter().any(|c| c["name"] == self.container))
        };
        let place = ["containers", "initContainers"].into_iter().find(|list| has(list));
        let (list, name) = match place {
            Some(list) => (list, self.container.to_owned()),
            None if self.image.is_empty() && !self.images.is_empty() => return Ok((copy, None)),
            None if self.image.is_empty() => {
                return Err(CommandError::plain("you must specify image when creating new container"));
            }
            None => {
                let name = if self.container.is_empty() { made()? } else { self.container.to_owned() };
                let container = json!({"name": name, "terminationMessagePolicy": "File"});
                if let Some(all) = copy["spec"]["containers"].as_array_mut() {
                    all.push(container);
                }
                ("containers", name)
            }
        };
        self.around(&mut copy);
        let all = copy["spec"][list].as_array_mut().into_iter().flatten();
        for container in all.filter(|container| container["name"] == name.as_str()) {
            profile::apply(self.profile, Place::Copy, container);
            fill(container)?;
        }
        Ok((copy, Some(name)))
    }

    /// The Pod under the new name, not yet changed.
    fn bare(&self, pod: &Value) -> Value {
        let mut metadata = Map::new();
        metadata.insert("name".into(), self.name.into());
        metadata.insert("namespace".into(), meta::namespace(pod).into());
        for key in ["labels", "annotations"] {
            if let Some(map) = pod["metadata"].get(key) {
                metadata.insert(key.into(), map.clone());
            }
        }
        let mut spec = pod["spec"].clone();
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("ephemeralContainers");
            if !self.same_node {
                spec.remove("nodeName");
            }
            if let Some(share) = self.share_processes {
                spec.insert("shareProcessNamespace".into(), share.into());
            }
        }
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    }

    fn change_images(&self, copy: &mut Value) {
        for list in ["containers", "initContainers"] {
            for container in copy["spec"][list].as_array_mut().into_iter().flatten() {
                let image = |name: &str| self.images.iter().find(|(n, _)| n == name).map(|(_, image)| image.clone());
                let own = container["name"].as_str().and_then(image);
                // The asterisk means the containers that run along.
                let any = || if list == "containers" { image("*") } else { None };
                if let Some(image) = own.or_else(any) {
                    container["image"] = image.into();
                }
            }
        }
    }

    /// What is taken from the copy so that nobody takes it for the original.
    fn around(&self, copy: &mut Value) {
        let legacy = self.profile == "legacy";
        let metadata = meta::metadata_mut(copy);
        if !self.keep_labels {
            metadata.remove("labels");
        }
        if !self.keep_annotations && !legacy {
            metadata.remove("annotations");
        }
        if legacy {
            return;
        }
        let Some(spec) = copy["spec"].as_object_mut() else { return };
        if !spec.contains_key("shareProcessNamespace") {
            spec.insert("shareProcessNamespace".into(), true.into());
        }
        if !self.keep_init_containers {
            spec.remove("initContainers");
        }
        for container in spec.get_mut("containers").and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            container.retain(|field, _| {
                !PROBES.iter().any(|(probe, _)| probe == field) || self.keep_probes.contains(&field.as_str())
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({"metadata": {"name": "p", "namespace": "n", "labels": {"a": "b"}, "annotations": {"x": "z"}},
            "spec": {"nodeName": "n1", "initContainers": [{"name": "i", "image": "init"}],
                "containers": [{"name": "c1", "image": "one", "livenessProbe": {}}, {"name": "c2", "image": "two"}]}})
    }

    fn copied(wanted: &Wanted<'_>) -> Result<(Value, Option<String>), CommandError> {
        let fill = |container: &mut Value| {
            if !wanted.image.is_empty() {
                container["image"] = wanted.image.into();
            }
            Ok(())
        };
        wanted.copy(&pod(), fill, || Ok("made".to_owned()))
    }

    fn general<'a>() -> Wanted<'a> {
        Wanted { name: "q", profile: "general", keep_init_containers: true, ..Wanted::default() }
    }

    #[test]
    fn copies_have_a_container_more_and_no_marks_of_the_original() {
        let (copy, name) = copied(&Wanted { image: "busybox", ..general() }).expect("a copy");
        assert_eq!(name.as_deref(), Some("made"));
        assert_eq!(copy["metadata"], json!({"name": "q", "namespace": "n"}));
        let spec = &copy["spec"];
        assert_eq!(spec["shareProcessNamespace"], true);
        assert!(spec.get("nodeName").is_none() && spec["containers"][0].get("livenessProbe").is_none());
        assert_eq!(spec["containers"][2]["image"], "busybox");
        assert_eq!(spec["containers"][2]["securityContext"], json!({"capabilities": {"add": ["SYS_PTRACE"]}}));
        assert_eq!(spec["initContainers"][0]["name"], "i");
    }

    #[test]
    fn images_alone_leave_the_rest() {
        let images = vec![("*".to_owned(), "all".to_owned()), ("c2".to_owned(), "mine".to_owned())];
        let (copy, name) = copied(&Wanted { images, same_node: true, ..general() }).expect("a copy");
        assert_eq!(name, None);
        assert_eq!(copy["metadata"]["labels"]["a"], "b");
        let images: Vec<&Value> =
            copy["spec"]["containers"].as_array().into_iter().flatten().map(|c| &c["image"]).collect();
        assert_eq!(images, ["all", "mine"]);
        assert_eq!(
            (&copy["spec"]["nodeName"], &copy["spec"]["initContainers"][0]["image"]),
            (&json!("n1"), &json!("init"))
        );
    }

    #[test]
    fn containers_that_exist_are_changed_and_others_need_an_image() {
        let (copy, name) =
            copied(&Wanted { container: "c2", keep_probes: vec!["livenessProbe"], ..general() }).expect("a copy");
        assert_eq!((name.as_deref(), copy["spec"]["containers"].as_array().map(Vec::len)), (Some("c2"), Some(2)));
        assert!(copy["spec"]["containers"][0].get("livenessProbe").is_some());
        let refused = copied(&Wanted { container: "new", ..general() }).expect_err("refused");
        assert_eq!(refused.to_string(), "you must specify image when creating new container");
    }
}
