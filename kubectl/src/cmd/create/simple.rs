//! `create namespace` and `create serviceaccount`.

use serde_json::json;

use super::{Generated, generator_flags};
use crate::command::Command;

pub(super) fn namespace() -> Command {
    Command::new("namespace", "Create a namespace with the specified name")
        .aliases(&["ns"])
        .usage("NAME [--dry-run=server|client|none]")
        .examples(&["kubectl create namespace my-namespace"])
        .flags(generator_flags())
        .runs(|context| {
            Box::pin(async move {
                let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": context.one_name()?},
                                    "spec": {}, "status": {}});
                Generated::new(object, "").in_cluster_scope().finish(context).await
            })
        })
}

pub(super) fn service_account() -> Command {
    Command::new("serviceaccount", "Create a service account with the specified name")
        .aliases(&["sa"])
        .usage("NAME [--dry-run=server|client|none]")
        .examples(&["kubectl create serviceaccount my-service-account"])
        .flags(generator_flags())
        .runs(|context| {
            Box::pin(async move {
                let name = context.one_name()?;
                let object = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
                Generated::new(object, "failed to create serviceaccount: ").finish(context).await
            })
        })
}
