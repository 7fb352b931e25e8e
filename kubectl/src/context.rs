//! What a running command knows: its arguments, flags, streams, configuration and, once asked for, the server.

use std::sync::Arc;

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::{
    cluster::Cluster,
    error::CommandError,
    flags::{Flags, Parsed},
    kubeconfig::{Kubeconfig, client::Selected},
    kuberc::Preferences,
    streams::Streams,
};

/// A command that is being run.
pub struct Context {
    /// The program as it was called.
    pub program: String,
    /// `kubectl create secret`.
    pub path: String,
    /// Arguments that are no flags.
    pub args: Vec<String>,
    /// How many of them came before `--`.
    pub dash: Option<usize>,
    /// Flags of the command and global flags.
    pub flags: Flags,
    /// Input and output.
    pub streams: Streams,
    /// Cancelled by the first SIGINT or SIGTERM.
    pub stop: CancellationToken,
    cluster: OnceCell<Arc<Cluster>>,
    preferences: Preferences,
}

impl Context {
    /// A context without a connection yet.
    pub fn new(program: &str, path: String, parsed: Parsed, streams: Streams, stop: CancellationToken) -> Self {
        let Parsed { flags, args, dash } = parsed;
        let (program, preferences) = (program.to_owned(), Preferences::default());
        Self { program, path, args, dash, flags, streams, stop, cluster: OnceCell::new(), preferences }
    }

    /// With the preferences of the user.
    #[must_use]
    pub fn preferring(mut self, preferences: Preferences) -> Self {
        self.preferences = preferences;
        self
    }

    /// The merged kubeconfig files.
    pub fn kubeconfig(&self) -> Result<Kubeconfig, CommandError> {
        Kubeconfig::load(self.flags.non_empty("kubeconfig"))
    }

    /// What the kubeconfig and the flags choose.
    pub fn selected(&self) -> Result<Selected, CommandError> {
        let selected = Selected::choose(&self.kubeconfig()?, &self.flags)?;
        match selected.credential_plugin() {
            Some(plugin) if !self.preferences.permits(plugin) => Err(CommandError::plain(format!(
                "getting credentials: the credential plugin {plugin:?} is not permitted by the policy of the kuberc file"
            ))),
            _ => Ok(selected),
        }
    }

    /// The server. The connection is made when the first request needs it.
    pub async fn cluster(&self) -> Result<Arc<Cluster>, CommandError> {
        let connect = async || {
            let cluster = Cluster::connect(self).await?;
            if self.flags.bool("match-server-version") {
                cluster.require_version().await?;
            }
            Ok(Arc::new(cluster))
        };
        self.cluster.get_or_try_init(connect).await.cloned()
    }

    /// The cluster if a command asked for it.
    pub fn connected(&self) -> Option<&Arc<Cluster>> {
        self.cluster.get()
    }

    /// A mistake in the command line.
    pub fn usage(&self, text: impl Into<String>) -> CommandError {
        CommandError::Usage { text: text.into(), command: self.path.clone() }
    }

    /// A mistake after which the help of the command is printed.
    pub fn help_error(&self, text: impl Into<String>) -> CommandError {
        let commands = crate::cmd::commands();
        let words: Vec<String> = self.path.split(' ').skip(1).map(str::to_owned).collect();
        let found = crate::command::find(&commands, &words);
        let printed = found.command.map(|c| crate::command::help(c, &self.path, &mut self.streams.out.clone()));
        match printed {
            Some(Err(error)) => error,
            _ => CommandError::plain(text),
        }
    }

    /// The arguments before `--`, or all.
    pub fn before_dash(&self) -> &[String] {
        &self.args[..self.dash.unwrap_or(self.args.len()).min(self.args.len())]
    }

    /// The arguments after `--`.
    pub fn after_dash(&self) -> &[String] {
        &self.args[self.dash.unwrap_or(self.args.len()).min(self.args.len())..]
    }

    /// The one NAME that a generator takes.
    pub fn one_name(&self) -> Result<&str, CommandError> {
        match self.before_dash() {
            [name] => Ok(name),
            other => Err(self.usage(format!("exactly one NAME is required, got {}", other.len()))),
        }
    }
}
