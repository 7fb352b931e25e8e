//! `kubectl get`.

mod objects;
mod sort;
mod tables;
mod watch;

use std::io::Write;

use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    print::{self, Printer},
    resolve::{self, Query, Target},
};

/// Formats besides those that all commands have.
const FORMATS: [&str; 3] = ["custom-columns", "custom-columns-file", "wide"];

/// The command.
pub(crate) fn command() -> Command {
    Command::new("get", "Display one or many resources")
        .long(
            "Display one or many resources.\n\n Prints a table with the most important of each resource. Labels and \
             fields select what is shown; without --all-namespaces, namespaced resources come from the current \
             namespace.\n\nUse \"kubectl api-resources\" for a complete list of supported resources.",
        )
        .usage("[(-o|--output=)json|yaml|kyaml|name|go-template|go-template-file|template|templatefile|jsonpath|jsonpath-as-json|jsonpath-file|custom-columns|custom-columns-file|wide] (TYPE[.VERSION][.GROUP] [NAME | -l label] | TYPE[.VERSION][.GROUP]/NAME ...) [flags]")
        .examples(&[
            "kubectl get pods -o wide",
            "kubectl get deployments.v1.apps -o json",
            "kubectl get pod web -o jsonpath={.status.phase}",
            "kubectl get rc/web service/frontend pods/web",
            "kubectl get pods -A -l app=web",
        ])
        .flags(resolve::file_flags("File, directory or URL with the resources to get."))
        .flags(print::flags())
        .flags([
            resolve::selector_flag(),
            resolve::field_selector_flag(),
            resolve::all_namespaces_flag(),
            resolve::chunk_flag(),
            Flag::switch("ignore-not-found", "Named objects need not exist."),
            Flag::list("label-columns", "Labels to show as columns.").short('L'),
            Flag::switch("no-headers", "Leave the headers out."),
            Flag::switch("output-watch-events", "Show events with what happened (with --watch or --watch-only)."),
            Flag::text("sort-by", "", "Field to sort by, a JSONPath such as '{.metadata.name}'."),
            Flag::switch("watch", "After listing, go on with changes.").short('w'),
            Flag::switch("watch-only", "Show changes only."),
            Flag::text("raw", "", "GET this path of the server and print the answer."),
            Flag::on("server-print", "Let the server choose the columns."),
            Flag::switch("show-kind", "Write the kind before names."),
            Flag::switch("show-labels", "Show all labels as the last column."),
            Flag::text("subresource", "", "Get this subresource: status, scale or resize."),
        ])
        .runs(|context| Box::pin(run(context)))
}

/// What the flags say about output.
struct Options {
    query: Query,
    /// `-o` names a printer.
    printer: Option<Printer>,
    wide: bool,
    no_headers: bool,
    show_kind: bool,
    show_labels: bool,
    label_columns: Vec<String>,
    ignore_not_found: bool,
    output_watch_events: bool,
    /// Whether the server makes the tables.
    server_print: bool,
    watch_only: bool,
    sort: Option<sort::Sort>,
}

impl Options {
    fn of(context: &Context) -> Result<Self, CommandError> {
        let flags = &context.flags;
        let output = flags.text("output");
        let wide = output == "wide";
        let printer = if wide { None } else { Printer::of(flags, &FORMATS)? };
        if flags.bool("show-labels") && !matches!(output, "" | "wide") {
            return Err(CommandError::plain(format!("--show-labels option cannot be used with {output} printer")));
        }
        let sort = sort::Sort::parse(flags.text("sort-by"))?;
        let mut query = Query::of(context).all();
        if sort.is_some() {
            // Pages cannot be sorted one by one.
            query.chunk = Some(0);
        }
        let mut options = Self {
            query,
            printer,
            wide,
            no_headers: flags.bool("no-headers"),
            show_kind: flags.bool("show-kind"),
            show_labels: flags.bool("show-labels"),
            label_columns: flags.list("label-columns").to_vec(),
            ignore_not_found: flags.bool("ignore-not-found"),
            output_watch_events: flags.bool("output-watch-events"),
            server_print: flags.bool("server-print"),
            watch_only: flags.bool("watch-only"),
            sort,
        };
        if options.no_headers
            && let Some(printer) = &mut options.printer
        {
            printer.without_headers();
        }
        Ok(options)
    }
}

async fn run(context: &Context) -> Result<(), CommandError> {
    if let Some(path) = context.flags.non_empty("raw") {
        return raw(context, path).await;
    }
    let watching = context.flags.bool("watch") || context.flags.bool("watch-only");
    if context.flags.bool("output-watch-events") && !watching {
        return Err(CommandError::plain("--output-watch-events option can only be used with --watch or --watch-only"));
    }
    let mut options = Options::of(context)?;
    if context.args.is_empty() && options.query.sources.is_empty() {
        writeln!(
            context.streams.err.clone(),
            "You must specify the type of resource to get. Use \"kubectl api-resources\" for a complete list of \
             supported resources.\n"
        )?;
        return Err(context.usage(
            "Required resource not specified.\nUse \"kubectl explain <resource>\" for a detailed description of that \
             resource (e.g. kubectl explain pods).",
        ));
    }
    let (targets, errors) = options.query.targets(context).await?;
    if watching {
        CommandError::all(errors)?;
        let printer = options.printer.take();
        return watch::run(context, &options, printer, &targets).await;
    }
    match options.printer.take() {
        Some(printer) => objects::run(context, &options, printer, targets, errors).await,
        None => tables::run(context, &options, targets, errors).await,
    }
}

async fn raw(context: &Context, path: &str) -> Result<(), CommandError> {
    if context.flags.given("output") {
        return Err(CommandError::plain("--raw and --output are mutually exclusive"));
    }
    if !context.args.is_empty() {
        return Err(context.usage("arguments may not be passed when --raw is specified"));
    }
    if ["selector", "filename"].iter().any(|f| context.flags.given(f)) {
        return Err(context
            .usage("--raw may not be specified with other flags that filter the server request or alter the output"));
    }
    let body = context.cluster().await?.bytes(&Call::get(path)).await?;
    context.streams.out.clone().write_all(&body)?;
    Ok(())
}

/// The request for a target.
fn call(options: &Options, target: &Target) -> Call {
    match &target.name {
        None => options.query.list(target),
        Some(name) => {
            let path = format!("{}/{name}", target.resource.path(&target.namespace));
            match options.query.subresource.as_str() {
                "" => Call::get(&path),
                below => Call::get(&format!("{path}/{below}")),
            }
        }
    }
}

/// Whether a failure is to be passed over in silence.
fn is_ignored(options: &Options, error: &CommandError) -> bool {
    options.ignore_not_found && error.is_not_found()
}

/// Says that nothing was found.
fn nothing(context: &Context, options: &Options, targets: &[Target], namespace: &str) -> Result<(), CommandError> {
    if options.ignore_not_found {
        return Ok(());
    }
    let mut err = context.streams.err.clone();
    let namespaced = targets.iter().all(|t| t.resource.namespaced) && !options.query.all_namespaces;
    match namespaced {
        true => writeln!(err, "No resources found in {namespace} namespace.")?,
        false => writeln!(err, "No resources found")?,
    }
    Ok(())
}
