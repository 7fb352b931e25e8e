//! kubectl: the command line of the API.
//!
//! [`run`] parses the line, connects and runs one command of [`cmd`]. Commands answer their output; printing and exit
//! codes are decided here.

pub mod cli;
pub mod cluster;
pub mod cmd;
pub mod error;
pub mod jsonpath;
pub mod table;

use crate::{
    cli::{Cli, Command},
    cluster::Cluster,
    error::CommandError,
};

/// Runs a parsed command line; answers standard output and standard error.
pub async fn run(cli: Cli) -> Result<(String, String), CommandError> {
    if let Command::Version(options) = &cli.command
        && options.client
    {
        return cmd::api::version(None, options).await.map(|out| (out, String::new()));
    }
    let cluster = Cluster::connect(&cli.global).await?;
    let out = match &cli.command {
        Command::Get(options) => return cmd::get::run(&cluster, options).await,
        Command::Create(files) => cmd::manifests::create(&cluster, files).await?,
        Command::Apply(options) => cmd::manifests::apply(&cluster, options).await?,
        Command::Delete(options) => cmd::delete::run(&cluster, options).await?,
        Command::Patch(options) => cmd::change::patch(&cluster, options).await?,
        Command::Scale(options) => cmd::change::scale(&cluster, options).await?,
        Command::Label(options) => cmd::change::metadata(&cluster, options, "labels").await?,
        Command::Annotate(options) => cmd::change::metadata(&cluster, options, "annotations").await?,
        Command::ApiResources(options) => cmd::api::resources(&cluster, options).await?,
        Command::ApiVersions => cmd::api::versions(&cluster).await?,
        Command::Version(options) => cmd::api::version(Some(&cluster), options).await?,
        Command::Logs(options) => cmd::logs::run(&cluster, options).await?,
    };
    Ok((out, String::new()))
}
