//! Manifests: files, directories, globs, URLs and standard input.

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
};

use machinery::{GroupVersion, decode::decode_yaml, meta};
use serde_json::{Value, json};

use super::Target;
use crate::{
    cluster::{Call, Cluster},
    context::Context,
    discovery::Resource,
    error::CommandError,
    flags::Flags,
};

/// Files of other names in a directory are not read.
const EXTENSIONS: [&str; 3] = [".json", ".yaml", ".yml"];
/// Times a URL is asked for.
const ATTEMPTS: usize = 3;
/// A manifest that is longer is refused.
const LARGEST: u64 = 256 * 1024 * 1024;

/// An object with the name of where it was read.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The object.
    pub object: Value,
    /// Path, URL, or `STDIN`.
    pub source: String,
}

/// `-f` and `-R`.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Paths, URLs, globs, or `-`.
    pub filenames: Vec<String>,
    /// Whether directories are read with all below.
    pub recursive: bool,
    /// A directory with a kustomization file; empty for none.
    pub kustomize: String,
}

impl Sources {
    /// What the flags name; nothing if the command has no such flags.
    pub fn of(flags: &Flags) -> Self {
        if !flags.has("filename") {
            return Self::default();
        }
        Self {
            filenames: flags.list("filename").to_vec(),
            recursive: flags.has("recursive") && flags.bool("recursive"),
            kustomize: if flags.has("kustomize") { flags.text("kustomize").to_owned() } else { String::new() },
        }
    }

    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        self.filenames.is_empty() && self.kustomize.is_empty()
    }

    /// Fails if there is nothing to read.
    pub fn require(&self) -> Result<(), CommandError> {
        if self.is_empty() {
            return Err(CommandError::plain("must specify one of -f and -k"));
        }
        self.check()
    }

    /// Fails if files and a kustomization are named together.
    fn check(&self) -> Result<(), CommandError> {
        if !self.kustomize.is_empty() && !self.filenames.is_empty() {
            return Err(CommandError::plain("only one of -f or -k can be specified"));
        }
        if !self.kustomize.is_empty() && self.recursive {
            return Err(CommandError::plain("the -k flag can't be used with -f or -R"));
        }
        Ok(())
    }

    /// Reads everything; lists are taken apart. Failures of single documents do not keep the others from being read.
    pub async fn read(&self, context: &Context) -> Result<(Vec<Manifest>, Vec<CommandError>), CommandError> {
        self.check()?;
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        if !self.kustomize.is_empty() {
            let built = crate::kustomize::build(&self.kustomize).map_err(|e| CommandError::plain(e.to_string()))?;
            for warning in &built.warnings {
                writeln!(context.streams.err.clone(), "{warning}")?;
            }
            for object in built.objects {
                flatten(object, &self.kustomize, &mut all).unwrap_or_else(|e| errors.push(e));
            }
        }
        for filename in &self.filenames {
            if filename == "-" {
                let mut text = Vec::new();
                context.streams.stdin.clone().take(LARGEST).read_to_end(&mut text)?;
                decode(&text, "STDIN", &mut all).unwrap_or_else(|e| errors.push(e));
            } else if filename.starts_with("http://") || filename.starts_with("https://") {
                let text = download(filename).await?;
                decode(&text, filename, &mut all).unwrap_or_else(|e| errors.push(e));
            } else {
                for file in expand(filename, self.recursive)? {
                    let source = file.display().to_string();
                    let text = std::fs::read(&file).map_err(|e| {
                        CommandError::plain(format!(
                            "error reading {source}: open {source}: {}",
                            crate::kubeconfig::files::go_io_text(&e)
                        ))
                    })?;
                    decode(&text, &source, &mut all).unwrap_or_else(|e| errors.push(e));
                }
            }
        }
        Ok((all, errors))
    }
}

/// The files that a path or pattern means.
fn expand(filename: &str, recursive: bool) -> Result<Vec<PathBuf>, CommandError> {
    let path = Path::new(filename);
    if path.exists() {
        return of_path(path, recursive);
    }
    let matches = glob(filename);
    if matches.is_empty() {
        return Err(CommandError::plain(format!("the path {filename:?} does not exist")));
    }
    let mut files = Vec::new();
    for path in matches {
        files.extend(of_path(&path, recursive)?);
    }
    Ok(files)
}

fn of_path(path: &Path, recursive: bool) -> Result<Vec<PathBuf>, CommandError> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let depth = if recursive { usize::MAX } else { 1 };
    let wanted = |name: &str| EXTENSIONS.iter().any(|e| name.ends_with(e));
    let walk = walkdir::WalkDir::new(path).max_depth(depth).sort_by_file_name().into_iter().filter_map(Result::ok);
    let files: Vec<PathBuf> = walk
        .filter(|entry| !entry.path().is_dir() && entry.file_name().to_str().is_some_and(wanted))
        .map(walkdir::DirEntry::into_path)
        .collect();
    if files.is_empty() {
        return Err(CommandError::plain(format!(
            "error reading [{}]: recognized file extensions are [{}]",
            path.display(),
            EXTENSIONS.join(" ")
        )));
    }
    Ok(files)
}

/// Paths that fit a pattern with `*`, `?` and `[...]` in its parts.
fn glob(pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from(if pattern.starts_with('/') { "/" } else { "" })];
    for part in pattern.split('/').filter(|p| !p.is_empty()) {
        if !part.contains(['*', '?', '[']) {
            found = found.into_iter().map(|p| p.join(part)).filter(|p| p.exists()).collect();
            continue;
        }
        let mut next = Vec::new();
        for directory in found {
            let at = if directory.as_os_str().is_empty() { Path::new(".") } else { &directory };
            let entries = std::fs::read_dir(at).into_iter().flatten().filter_map(Result::ok);
            let mut names: Vec<String> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
            names.sort();
            next.extend(names.into_iter().filter(|n| fits(part.as_bytes(), n.as_bytes())).map(|n| directory.join(n)));
        }
        found = next;
    }
    found
}

fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.first(), name.first()) {
        (None, None) => true,
        (Some(b'*'), _) => fits(&pattern[1..], name) || (!name.is_empty() && fits(pattern, &name[1..])),
        (Some(b'?'), Some(_)) => fits(&pattern[1..], &name[1..]),
        (Some(b'['), Some(c)) => {
            let Some(end) = pattern.iter().position(|b| *b == b']') else { return false };
            let negated = pattern.get(1) == Some(&b'^');
            let set = &pattern[if negated { 2 } else { 1 }..end];
            let mut hit = set.contains(c);
            hit |= set.windows(3).any(|w| w[1] == b'-' && w[0] <= *c && *c <= w[2]);
            hit != negated && fits(&pattern[end + 1..], &name[1..])
        }
        (Some(a), Some(b)) => a == b && fits(&pattern[1..], &name[1..]),
        _ => false,
    }
}

async fn download(url: &str) -> Result<Vec<u8>, CommandError> {
    let fail = |e: &dyn std::fmt::Display| CommandError::plain(format!("unable to read URL {url:?}: {e}"));
    let uri: http::Uri = url.parse().map_err(|e| fail(&e))?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    let base = http::Uri::from_parts(parts).map_err(|e| fail(&e))?;
    let client = crate::cluster::client(kube::Config::new(base)).map_err(|e| fail(&e))?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        let request = http::Request::get(path).body(kube::client::Body::empty()).map_err(|e| fail(&e))?;
        let response = client.send(request).await.map_err(|e| fail(&util::chain(&e)))?;
        let status = response.status();
        if status.is_success() {
            let body =
                http_body_util::Limited::new(response.into_body(), usize::try_from(LARGEST).unwrap_or(usize::MAX));
            let body = http_body_util::BodyExt::collect(body).await.map_err(|e| CommandError::plain(e.to_string()))?;
            return Ok(body.to_bytes().to_vec());
        }
        last = format!("server reported {status}, status code={}", status.as_u16());
        if !status.is_server_error() {
            break;
        }
    }
    Err(CommandError::plain(format!("unable to read URL {url:?}, {last}")))
}

/// Decodes a stream of YAML documents or JSON values; lists are taken apart.
pub fn decode(text: &[u8], source: &str, all: &mut Vec<Manifest>) -> Result<(), CommandError> {
    for object in documents(text, source)? {
        flatten(object, source, all)?;
    }
    Ok(())
}

/// The documents of a stream; empty ones are left out.
pub fn documents(text: &[u8], source: &str) -> Result<Vec<Value>, CommandError> {
    let mut found = Vec::new();
    let first = text.iter().find(|b| !b.is_ascii_whitespace());
    if first == Some(&b'{') {
        let stream = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
        let values: Result<Vec<Value>, _> = stream.collect();
        if let Ok(values) = values {
            return Ok(values.into_iter().filter(|v| !v.is_null()).collect());
        }
    }
    let text = String::from_utf8_lossy(text);
    let mut document = String::new();
    let mut take = |document: &mut String| -> Result<(), CommandError> {
        let whole = std::mem::take(document);
        if whole.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#')) {
            return Ok(());
        }
        let (object, _) = decode_yaml(whole.as_bytes())
            .map_err(|e| CommandError::plain(format!("error parsing {source}: error converting YAML to JSON: {e}")))?;
        if !object.is_null() {
            found.push(object);
        }
        Ok(())
    };
    for line in text.split_inclusive('\n') {
        let is_separator =
            line.strip_prefix("---").is_some_and(|rest| rest.trim().is_empty() || rest.trim_start().starts_with('#'));
        if is_separator { take(&mut document)? } else { document.push_str(line) }
    }
    take(&mut document)?;
    Ok(found)
}

fn flatten(object: Value, source: &str, all: &mut Vec<Manifest>) -> Result<(), CommandError> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or("");
    let missing: Vec<&str> = [("apiVersion", "apiVersion not set"), ("kind", "kind not set")]
        .iter()
        .filter(|(k, _)| text(k).is_empty())
        .map(|(_, m)| *m)
        .collect();
    if !missing.is_empty() {
        let problem = if missing.len() == 1 { missing[0].to_owned() } else { format!("[{}]", missing.join(", ")) };
        return Err(CommandError::plain(format!(
            "error validating {source:?}: error validating data: {problem}; if you choose to ignore these errors, turn \
             validation off with --validate=false"
        )));
    }
    for key in ["labels", "annotations"] {
        let wrong =
            object["metadata"][key].as_object().and_then(|m| m.values().find(|v| !v.is_string() && !v.is_null()));
        if let Some(wrong) = wrong {
            let found = match wrong {
                Value::Bool(_) => "bool",
                Value::Number(_) => "number",
                Value::Array(_) => "array",
                _ => "object",
            };
            return Err(CommandError::plain(format!(
                "unable to decode {source:?}: json: cannot unmarshal {found} into Go struct field ObjectMeta.metadata.{key} \
                 of type string"
            )));
        }
    }
    if text("kind").ends_with("List")
        && let Some(items) = object.get("items").and_then(Value::as_array)
    {
        for item in items {
            flatten(item.clone(), source, all)?;
        }
        return Ok(());
    }
    all.push(Manifest { object, source: source.to_owned() });
    Ok(())
}

/// Sends one file, or standard input, as it is, and prints the answer.
pub async fn send_raw(context: &Context, method: http::Method, path: &str, file: &str) -> Result<(), CommandError> {
    let mut body = Vec::new();
    match file {
        "-" => {
            context.streams.stdin.clone().take(LARGEST).read_to_end(&mut body)?;
        }
        file => {
            body = std::fs::read(file).map_err(|e| {
                let text = crate::kubeconfig::files::go_io_text(&e);
                CommandError::plain(format!("open {file}: {text}"))
            })?;
        }
    }
    let call = Call::new(method, path).with_body("application/json", body);
    let answer = context.cluster().await?.bytes(&call).await?;
    context.streams.out.clone().write_all(&answer)?;
    Ok(())
}

/// The target of a manifest without asking the server: the plural is made from the kind.
pub fn guess(manifest: Manifest) -> Target {
    let text = |key: &str| manifest.object[key].as_str().unwrap_or("");
    let version = GroupVersion::parse(text("apiVersion")).unwrap_or_default();
    let kind = text("kind").to_owned();
    let singular = kind.to_lowercase();
    let plural = match singular.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if singular.ends_with('s') => format!("{singular}es"),
        None => format!("{singular}s"),
    };
    let (group, version) = (version.group, version.version);
    let resource = Resource { group, version, plural, singular, kind, ..Resource::default() };
    let (namespace, name) = (meta::namespace(&manifest.object).to_owned(), meta::name(&manifest.object).to_owned());
    Target { resource, namespace, name: Some(name), manifest: Some(manifest) }
}

/// Finds the resource and namespace of a manifest; the namespace is written into the object.
pub async fn locate(cluster: &Cluster, mut manifest: Manifest) -> Result<Target, CommandError> {
    let text = |key: &str| manifest.object[key].as_str().unwrap_or("");
    let (version, kind) = (text("apiVersion"), text("kind"));
    let served = cluster.served_with(|served| served.of_kind(version, kind).is_some()).await?;
    let resource: Resource = served.of_kind(version, kind).cloned().ok_or_else(|| {
        CommandError::plain(format!(
            "resource mapping not found for name: {:?} namespace: {:?} from {:?}: no matches for kind {kind:?} in version \
             {version:?}\nensure CRDs are installed first",
            meta::name(&manifest.object),
            meta::namespace(&manifest.object),
            manifest.source,
        ))
    })?;
    let namespace = if resource.namespaced {
        let own = meta::namespace(&manifest.object).to_owned();
        if own.is_empty() {
            meta::metadata_mut(&mut manifest.object).insert("namespace".into(), json!(cluster.namespace));
            cluster.namespace.clone()
        } else if cluster.enforced && own != cluster.namespace {
            return Err(CommandError::plain(format!(
                "the namespace from the provided object {own:?} does not match the namespace {:?}. You must pass \
                 '--namespace={own}' to perform this operation.",
                cluster.namespace
            )));
        } else {
            own
        }
    } else {
        meta::metadata_mut(&mut manifest.object).remove("namespace");
        String::new()
    };
    let name = meta::name(&manifest.object).to_owned();
    Ok(Target { resource, namespace, name: Some(name), manifest: Some(manifest) })
}
