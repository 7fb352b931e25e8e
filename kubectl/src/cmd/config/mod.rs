//! `kubectl config`.

mod entries;
mod property;
mod view;

use std::{io::Write, path::Path};

use crate::{
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    kubeconfig::{
        Entry, Kubeconfig,
        document::{self, Section},
    },
    print::table::Aligned,
};

/// Fields of clusters, users and contexts, in the order in which JSON has them.
const FIELDS: [&str; 24] = [
    "server",
    "tls-server-name",
    "insecure-skip-tls-verify",
    "certificate-authority",
    "certificate-authority-data",
    "proxy-url",
    "disable-compression",
    "client-certificate",
    "client-certificate-data",
    "client-key",
    "client-key-data",
    "token",
    "tokenFile",
    "as",
    "as-uid",
    "as-groups",
    "as-user-extra",
    "username",
    "password",
    "auth-provider",
    "exec",
    "cluster",
    "user",
    "namespace",
];

/// The command.
pub(crate) fn command() -> Command {
    let simple = |name, short, usage, run| Command::new(name, short).usage(usage).runs(run);
    Command::new("config", "Modify kubeconfig files")
        .long(
            "Modify kubeconfig files.\n\n The file is the one that --kubeconfig names, else those of $KUBECONFIG, else \
             $HOME/.kube/config. With several files, an entry is changed where it is defined.",
        )
        .commands(vec![
            simple("current-context", "Display the current-context", "[flags]", |c| Box::pin(current(c))),
            simple("delete-cluster", "Delete the specified cluster from the kubeconfig", "NAME", |c| {
                Box::pin(delete(c, Section::Clusters))
            }),
            simple("delete-context", "Delete the specified context from the kubeconfig", "NAME", |c| {
                Box::pin(delete(c, Section::Contexts))
            }),
            simple("delete-user", "Delete the specified user from the kubeconfig", "NAME", |c| {
                Box::pin(delete(c, Section::Users))
            }),
            simple("get-clusters", "Display clusters defined in the kubeconfig", "[flags]", |c| {
                Box::pin(names(c, Section::Clusters))
            }),
            Command::new("get-contexts", "Describe one or many contexts")
                .usage("[(-o|--output=)name)]")
                .flags([
                    Flag::switch("no-headers", "Leave the headers out."),
                    Flag::text("output", "", "Output format: name.").short('o'),
                ])
                .runs(|c| Box::pin(get_contexts(c))),
            simple("get-users", "Display users defined in the kubeconfig", "[flags]", |c| {
                Box::pin(names(c, Section::Users))
            }),
            simple("rename-context", "Rename a context from the kubeconfig file", "CONTEXT_NAME NEW_NAME", |c| {
                Box::pin(rename(c))
            }),
            property::set(),
            entries::set_cluster(),
            entries::set_context(),
            entries::set_credentials(),
            property::unset(),
            simple("use-context", "Set the current-context in a kubeconfig file", "CONTEXT_NAME", |c| {
                Box::pin(use_context(c))
            })
            .aliases(&["use"]),
            view::command(),
        ])
}

/// The merged files as they stand.
fn load(context: &Context) -> Result<Kubeconfig, CommandError> {
    Kubeconfig::load_raw(context.flags.non_empty("kubeconfig"))
}

/// Changes one file.
fn modify(file: &Path, change: impl FnOnce(&mut Kubeconfig)) -> Result<(), CommandError> {
    let mut config = document::read(file)?;
    change(&mut config);
    document::write(&config, file)
}

/// Sets the current context in the file that has one, or the default one.
fn set_current(config: &Kubeconfig, name: &str) -> Result<(), CommandError> {
    let mut target = config.default_file();
    for file in &config.files {
        if !document::read(file)?.current_context.is_empty() {
            target.clone_from(file);
            break;
        }
    }
    modify(&target, |c| name.clone_into(&mut c.current_context))
}

/// Writes an entry to the file that defines it, or to the default one.
fn put(config: &Kubeconfig, section: Section, mut entry: Entry) -> Result<(), CommandError> {
    let origin = section.of(config).iter().find(|e| e.name == entry.name).map(|e| e.origin.clone());
    let file = origin.unwrap_or_else(|| config.default_file());
    document::relative(&mut entry.value, &file);
    modify(&file, |c| {
        let entries = c.section_mut(section);
        match entries.iter_mut().find(|e| e.name == entry.name) {
            Some(held) => *held = entry,
            None => entries.push(entry),
        }
    })
}

async fn current(context: &Context) -> Result<(), CommandError> {
    let config = load(context)?;
    if config.current_context.is_empty() {
        return Err(CommandError::plain("current-context is not set"));
    }
    writeln!(context.streams.out.clone(), "{}", config.current_context)?;
    Ok(())
}

async fn names(context: &Context, section: Section) -> Result<(), CommandError> {
    let config = load(context)?;
    let mut names: Vec<&str> = section.of(&config).iter().map(|e| e.name.as_str()).collect();
    names.sort_unstable();
    let mut out = context.streams.out.clone();
    writeln!(out, "NAME")?;
    for name in names {
        writeln!(out, "{name}")?;
    }
    Ok(())
}

async fn get_contexts(context: &Context) -> Result<(), CommandError> {
    let output = context.flags.text("output");
    if !matches!(output, "" | "name") {
        return Err(CommandError::plain(format!("output must be one of '' or 'name': {output}")));
    }
    let config = load(context)?;
    let mut wanted: Vec<&str> = match context.args.as_slice() {
        [] => config.contexts.iter().map(|e| e.name.as_str()).collect(),
        names => names.iter().map(String::as_str).collect(),
    };
    wanted.sort_unstable();
    let mut errors = Vec::new();
    let mut table = Aligned::default();
    if output.is_empty() && !context.flags.bool("no-headers") {
        table.row(&["CURRENT", "NAME", "CLUSTER", "AUTHINFO", "NAMESPACE"]);
    }
    for name in wanted {
        let Some(entry) = config.context(name) else {
            errors.push(CommandError::plain(format!("context {name} not found")));
            continue;
        };
        if output == "name" {
            table.row(&[name]);
        } else {
            let mark = if config.current_context == name { "*" } else { "" };
            table.row(&[mark, name, entry.text("cluster"), entry.text("user"), entry.text("namespace")]);
        }
    }
    write!(context.streams.out.clone(), "{}", table.flush())?;
    CommandError::all(errors)
}

/// The one name that a command takes.
fn one_argument(context: &Context) -> Result<&str, CommandError> {
    match context.args.as_slice() {
        [name] => Ok(name),
        other => Err(context.help_error(format!("Unexpected args: [{}]", other.join(" ")))),
    }
}

async fn use_context(context: &Context) -> Result<(), CommandError> {
    let name = one_argument(context)?;
    let config = load(context)?;
    if config.context(name).is_none() {
        return Err(CommandError::plain(format!("no context exists with the name: {name:?}")));
    }
    set_current(&config, name)?;
    writeln!(context.streams.out.clone(), "Switched to context {name:?}.")?;
    Ok(())
}

async fn delete(context: &Context, section: Section) -> Result<(), CommandError> {
    let [name] = context.args.as_slice() else {
        let what = section.keys().1;
        return Err(context.help_error(format!("you must specify a {what} to delete")));
    };
    let config = load(context)?;
    let what = section.keys().1;
    let shown = config.default_file();
    let Some(entry) = section.of(&config).iter().find(|e| e.name == *name) else {
        return Err(CommandError::plain(format!("cannot delete {what} {name}, not in {}", shown.display())));
    };
    if section == Section::Contexts && config.current_context == *name {
        writeln!(
            context.streams.err.clone(),
            "warning: this removed your active context, use \"kubectl config use-context\" to select a different one"
        )?;
    }
    modify(&entry.origin, |c| c.section_mut(section).retain(|e| e.name != *name))?;
    writeln!(context.streams.out.clone(), "deleted {what} {name} from {}", shown.display())?;
    Ok(())
}

async fn rename(context: &Context) -> Result<(), CommandError> {
    let [old, new] = context.args.as_slice() else {
        return Err(context.help_error(format!("Unexpected args: [{}]", context.args.join(" "))));
    };
    let config = load(context)?;
    let file = config.default_file();
    let Some(entry) = config.context(old) else {
        return Err(CommandError::plain(format!("cannot rename the context {old:?}, it's not in {}", file.display())));
    };
    if config.context(new).is_some() {
        return Err(CommandError::plain(format!(
            "cannot rename the context {old:?}, the context {new:?} already exists in {}",
            file.display()
        )));
    }
    modify(&entry.origin, |c| {
        c.contexts.iter_mut().filter(|e| e.name == *old).for_each(|e| e.name.clone_from(new));
    })?;
    if config.current_context == *old {
        set_current(&load(context)?, new)?;
    }
    writeln!(context.streams.out.clone(), "Context {old:?} renamed to {new:?}.")?;
    Ok(())
}
