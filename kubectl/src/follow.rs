//! One object, looked at until it is as wanted.

use std::time::Duration;

use serde_json::Value;

use crate::{
    cluster::{Call, Cluster},
    context::Context,
    error::CommandError,
    resolve::Info,
};

/// Time before an ended watch begins anew.
const PAUSE: Duration = Duration::from_millis(500);

/// Shows an object as it is now and after each change to `judge` until that answers; `None` is an object that is gone.
pub(crate) async fn until<T>(
    context: &Context,
    cluster: &Cluster,
    info: &Info,
    mut judge: impl FnMut(Option<&Value>) -> Result<Option<T>, CommandError>,
) -> Result<T, CommandError> {
    let mut object = Some(info.object.clone());
    loop {
        if let Some(answer) = judge(object.as_ref())? {
            return Ok(answer);
        }
        let version = object.as_ref().and_then(|o| o["metadata"]["resourceVersion"].as_str()).unwrap_or("0");
        let call = Call::get(&info.collection())
            .query("fieldSelector", format!("metadata.name={}", info.name))
            .query("watch", "true")
            .query("resourceVersion", version);
        let mut events = cluster.watch(&call).await?;
        loop {
            let next = tokio::select! {
                next = events.next() => next,
                () = context.stop.cancelled() => return Err(CommandError::Exit(130)),
            };
            // A watch that ended or is too old begins anew.
            let Ok(Some(event)) = next else { break };
            let state = if event.kind == "DELETED" { None } else { Some(&event.object) };
            if let Some(answer) = judge(state)? {
                return Ok(answer);
            }
        }
        tokio::time::sleep(PAUSE).await;
        object = match cluster.get(&info.path()).await {
            Ok(object) => Some(object),
            Err(error) if error.status().is_some_and(|s| s.reason == "NotFound") => None,
            Err(error) => return Err(error),
        };
    }
}
