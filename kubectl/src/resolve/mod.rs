//! Which objects a command is about: arguments, files and selectors, resolved once for all commands.

pub mod arguments;
pub mod files;
#[cfg(test)]
mod tests;

use machinery::meta;
use serde_json::Value;

use crate::{
    cluster::{Call, Cluster},
    context::Context,
    discovery::Resource,
    error::CommandError,
    flags::Flag,
};

pub use files::{Manifest, Sources};

/// Objects a page of a list has at most.
pub const CHUNK: i64 = 500;

/// An object that a command is about.
#[derive(Clone, Debug, Default)]
pub struct Info {
    /// Its resource.
    pub resource: Resource,
    /// Its namespace; empty in the cluster's scope.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The file it was read from; empty if it was named or found.
    pub source: String,
    /// The object: from the file, or from the server.
    pub object: Value,
}

impl Info {
    /// Path of the object.
    pub fn path(&self) -> String {
        format!("{}/{}", self.resource.path(&self.namespace), self.name)
    }

    /// Path of the collection it is in.
    pub fn collection(&self) -> String {
        self.resource.path(&self.namespace)
    }

    /// `pods/web`, as errors and waits report it.
    pub fn plural_title(&self) -> String {
        format!("{}/{}", self.resource.title(), self.name)
    }

    /// Reads the object from the server.
    pub async fn fetch(&mut self, cluster: &Cluster) -> Result<(), CommandError> {
        let answer = cluster.get(&self.path()).await;
        self.object = known_namespace(cluster, &self.namespace, answer).await?;
        Ok(())
    }

    /// Takes over what the server answered.
    pub fn refresh(&mut self, object: Value) {
        if !meta::name(&object).is_empty() {
            self.name = meta::name(&object).to_owned();
        }
        self.object = object;
    }
}

/// An answer; if nothing was found because the namespace does not exist, that is the failure.
pub async fn known_namespace(
    cluster: &Cluster,
    namespace: &str,
    answer: Result<Value, CommandError>,
) -> Result<Value, CommandError> {
    match answer {
        Err(error) if error.is_not_found() && !matches!(namespace, "" | "default") => {
            match cluster.get(&format!("/api/v1/namespaces/{namespace}")).await {
                Err(missing) if missing.is_not_found() => Err(missing),
                _ => Err(error),
            }
        }
        answer => answer,
    }
}

/// What was asked for before anything is fetched.
#[derive(Clone, Debug)]
pub struct Target {
    /// The resource.
    pub resource: Resource,
    /// Namespace; empty for all, or in the cluster's scope.
    pub namespace: String,
    /// A name; `None` for all that the selectors choose.
    pub name: Option<String>,
    /// The file it was read from.
    pub manifest: Option<Manifest>,
}

/// Arguments, files and selectors of a command.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// `-f`, `-k`, `-R`.
    pub sources: Sources,
    /// `TYPE NAME` and the like.
    pub arguments: Vec<String>,
    /// `-l`.
    pub selector: String,
    /// `--field-selector`.
    pub field_selector: String,
    /// `-A`.
    pub all_namespaces: bool,
    /// Whether a type alone means all its objects (`--all`, or a command such as get).
    pub all: bool,
    /// `--subresource`.
    pub subresource: String,
    /// `--chunk-size`; 0 for whole lists, `None` for [`CHUNK`].
    pub chunk: Option<i64>,
    /// Objects of files are read from the server too.
    pub latest: bool,
    /// Named objects are not read: [`Info::object`] stays null.
    pub unread: bool,
    /// The server is not asked for anything; only objects of files can be found.
    pub local: bool,
}

/// What a query found. Failures do not keep the others from being found.
#[derive(Debug, Default)]
pub struct Found {
    /// The objects.
    pub infos: Vec<Info>,
    /// What was not found.
    pub errors: Vec<CommandError>,
    /// Whether exactly one object was named.
    pub single: bool,
}

impl Found {
    /// The objects, if nothing failed.
    pub fn all(self) -> Result<Vec<Info>, CommandError> {
        CommandError::all(self.errors)?;
        Ok(self.infos)
    }
}

/// Flags of files.
pub fn file_flags(usage: &'static str) -> Vec<Flag> {
    vec![
        Flag::list("filename", usage).short('f'),
        Flag::text(
            "kustomize",
            "",
            "Process the kustomization directory. This flag can't be used together with -f or -R.",
        )
        .short('k'),
        Flag::switch("recursive", "Take files of directories below too.").short('R'),
    ]
}

/// `--local`.
pub fn local_flag() -> Flag {
    Flag::switch("local", "Work on the objects of the files alone; the server is not asked for anything.")
}

/// `-l`.
pub fn selector_flag() -> Flag {
    Flag::text("selector", "", "Label query: '=', '==', '!=', 'in', 'notin'; all terms have to hold.").short('l')
}

/// `--field-selector`.
pub fn field_selector_flag() -> Flag {
    Flag::text("field-selector", "", "Field query: '=', '==' and '!='. A type supports few fields.")
}

/// `-A`.
pub fn all_namespaces_flag() -> Flag {
    Flag::switch("all-namespaces", "Objects of all namespaces; the current one is ignored.").short('A')
}

/// `--chunk-size`.
pub fn chunk_flag() -> Flag {
    Flag::int("chunk-size", "500", "Objects a page of a list has at most; 0 for whole lists.")
}

impl Query {
    /// What the flags and arguments of a command ask for. Flags that the command does not have are left out.
    pub fn of(context: &Context) -> Self {
        let flags = &context.flags;
        let text = |name: &str| if flags.has(name) { flags.text(name).to_owned() } else { String::new() };
        let on = |name: &str| flags.has(name) && flags.bool(name);
        Self {
            sources: Sources::of(flags),
            arguments: context.args.clone(),
            selector: text("selector"),
            field_selector: text("field-selector"),
            all_namespaces: on("all-namespaces"),
            all: on("all"),
            subresource: text("subresource"),
            local: on("local"),
            chunk: flags.has("chunk-size").then(|| flags.int("chunk-size")),
            ..Self::default()
        }
    }

    /// With other arguments.
    #[must_use]
    pub fn arguments(mut self, arguments: &[String]) -> Self {
        self.arguments = arguments.to_vec();
        self
    }

    /// A type alone means all its objects.
    #[must_use]
    pub fn all(mut self) -> Self {
        self.all = true;
        self
    }

    /// Objects of files are read from the server.
    #[must_use]
    pub fn latest(mut self) -> Self {
        self.latest = true;
        self
    }

    /// Named objects are not read.
    #[must_use]
    pub fn unread(mut self) -> Self {
        self.unread = true;
        self
    }

    /// Resolves arguments and files without fetching objects.
    pub async fn targets(&self, context: &Context) -> Result<(Vec<Target>, Vec<CommandError>), CommandError> {
        if !self.sources.is_empty() {
            if !self.arguments.is_empty() {
                return Err(CommandError::plain(
                    "when paths, URLs, or stdin is provided as input, you may not specify resource arguments as well",
                ));
            }
            return self.of_files(context).await;
        }
        arguments::targets(self, context).await
    }

    async fn of_files(&self, context: &Context) -> Result<(Vec<Target>, Vec<CommandError>), CommandError> {
        let (manifests, mut errors) = self.sources.read(context).await?;
        let mut targets = Vec::new();
        if manifests.is_empty() {
            return Ok((targets, errors));
        }
        let cluster = if self.local { None } else { Some(context.cluster().await?) };
        let selector = machinery::selector::LabelSelector::parse(&self.selector)
            .map_err(|e| CommandError::plain(format!("unable to parse requirement: {e}")))?;
        for manifest in manifests {
            let located = match &cluster {
                Some(cluster) => files::locate(cluster, manifest).await,
                None => Ok(files::guess(manifest)),
            };
            match located {
                Ok(target) => {
                    let labels = |key: &str| {
                        let object = &target.manifest.as_ref()?.object;
                        object["metadata"]["labels"][key].as_str()
                    };
                    if selector.matches(labels) {
                        targets.push(target);
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        Ok((targets, errors))
    }

    /// Path and query of a list.
    pub fn list(&self, target: &Target) -> Call {
        let chunk = self.chunk.unwrap_or(CHUNK);
        let call = Call::get(&target.resource.path(&target.namespace))
            .query_if("fieldSelector", &self.field_selector)
            .query_if("labelSelector", &self.selector);
        if chunk > 0 { call.query("limit", chunk.to_string()) } else { call }
    }

    /// A refused list, with what was asked for.
    pub fn list_failure(&self, target: &Target, error: CommandError) -> CommandError {
        let resource = &target.resource;
        let wanted = format!("{}/{}, Resource={}", resource.group, resource.version, resource.plural);
        match error {
            CommandError::Server { doing: None, mut status }
                if target.name.is_none() && matches!(status.reason.as_str(), "BadRequest" | "NotFound") =>
            {
                let (labels, fields) = (&self.selector, &self.field_selector);
                status.message = match labels.is_empty() && fields.is_empty() {
                    true => format!("Unable to list {wanted:?}: {}", status.message),
                    false => format!(
                        "Unable to find {wanted:?} that match label selector {labels:?}, field selector {fields:?}: {}",
                        status.message
                    ),
                };
                CommandError::Server { doing: None, status }
            }
            other => other,
        }
    }

    /// Finds the objects.
    pub async fn infos(&self, context: &Context) -> Result<Found, CommandError> {
        let (targets, errors) = self.targets(context).await?;
        let single = targets.len() == 1 && targets[0].name.is_some();
        let mut found = Found { errors, single, ..Found::default() };
        if targets.is_empty() {
            return Ok(found);
        }
        if self.local {
            found.infos = targets.iter().map(Self::unfetched).collect();
            return Ok(found);
        }
        let cluster = context.cluster().await?;
        for target in targets {
            match self.fetch(&cluster, &target).await {
                Ok(infos) => found.infos.extend(infos),
                Err(error) => found.errors.push(self.list_failure(&target, error)),
            }
        }
        Ok(found)
    }

    /// What is known without the server.
    fn unfetched(target: &Target) -> Info {
        let manifest = target.manifest.clone();
        let (source, object) = manifest.map_or((String::new(), Value::Null), |m| (m.source, m.object));
        Info {
            resource: target.resource.clone(),
            namespace: target.namespace.clone(),
            name: target.name.clone().unwrap_or_default(),
            source,
            object,
        }
    }

    async fn fetch(&self, cluster: &Cluster, target: &Target) -> Result<Vec<Info>, CommandError> {
        let Some(name) = &target.name else {
            return self.fetch_list(cluster, target).await;
        };
        let mut info = Info { name: name.clone(), ..Self::unfetched(target) };
        let read = if target.manifest.is_some() { self.latest } else { !self.unread };
        if read {
            let path = match self.subresource.as_str() {
                "" => info.path(),
                below => format!("{}/{below}", info.path()),
            };
            let answer = cluster.get(&path).await;
            info.object = known_namespace(cluster, &info.namespace, answer).await?;
        }
        Ok(vec![info])
    }

    /// All objects of a target that is a list.
    pub async fn fetch_list(&self, cluster: &Cluster, target: &Target) -> Result<Vec<Info>, CommandError> {
        let mut infos = Vec::new();
        let mut token = String::new();
        loop {
            let mut page = cluster.json(&self.list(target).query_if("continue", &token)).await?;
            token = page["metadata"]["continue"].as_str().unwrap_or("").to_owned();
            let items = page.get_mut("items").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
            infos.extend(items.into_iter().map(|mut object| {
                let root = meta::object_mut(&mut object);
                root.insert("apiVersion".into(), target.resource.api_version().into());
                root.insert("kind".into(), target.resource.kind.clone().into());
                Info {
                    resource: target.resource.clone(),
                    namespace: meta::namespace(&object).to_owned(),
                    name: meta::name(&object).to_owned(),
                    source: String::new(),
                    object,
                }
            }));
            if token.is_empty() {
                return Ok(infos);
            }
        }
    }
}
