//! `kubectl set resources`.

use machinery::quantity::Quantity;
use serde_json::{Map, Value, json};

use super::{apply, container, flags, kind_and_name};
use crate::{command::Command, context::Context, error::CommandError, flags::Flag, resolve};

/// The command.
pub(super) fn command() -> Command {
    Command::new("resources", "Update resource requests/limits on objects with pod templates")
        .usage("(-f FILENAME | TYPE NAME)  ([--limits=LIMITS & --requests=REQUESTS]")
        .examples(&["kubectl set resources deployment nginx -c=nginx --limits=cpu=200m,memory=512Mi"])
        .flags(flags())
        .flags([resolve::selector_flag()])
        .flags([
            Flag::text("containers", "*", "Containers by name; * stands for anything.").short('c'),
            Flag::text("limits", "", "Limits, such as cpu=100m,memory=256Mi."),
            Flag::text("requests", "", "Requests, such as cpu=100m,memory=256Mi."),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let (limits, requests) = (context.flags.text("limits"), context.flags.text("requests"));
    if limits.is_empty() && requests.is_empty() {
        return Err(CommandError::plain(
            "you must specify an update to requests or limits (in the form of --requests/--limits)",
        ));
    }
    let (limits, requests) = (parse(limits)?, parse(requests)?);
    let pattern = context.flags.text("containers");
    let failed = "failed to patch resources update to pod template";
    apply(context, &context.args, "resource requirements updated", failed, |info| {
        let (change, matched) = container::change(info, pattern, |container| {
            for (field, amounts) in [("limits", &limits), ("requests", &requests)] {
                for (name, amount) in amounts {
                    if !container["resources"].is_object() {
                        container["resources"] = json!({});
                    }
                    container["resources"][field][name] = amount.clone();
                }
            }
            Ok(())
        })?;
        if matched == 0 {
            return Err(CommandError::plain(format!("unable to find container named {pattern}")));
        }
        let (kind, name) = kind_and_name(info);
        match change {
            super::Change::None => {
                Err(CommandError::plain(format!("info: {} {name:?} was not changed", kind.to_lowercase() + "s")))
            }
            change => Ok(change),
        }
    })
    .await
}

fn parse(text: &str) -> Result<Map<String, Value>, CommandError> {
    let mut amounts = Map::new();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, amount) = pair.split_once('=').ok_or_else(|| {
            CommandError::plain(format!("Invalid argument syntax {pair}, expected <resource>=<value>"))
        })?;
        let amount = Quantity::parse(amount).map_err(|_| {
            CommandError::plain(
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            )
        })?;
        amounts.insert(name.to_owned(), amount.to_string().into());
    }
    Ok(amounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_in_canonical_form() {
        let amounts = parse("cpu=1000m,memory=1024Mi").expect("amounts");
        assert_eq!(Value::Object(amounts), json!({"cpu": "1", "memory": "1Gi"}));
        assert!(parse("cpu").is_err() && parse("cpu=x").is_err());
    }
}
