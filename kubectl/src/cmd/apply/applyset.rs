//! `--applyset`: what was applied is tracked by labels, and by annotations of one object, the parent (KEP-3659).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use machinery::meta;
use runtime::env;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Options;
use crate::{
    cluster::{Call, Cluster},
    context::Context,
    discovery::{Resource, Served},
    error::CommandError,
    flags::Flag,
    print::DryRun,
    resolve::{Info, Query, Target},
};

/// Label of parents: the set's identity.
const ID: &str = "applyset.kubernetes.io/id";
/// Label of members: the identity of their set.
const PART_OF: &str = "applyset.kubernetes.io/part-of";
/// Annotation of parents: who keeps the set.
const TOOLING: &str = "applyset.kubernetes.io/tooling";
/// Annotation of parents: the kinds of members.
const KINDS: &str = "applyset.kubernetes.io/contains-group-kinds";
/// Annotation of parents: namespaces of members, but for its own.
const NAMESPACES: &str = "applyset.kubernetes.io/additional-namespaces";
/// Label of definitions whose objects may be parents.
const PARENT_TYPE: &str = "applyset.kubernetes.io/is-parent-type";
const TOOL: &str = "kubectl";
const MANAGER: &str = "kubectl-applyset";
/// Kind of parents that is meant when none is named.
const DEFAULT_PARENT: &str = "secrets";

/// `--applyset`, for those who have turned it on.
pub(super) fn flag() -> Option<Flag> {
    let usage = "[alpha] Name of the set of what is applied, [RESOURCE][.GROUP]/NAME; with --prune, what is in the set and not \
                 in the manifests is deleted. The set is kept in a Secret unless another resource is named.";
    is_enabled().then(|| Flag::text("applyset", "", usage))
}

fn is_enabled() -> bool {
    env::non_empty("KUBECTL_APPLYSET").is_some_and(|value| value == "true")
}

/// What a set has.
#[derive(Clone, Debug, Default)]
struct Contents {
    /// Resources by `Kind.group`.
    kinds: BTreeMap<String, Resource>,
    namespaces: BTreeSet<String>,
}

impl Contents {
    fn of<'a>(infos: impl Iterator<Item = &'a Info>) -> Self {
        let mut contents = Self::default();
        for info in infos {
            contents.kinds.insert(group_kind(&info.resource), info.resource.clone());
            if info.resource.namespaced {
                contents.namespaces.insert(info.namespace.clone());
            }
        }
        contents
    }

    fn and(mut self, other: &Self) -> Self {
        self.kinds.extend(other.kinds.clone());
        self.namespaces.extend(other.namespaces.clone());
        self
    }
}

/// A set, by its parent.
#[derive(Debug)]
pub(super) struct ApplySet {
    /// The parent; its object is not read.
    parent: Info,
    /// What the set had when the command began.
    before: Contents,
    force: bool,
}

impl ApplySet {
    /// The set that the flags name.
    pub(super) async fn of(context: &Context) -> Result<Option<Self>, CommandError> {
        if !is_enabled() || context.flags.text("applyset").is_empty() {
            return Ok(None);
        }
        let parent = parent(context).await.map_err(|why| {
            CommandError::plain(format!("invalid parent reference {:?}: {why}", context.flags.text("applyset")))
        })?;
        Ok(Some(Self { parent, before: Contents::default(), force: context.flags.bool("force-conflicts") }))
    }

    /// Whether the flags go together, and the parent may be one.
    pub(super) async fn check(&self, context: &Context) -> Result<(), CommandError> {
        let flags = &context.flags;
        let refuse = |text: &str| Err(CommandError::plain(text));
        if !flags.bool("prune") {
            return refuse("--applyset requires --prune");
        }
        let mut errors = Vec::new();
        if self.parent.resource.namespaced && self.parent.namespace.is_empty() {
            errors.push(CommandError::plain("namespace is required to use namespace-scoped ApplySet"));
        }
        if !self.may_be_parent(&*context.cluster().await?).await? {
            let Resource { group, version, plural, .. } = &self.parent.resource;
            let text =
                format!("resource \"{group}/{version}, Resource={plural}\" is not permitted as an ApplySet parent");
            errors.push(CommandError::plain(text));
        }
        CommandError::all(errors)?;
        if !flags.text("selector").is_empty() {
            return refuse("--selector is incompatible with --applyset");
        }
        if !flags.list("prune-allowlist").is_empty() {
            return refuse("--prune-allowlist is incompatible with --applyset");
        }
        if flags.bool("all") {
            return refuse("--all is incompatible with --applyset");
        }
        Ok(())
    }

    fn is_built_in(&self) -> bool {
        let resource = &self.parent.resource;
        resource.group.is_empty() && matches!(resource.plural.as_str(), "secrets" | "configmaps")
    }

    async fn may_be_parent(&self, cluster: &Cluster) -> Result<bool, CommandError> {
        if self.is_built_in() {
            return Ok(true);
        }
        let name = self.parent.resource.title();
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        match cluster.get(&path).await {
            Ok(definition) => Ok(definition["metadata"]["labels"].get(PARENT_TYPE).is_some()),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `secrets./name`, as failures name it.
    fn title(&self) -> String {
        format!("{}.{}/{}", self.parent.resource.plural, self.parent.resource.group, self.parent.name)
    }

    /// The identity that KEP-3659 derives from the parent.
    fn id(&self) -> String {
        let Info { name, namespace, resource, .. } = &self.parent;
        let digest = Sha256::digest(format!("{name}.{namespace}.{}.{}", resource.kind, resource.group));
        format!("applyset-{}-v1", URL_SAFE_NO_PAD.encode(digest))
    }

    /// Reads what the set has, if it is one that kubectl keeps.
    pub(super) async fn read(&mut self, cluster: &Cluster) -> Result<(), CommandError> {
        let object = match cluster.get(&self.parent.path()).await {
            Ok(object) => object,
            Err(error) if error.is_not_found() && self.is_built_in() => return Ok(()),
            Err(error) if error.is_not_found() => {
                return Err(CommandError::plain("custom resource ApplySet parents cannot be created automatically"));
            }
            Err(error) => {
                let text = format!("failed to fetch ApplySet parent object {:?}: {error}", self.title());
                return Err(CommandError::plain(text));
            }
        };
        self.belongs_to_kubectl(&object).map_err(CommandError::plain)?;
        let served = cluster.served().await?;
        let known = |group_kind: &str| served.preferred().into_iter().find(|r| self::group_kind(r) == group_kind);
        let annotation = |key: &str| object["metadata"]["annotations"][key].as_str();
        let Some(kinds) = annotation(KINDS) else {
            return Err(self.unreadable(&format!(
                "kubectl requires the {KINDS:?} annotation to be set on all ApplySet parent objects"
            )));
        };
        for group_kind in kinds.split(',').filter(|kind| !kind.is_empty()) {
            let Some(resource) = known(group_kind) else {
                let (kind, group) = group_kind.split_once('.').unwrap_or((group_kind, ""));
                return Err(self.unreadable(&format!(
                    "could not find mapping for kind in {KINDS:?} annotation: no matches for kind {kind:?} in group {group:?}"
                )));
            };
            self.before.kinds.insert(group_kind.to_owned(), resource.clone());
        }
        let namespaces = annotation(NAMESPACES).unwrap_or_default().split(',').filter(|name| !name.is_empty());
        self.before.namespaces = namespaces.map(str::to_owned).collect();
        if !self.parent.namespace.is_empty() {
            self.before.namespaces.insert(self.parent.namespace.clone());
        }
        Ok(())
    }

    fn unreadable(&self, why: &str) -> CommandError {
        CommandError::plain(format!("parsing ApplySet annotation on {:?}: {why}", self.title()))
    }

    fn belongs_to_kubectl(&self, object: &Value) -> Result<(), String> {
        let (title, id) = (self.title(), self.id());
        let Some(tooling) = object["metadata"]["annotations"][TOOLING].as_str() else {
            return Err(format!(
                "ApplySet parent object {title:?} already exists and is missing required annotation {TOOLING:?}"
            ));
        };
        let tool = tooling.split('/').next().unwrap_or_default();
        if tool != TOOL {
            return Err(format!(
                "ApplySet parent object {title:?} already exists and is managed by tooling {tool:?} instead of {TOOL:?}"
            ));
        }
        match object["metadata"]["labels"][ID].as_str() {
            None => Err(format!("ApplySet parent object {title:?} exists and does not have required label {ID}")),
            Some(other) if other != id => Err(format!(
                "ApplySet parent object {title:?} exists and has incorrect value for label {ID:?} (got: {other}, want: {id})"
            )),
            Some(_) => Ok(()),
        }
    }

    /// Makes objects members.
    pub(super) fn label(&self, infos: &mut [Info]) -> Result<(), CommandError> {
        for info in infos {
            let metadata = meta::object_mut(&mut info.object).entry("metadata").or_insert_with(|| json!({}));
            if metadata["labels"].get(PART_OF).is_some() {
                return Err(CommandError::plain(format!("ApplySet label {PART_OF:?} already set in input data")));
            }
            if !metadata["labels"].is_object() {
                metadata["labels"] = json!({});
            }
            metadata["labels"][PART_OF] = json!(self.id());
        }
        Ok(())
    }

    /// Before anything is applied: the parent tells of what was in the set and of what comes.
    pub(super) async fn widen(&self, context: &Context, infos: &[Info]) -> Result<(), CommandError> {
        let contents = Contents::of(infos.iter()).and(&self.before);
        self.write(context, &contents).await
    }

    /// After all is applied and pruned: the parent tells of what is left.
    pub(super) async fn narrow(&self, context: &Context, done: &[(Info, Value)]) -> Result<(), CommandError> {
        let written = self.write(context, &Contents::of(done.iter().map(|(info, _)| info))).await;
        written.map_err(|error| {
            CommandError::plain(format!("apply and prune succeeded, but ApplySet update failed: {error}"))
        })
    }

    async fn write(&self, context: &Context, contents: &Contents) -> Result<(), CommandError> {
        let cluster = context.cluster().await?;
        let outcome = match self.send(&cluster, contents, self.force).await {
            Err(error) if error.has_reason("Conflict") && !self.force => {
                writeln!(
                    context.streams.err.clone(),
                    "WARNING: failed to update ApplySet: {}\nApplySet field manager {MANAGER} should own these fields. \
                     Retrying with conflicts forced.",
                    error.status().map_or_else(|| error.to_string(), |status| status.message.clone())
                )?;
                self.send(&cluster, contents, true).await
            }
            outcome => outcome,
        };
        outcome.map_err(|error| {
            let text = error.status().map_or_else(|| error.to_string(), |status| status.message.clone());
            CommandError::plain(format!("failed to update ApplySet: {text}"))
        })
    }

    async fn send(&self, cluster: &Cluster, contents: &Contents, force: bool) -> Result<(), CommandError> {
        let Info { name, namespace, resource, .. } = &self.parent;
        let kinds: Vec<&str> = contents.kinds.keys().map(String::as_str).collect();
        let others: Vec<&str> = contents.namespaces.iter().map(String::as_str).filter(|n| n != namespace).collect();
        let mut object = json!({
            "apiVersion": resource.api_version(),
            "kind": resource.kind,
            "metadata": {
                "name": name,
                "labels": {ID: self.id()},
                "annotations": {
                    TOOLING: format!("{TOOL}/{}", runtime::version::git_version()),
                    KINDS: kinds.join(","),
                    NAMESPACES: others.join(","),
                },
            },
        });
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = json!(namespace);
        }
        let call = Call::patch(&self.parent.path(), "application/apply-patch+yaml", &object)
            .query("fieldManager", MANAGER)
            .query("fieldValidation", "Strict")
            .query("force", force.to_string());
        cluster.json(&call).await.map(drop)
    }

    /// Members that were not applied now.
    pub(super) async fn left_over(&self, cluster: &Cluster, done: &[(Info, Value)]) -> Result<Vec<Info>, CommandError> {
        let query = Query { selector: format!("{PART_OF}={}", self.id()), ..Query::default() };
        let mut left = Vec::new();
        for resource in self.before.kinds.values() {
            let everywhere = [String::new()];
            let namespaces: Vec<&String> =
                if resource.namespaced { self.before.namespaces.iter().collect() } else { everywhere.iter().collect() };
            for namespace in namespaces {
                let target =
                    Target { resource: resource.clone(), namespace: namespace.clone(), name: None, manifest: None };
                let found = query.fetch_list(cluster, &target).await?;
                let is_done = |info: &Info| done.iter().any(|(_, object)| meta::uid(object) == meta::uid(&info.object));
                left.extend(found.into_iter().filter(|info| !is_done(info)));
            }
        }
        Ok(left)
    }
}

fn group_kind(resource: &Resource) -> String {
    match resource.group.as_str() {
        "" => resource.kind.clone(),
        group => format!("{}.{group}", resource.kind),
    }
}

/// The parent that `--applyset` names.
async fn parent(context: &Context) -> Result<Info, String> {
    let text = context.flags.text("applyset");
    let (word, name) = text.split_once('/').unwrap_or((DEFAULT_PARENT, text));
    if name.is_empty() {
        return Err("name cannot be blank".to_owned());
    }
    if word.is_empty() {
        return Err("a resource must be present, got: /, Resource=".to_owned());
    }
    let (plural, group) = word.split_once('.').unwrap_or((word, ""));
    // A version is no part of the reference.
    let of = |served: &Served| served.find(word).filter(|resource| resource.group.starts_with(group)).cloned();
    let cluster = context.cluster().await.map_err(|error| error.to_string())?;
    let served = cluster.served_with(|served| of(served).is_some()).await.map_err(|error| error.to_string())?;
    let Some(resource) = of(&served) else {
        return Err(format!("no matches for {group}/, Resource={}", plural.to_lowercase()));
    };
    let namespace = if resource.namespaced { context.flags.text("namespace") } else { "" };
    Ok(Info { resource, namespace: namespace.to_owned(), name: name.to_owned(), ..Info::default() })
}

/// Whether a set is written at all.
pub(super) fn is_kept(options: &Options) -> bool {
    options.dry_run == DryRun::None
}
