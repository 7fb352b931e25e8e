//! `kubectl auth`.

mod can_i;
mod reconcile;

use std::io::Write;

use serde_json::{Value, json};

use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    print::{self, Printer, table::Aligned},
};

/// The command.
pub(crate) fn command() -> Command {
    Command::new("auth", "Inspect authorization").usage("[flags]").commands(vec![
        can_i::command(),
        reconcile::command(),
        Command::new("whoami", "Experimental: Check self subject attributes")
            .long("Check who the server takes you for: name, UID, groups and extras.")
            .flags(print::flags())
            .runs(|context| Box::pin(whoami(context))),
    ])
}

async fn whoami(context: &Context) -> Result<(), CommandError> {
    let printer = Printer::of(&context.flags, &[])?;
    let cluster = context.cluster().await?;
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let mut answer = cluster.json(&Call::post("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review)).await?;
    let mut out = context.streams.out.clone();
    if let Some(mut printer) = printer {
        answer["metadata"] = json!({});
        return printer.print_declared(&answer, &mut out);
    }
    let user = &answer["status"]["userInfo"];
    let list = |value: &Value| {
        let items: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        format!("[{}]", items.join(" "))
    };
    let mut table = Aligned::default();
    table.row(&["ATTRIBUTE", "VALUE"]);
    if let Some(name) = user["username"].as_str().filter(|n| !n.is_empty()) {
        table.row(&["Username", name]);
    }
    if let Some(uid) = user["uid"].as_str().filter(|u| !u.is_empty()) {
        table.row(&["UID", uid]);
    }
    if user["groups"].as_array().is_some_and(|g| !g.is_empty()) {
        table.row(&["Groups", &list(&user["groups"])]);
    }
    for (key, value) in user["extra"].as_object().into_iter().flatten() {
        table.row(&[&format!("Extra: {key}"), &list(value)]);
    }
    write!(out, "{}", table.flush())?;
    Ok(())
}
