//! `create deployment`.

use serde_json::{Value, json};

use super::{Generated, generator_flags};
use crate::{command::Command, context::Context, error::CommandError, flags::Flag};

pub(super) fn command() -> Command {
    Command::new("deployment", "Create a deployment with the specified name")
        .aliases(&["deploy"])
        .usage("NAME --image=image -- [COMMAND] [args...]")
        .examples(&[
            "kubectl create deployment my-dep --image=busybox",
            "kubectl create deployment my-dep --image=busybox -- date",
            "kubectl create deployment my-dep --image=nginx --replicas=3 --port=80",
        ])
        .flags(generator_flags())
        .flags([
            Flag::list("image", "Images of the containers.").required(),
            Flag::int("port", "-1", "Port that the containers expose."),
            Flag::int("replicas", "1", "Number of Pods.").short('r'),
        ])
        .runs(|context| Box::pin(run(context)))
}

async fn run(context: &Context) -> Result<(), CommandError> {
    let name = context.one_name()?;
    let (images, command) = (context.flags.list("image"), context.after_dash());
    if images.len() > 1 && !command.is_empty() {
        return Err(CommandError::plain("cannot specify multiple --image options and command"));
    }
    let port = context.flags.int("port");
    let containers: Vec<Value> = images
        .iter()
        .map(|image| {
            let mut container = json!({"name": container_name(image), "image": image, "resources": {}});
            if port >= 0 {
                container["ports"] = json!([{"containerPort": port}]);
            }
            if !command.is_empty() {
                container["command"] = json!(command);
            }
            container
        })
        .collect();
    let labels = json!({"app": name});
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": context.flags.int("replicas"),
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
            "strategy": {},
        },
        "status": {},
    });
    Generated::new(object, "failed to create deployment: ").finish(context).await
}

/// The last part of an image's path, as a name that is unique if it had to be changed.
fn container_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let name = last.split([':', '@']).next().unwrap_or(last);
    if !name.contains(['_', '.']) {
        return name.to_owned();
    }
    format!("{}-{}", name.replace(['_', '.'], "-"), util::random_suffix(5))
}
