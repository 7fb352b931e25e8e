//! `kubectl set image`.

use super::{Change, apply, container, flags, split};
use crate::{command::Command, context::Context, error::CommandError, flags::Flag, resolve};

/// The command.
pub(super) fn command() -> Command {
    Command::new("image", "Update the image of a pod template")
        .usage("(-f FILENAME | TYPE NAME) CONTAINER_NAME_1=CONTAINER_IMAGE_1 ... CONTAINER_NAME_N=CONTAINER_IMAGE_N")
        .examples(&["kubectl set image deployment/nginx busybox=busybox nginx=nginx:1.9.1"])
        .flags(flags())
        .flags([resolve::selector_flag()])
        .flags([Flag::switch("record", "Note the command in the annotation kubernetes.io/change-cause.")
            .deprecated("--record will be removed in the future")])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let (resources, pairs) = split(&context.args, |argument| argument.contains('='));
    let images: Vec<(&str, &str)> = pairs.iter().filter_map(|pair| pair.split_once('=')).collect();
    let cause = context.flags.bool("record").then(|| super::cause(context));
    apply(context, &resources, "image updated", "failed to patch image update to pod template", |info| {
        if images.is_empty() {
            return Err(CommandError::plain("at least one image update is required"));
        }
        for (name, _) in &images {
            let (_, spec) = super::pod_spec(info)?;
            let lists = container::LISTS.iter().filter_map(|list| spec[*list].as_array()).flatten();
            if *name != "*" && !lists.into_iter().any(|container| container["name"] == *name) {
                return Err(CommandError::plain(format!("unable to find container named {name:?}")));
            }
        }
        let (change, _) = container::change(info, "*", |container| {
            for (name, image) in &images {
                if *name == "*" || container["name"] == *name {
                    container["image"] = (*image).into();
                }
            }
            Ok(())
        })?;
        Ok(match (change, &cause) {
            (Change::To { mut object, mut patch }, Some(cause)) => {
                for value in [&mut object, &mut patch] {
                    value["metadata"]["annotations"]["kubernetes.io/change-cause"] = cause.clone().into();
                }
                Change::To { object, patch }
            }
            (change, _) => change,
        })
    })
    .await
}
