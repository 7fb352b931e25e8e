//! `kubectl kustomize`.

use std::io::Write;

use crate::{command::Command, context::Context, error::CommandError, flags::Flag, kustomize, print::yaml};

/// The command.
pub(crate) fn command() -> Command {
    Command::new("kustomize", "Build a kustomization target from a directory or URL")
        .usage("DIR [flags]")
        .flags([
            Flag::text("load-restrictor", ROOT_ONLY, "LoadRestrictionsNone lets kustomizations name files anywhere."),
            Flag::text("output", "", "If specified, write output to this path.").short('o'),
        ])
        .flags(of_programs())
        .runs(|context| Box::pin(run(context)))
}

const ROOT_ONLY: &str = "LoadRestrictionsRootOnly";
const ANYWHERE: &str = "LoadRestrictionsNone";

/// Flags of functions, plugins and charts. These are programs that kustomizations name, and none is run here:
/// kustomizations with some are refused, so for all others the flags change nothing.
fn of_programs() -> [Flag; 11] {
    [
        Flag::switch("as-current-user", "For functions: run them as the current user."),
        Flag::switch("enable-alpha-plugins", "For plugins: allow them."),
        Flag::switch("enable-helm", "For Helm charts: allow them."),
        Flag::array("env", "For functions: their variables.").short('e'),
        Flag::array("helm-api-versions", "For Helm charts: API versions that they see."),
        Flag::text("helm-command", "helm", "For Helm charts: the program."),
        Flag::switch("helm-debug", "For Helm charts: print more."),
        Flag::text("helm-kube-version", "", "For Helm charts: version of Kubernetes that they see."),
        Flag::array("mount", "For functions: their storage."),
        Flag::switch("network", "For functions: let them use the network."),
        Flag::text("network-name", "bridge", "For functions: the network."),
    ]
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let directory = match context.args.as_slice() {
        [] => ".",
        [one] => one.as_str(),
        _ => return Err(CommandError::plain("specify one path to kustomization.yaml")),
    };
    let restrictor = context.flags.text("load-restrictor");
    if ![ROOT_ONLY, ANYWHERE].contains(&restrictor) {
        return Err(CommandError::plain(format!(
            "illegal flag value --load-restrictor {restrictor}; legal values: [{ROOT_ONLY} {ANYWHERE}]"
        )));
    }
    let built =
        kustomize::build_with(directory, restrictor == ANYWHERE).map_err(|e| CommandError::plain(e.to_string()))?;
    for warning in &built.warnings {
        writeln!(context.streams.err.clone(), "{warning}")?;
    }
    let text: Vec<String> = built.objects.iter().map(yaml::encode).collect();
    let text = text.join("---\n");
    match context.flags.text("output") {
        "" => context.streams.out.clone().write_all(text.as_bytes())?,
        path => std::fs::write(path, text)?,
    }
    Ok(())
}
