//! `kubectl explain`.

mod schema;
mod wrap;

use std::io::Write;

use machinery::GroupVersion;
use serde_json::Value;

use crate::{
    cluster::Cluster, command::Command, context::Context, discovery::Resource, error::CommandError, flags::Flag,
    streams::Output,
};
use schema::Document;
use wrap::paragraph;

/// Values of an enumeration that a field shows.
const SHOWN_VALUES: usize = 4;

/// The command.
pub(crate) fn command() -> Command {
    Command::new("explain", "Get documentation for a resource")
        .usage("TYPE [--recursive=FALSE|TRUE] [--api-version=api-version-group] [-o|--output=plaintext|plaintext-openapiv2]")
        .examples(&["kubectl explain pods", "kubectl explain pods --recursive", "kubectl explain pods.spec.containers"])
        .flags([
            Flag::text("api-version", "", "Group and version of the resource."),
            Flag::text("output", "plaintext", "Output format: plaintext.").short('o'),
            Flag::switch("recursive", "Show the names of all fields below.").short('R'),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let [target] = context.args.as_slice() else {
        return Err(CommandError::plain(match context.args.len() {
            0 => {
                "You must specify the type of resource to explain. Use \"kubectl api-resources\" for a complete list of \
                 supported resources."
            }
            _ => "We accept only this format: explain RESOURCE",
        }));
    };
    let output = context.flags.text("output");
    let cluster = context.cluster().await?;
    let (resource, fields) = resolve(context, &cluster, target).await?;
    if output != "plaintext" {
        return Err(CommandError::plain(format!("unrecognized format: {output}")));
    }
    let path = match resource.group.as_str() {
        "" => format!("api/{}", resource.version),
        group => format!("apis/{group}/{}", resource.version),
    };
    let document = fetch(&cluster, &path, &resource).await?;
    let root = document.of_kind(&resource.group, &resource.version, &resource.kind).ok_or_else(|| {
        CommandError::plain(format!(
            "GVR ({}, Resource={}) not found in OpenAPI schema",
            resource.api_version(),
            resource.plural
        ))
    })?;
    let mut out = context.streams.out.clone();
    if !resource.group.is_empty() {
        writeln!(out, "GROUP:      {}", resource.group)?;
    }
    writeln!(out, "KIND:       {}\nVERSION:    {}\n", resource.kind, resource.version)?;
    let mut place = root;
    for name in &fields {
        place =
            document.field(place, name).ok_or_else(|| CommandError::plain(format!("field {name:?} does not exist")))?;
    }
    let explained = Explained { document: &document, recursive: context.flags.bool("recursive") };
    explained.print(place, fields.last().copied(), &mut out)
}

/// The resource and the fields of `TYPE.field.field`.
async fn resolve<'a>(
    context: &Context,
    cluster: &Cluster,
    target: &'a str,
) -> Result<(Resource, Vec<&'a str>), CommandError> {
    let mut parts = target.split('.');
    let word = parts.next().unwrap_or("");
    let fields: Vec<&str> = parts.filter(|p| !p.is_empty()).collect();
    let served = cluster.served_now().await?;
    let unknown = || CommandError::Verbatim(format!("the server doesn't have a resource type {word:?}"));
    let found = served.find(word).ok_or_else(unknown)?;
    let Some(version) = context.flags.non_empty("api-version") else {
        return Ok((found.clone(), fields));
    };
    let wanted = GroupVersion::parse(version)
        .ok_or_else(|| CommandError::plain(format!("unexpected GroupVersion string: {version}")))?;
    let other = served
        .resources
        .iter()
        .find(|r| r.group == wanted.group && r.version == wanted.version && r.plural == found.plural);
    match other {
        Some(resource) => Ok((resource.clone(), fields)),
        None => Err(CommandError::plain(format!(
            "couldn't find resource for \"{}/{}, Resource={}\"",
            wanted.group, wanted.version, found.plural
        ))),
    }
}

async fn fetch(cluster: &Cluster, path: &str, resource: &Resource) -> Result<Document, CommandError> {
    let index = cluster.get("/openapi/v3").await?;
    let url = index["paths"][path]["serverRelativeURL"].as_str().ok_or_else(|| {
        CommandError::plain(format!(
            "couldn't find resource for \"{}, Resource={}\"",
            resource.api_version(),
            resource.plural
        ))
    })?;
    Ok(Document::new(cluster.get(url).await?))
}

struct Explained<'a> {
    document: &'a Document,
    recursive: bool,
}

impl Explained<'_> {
    fn print(&self, place: &Value, field: Option<&str>, out: &mut Output) -> Result<(), CommandError> {
        if let Some(name) = field {
            writeln!(out, "FIELD: {name} <{}>", self.document.type_name(place))?;
            let values = self.document.values(place);
            if values.is_empty() {
                writeln!(out)?;
            } else {
                writeln!(out, "ENUM:")?;
                for value in values {
                    writeln!(out, "    {value}")?;
                }
            }
            writeln!(out)?;
        }
        writeln!(out, "DESCRIPTION:")?;
        match self.document.description(place) {
            "" => writeln!(out, "    <empty>")?,
            text => {
                for line in paragraph(text) {
                    writeln!(out, "    {line}")?;
                }
                writeln!(out, "    ")?;
            }
        }
        let fields = self.document.fields(place);
        if !fields.is_empty() {
            writeln!(out, "FIELDS:")?;
            self.fields(place, 1, &mut Vec::new(), out)?;
        }
        writeln!(out)?;
        Ok(())
    }

    fn fields<'v>(
        &'v self,
        place: &'v Value,
        depth: usize,
        seen: &mut Vec<&'v str>,
        out: &mut Output,
    ) -> Result<(), CommandError> {
        let required = self.document.required(place);
        let indent = "  ".repeat(depth);
        for (name, field) in self.document.fields(place) {
            let mark = if required.contains(&name) { " -required-" } else { "" };
            writeln!(out, "{indent}{name}\t<{}>{mark}", self.document.type_name(field))?;
            let values = self.document.values(field);
            if !values.is_empty() {
                let more = if values.len() > SHOWN_VALUES { ", ...." } else { "" };
                let shown = values[..values.len().min(SHOWN_VALUES)].join(", ");
                writeln!(out, "{indent}enum: {shown}{more}")?;
            }
            if self.recursive {
                // Schemas that refer to themselves end at the first repetition.
                let reference = self.document.reference(field).unwrap_or_default();
                if reference.is_empty() || !seen.contains(&reference) {
                    seen.push(reference);
                    self.fields(field, depth + 1, seen, out)?;
                    seen.pop();
                }
                continue;
            }
            match self.document.description(field) {
                "" => writeln!(out, "    <no description>")?,
                text => {
                    for line in paragraph(text) {
                        writeln!(out, "    {line}")?;
                    }
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }
}
