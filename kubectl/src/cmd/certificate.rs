//! `kubectl certificate`.

use serde_json::{Value, json};

use crate::{
    cluster::Call,
    command::Command,
    context::Context,
    error::CommandError,
    flags::Flag,
    print::{self, DryRun, Results},
    resolve::{self, Query},
};

/// Attempts to write over changes of others.
const ATTEMPTS: usize = 5;

/// The group.
pub(crate) fn command() -> Command {
    let mut group = Command::new("certificate", "Modify certificate resources").commands(vec![
        subcommand("approve", "Approve a certificate signing request").runs(|context| Box::pin(run(context, true))),
        subcommand("deny", "Deny a certificate signing request").runs(|context| Box::pin(run(context, false))),
    ]);
    group.bare_code = 0;
    group.bare_to_out = true;
    group
}

fn subcommand(name: &'static str, short: &'static str) -> Command {
    Command::new(name, short)
        .usage("(-f FILENAME | NAME)")
        .examples(&["kubectl certificate approve csr-sqgzp"])
        .flags(resolve::file_flags("File, directory or URL with the request."))
        .flags(print::flags())
        .flags([Flag::switch("force", "Update the request even if it is decided already.")])
}

async fn run(context: &Context, approve: bool) -> Result<(), CommandError> {
    let query = Query::of(context);
    if context.args.is_empty() && query.sources.is_empty() {
        return Err(CommandError::plain("one or more CSRs must be specified as <name> or -f <filename>"));
    }
    let mut arguments = context.args.clone();
    if !arguments.is_empty() && !arguments[0].contains('/') {
        arguments.insert(0, "certificatesigningrequests".to_owned());
    }
    let found = query.arguments(&arguments).latest().infos(context).await?;
    let mut errors = found.errors;
    let mut results = Results::of(context, DryRun::None)?;
    let mut out = context.streams.out.clone();
    let word = if approve { "approved" } else { "denied" };
    for mut info in found.infos {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let decided = decide(&info.name, &info.object, approve, context.flags.bool("force"), &now());
            let object = match decided {
                Ok(Some(object)) => object,
                Ok(None) => break,
                Err(text) => {
                    errors.push(CommandError::plain(text));
                    break;
                }
            };
            let cluster = context.cluster().await?;
            match cluster.json(&Call::put(&format!("{}/approval", info.path()), &object)).await {
                Ok(object) => {
                    info.refresh(object);
                    break;
                }
                Err(error) if attempt < ATTEMPTS && error.has_reason("Conflict") => info.fetch(&cluster).await?,
                Err(error) => {
                    errors.push(error);
                    break;
                }
            }
        }
        if errors.is_empty() {
            results.print(&info.object, word, &mut out)?;
        }
    }
    CommandError::all(errors)
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The request with the decision; `None` if it has it already.
fn decide(name: &str, object: &Value, approve: bool, force: bool, now: &str) -> Result<Option<Value>, String> {
    let (kind, other) = if approve { ("Approved", "Denied") } else { ("Denied", "Approved") };
    let mut conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    if conditions.iter().any(|condition| condition["type"] == other) {
        return Err(format!("certificate signing request {name:?} is already {other}"));
    }
    let known = conditions.iter().position(|condition| condition["type"] == kind);
    if known.is_some() && !force {
        return Ok(None);
    }
    if let Some(at) = known {
        conditions.remove(at);
    }
    let (word, reason) = if approve { ("approved", "KubectlApprove") } else { ("denied", "KubectlDeny") };
    let verb = if approve { "approve" } else { "deny" };
    conditions.push(json!({
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": format!("This CSR was {word} by kubectl certificate {verb}."),
        "lastUpdateTime": now,
    }));
    let mut object = object.clone();
    object["status"]["conditions"] = Value::Array(conditions);
    Ok(Some(object))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_decided_once() {
        let open = json!({"status": {}});
        let approved = decide("x", &open, true, false, "now").expect("allowed").expect("a change");
        assert_eq!(
            approved["status"]["conditions"][0]["message"],
            "This CSR was approved by kubectl certificate approve."
        );
        assert_eq!(decide("x", &approved, true, false, "now"), Ok(None));
        assert!(matches!(decide("x", &approved, true, true, "later"), Ok(Some(_))));
        let refused = decide("x", &approved, false, false, "now");
        assert_eq!(refused, Err("certificate signing request \"x\" is already Approved".into()));
    }
}
