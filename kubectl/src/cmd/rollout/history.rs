//! `kubectl rollout history`.

use std::io::Write;

use super::{flags, objects, revisions, unknown};
use crate::{
    command::Command,
    context::Context,
    describe,
    error::CommandError,
    flags::Flag,
    print::{self, Printer, table::Aligned},
};

/// The command.
pub(super) fn command() -> Command {
    Command::new("history", "View rollout history")
        .usage("(TYPE NAME | TYPE/NAME) [flags]")
        .examples(&["kubectl rollout history deployment/abc", "kubectl rollout history daemonset/abc --revision=3"])
        .flags(flags("File, directory or URL with the resource."))
        .flags(print::flags())
        .flags([Flag::int("revision", "0", "Show this revision with its template.")])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let wanted = context.flags.int("revision");
    if wanted < 0 {
        return Err(CommandError::plain(format!("revision must be a positive integer: {wanted}")));
    }
    let mut printer = Printer::of(&context.flags, &[])?;
    let mut out = context.streams.out.clone();
    let (infos, mut errors) = objects(context).await?;
    let cluster = context.cluster().await?;
    for info in infos {
        let Some(revisions) = revisions::of(&cluster, &info).await? else {
            errors.push(unknown(&info, "history"));
            continue;
        };
        if let Some(printer) = &mut printer {
            let chosen: Vec<_> = revisions.iter().filter(|r| wanted == 0 || r.number == wanted).collect();
            if chosen.is_empty() && wanted > 0 {
                errors.push(CommandError::plain("unable to find the specified revision"));
            }
            for revision in chosen {
                printer.print(&revision.object, &mut out)?;
            }
            continue;
        }
        let title = print::title(&info.object);
        if wanted > 0 {
            let Some(revision) = revisions.iter().find(|r| r.number == wanted) else {
                errors.push(CommandError::plain("unable to find the specified revision"));
                continue;
            };
            writeln!(out, "{title} with revision #{wanted}\n{}", describe::template_text(&revision.template))?;
            continue;
        }
        if revisions.is_empty() {
            writeln!(out, "{title} \nNo rollout history found.")?;
            continue;
        }
        writeln!(out, "{title} ")?;
        let mut table = Aligned::with(0, 2);
        table.add(vec!["REVISION".into(), "CHANGE-CAUSE".into()]);
        for revision in &revisions {
            let cause = if revision.cause().is_empty() { "<none>" } else { revision.cause() };
            table.add(vec![revision.number.to_string(), cause.to_owned()]);
        }
        writeln!(out, "{}", table.flush())?;
    }
    CommandError::all(errors)
}
