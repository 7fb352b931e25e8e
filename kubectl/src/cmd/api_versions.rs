//! `kubectl api-versions`.

use std::io::Write;

use machinery::GroupVersion;

use crate::{command::Command, context::Context, error::CommandError};

/// The command.
pub(crate) fn command() -> Command {
    Command::new("api-versions", "Print the supported API versions on the server, in the form of \"group/version\"")
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    if !context.args.is_empty() {
        return Err(context.usage(format!("unexpected arguments: [{}]", context.args.join(" "))));
    }
    let served = context.cluster().await?.served_now().await?;
    let versions =
        served.groups.iter().flat_map(|g| g.versions.iter().map(|v| GroupVersion::new(&g.name, v).to_string()));
    let mut versions: Vec<String> = versions.collect();
    versions.sort();
    let mut out = context.streams.out.clone();
    for version in versions {
        writeln!(out, "{version}")?;
    }
    Ok(())
}
