//! `POST /checkpoint/{namespace}/{pod}/{container}`: a running container's state as an archive on the node.

use axum::body::Body;
use http::{Response, StatusCode};
use jiff::Timestamp;
use serde_json::json;

use super::{Server, json_response, query_pairs, text};
use crate::cri::{PodView, RecordState};
use crate::pods;

impl Server {
    pub(super) async fn checkpoint(&self, namespace: &str, pod: &str, container: &str, query: &str) -> Response<Body> {
        let refuse = |text_: String| text(StatusCode::NOT_FOUND, text_);
        if !self.services.settings.features.checkpoints {
            return refuse("404 page not found\n".to_owned());
        }
        let Some(found) = self.workers.find(namespace, pod) else { return refuse("pod does not exist\n".to_owned()) };
        if pods::find_container(&found.pod, container).is_none() {
            return refuse(format!("container {container} does not exist\n"));
        }
        let Ok(seconds) = timeout(query) else {
            return refuse("cannot parse value of timeout parameter\n".to_owned());
        };
        match self.checkpoint_of(pods::uid(&found.pod), (namespace, pod, container), seconds).await {
            Ok(location) => json_response(&json!({ "items": [location] })),
            Err(error) => {
                let error = format!("checkpointing of {namespace}/{pod}/{container} failed ({error})\n");
                text(StatusCode::INTERNAL_SERVER_ERROR, error)
            }
        }
    }

    async fn checkpoint_of(
        &self,
        uid: &str,
        (namespace, pod, container): (&str, &str, &str),
        seconds: i64,
    ) -> Result<String, String> {
        let view = PodView::read(&self.services.cri, uid).await.map_err(|error| error.to_string())?;
        let running = view.newest(container).filter(|record| record.state == RecordState::Running);
        let record = running.ok_or_else(|| format!("container {container:?} not found"))?;
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
        let name = format!("checkpoints/checkpoint-{pod}_{namespace}-{container}-{now}.tar");
        let location = self.services.paths.root().join(name).display().to_string();
        let made = self.services.cri.checkpoint_container(&record.id, &location, seconds).await;
        made.map(|()| location).map_err(|error| error.to_string())
    }
}

/// The last of the values given; none is the runtime's own.
fn timeout(query: &str) -> Result<i64, std::num::ParseIntError> {
    let given = query_pairs(query).into_iter().rfind(|(key, _)| key == "timeout");
    given.map_or(Ok(0), |(_, value)| value.parse())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_timeout_counts() {
        assert_eq!(timeout(""), Ok(0));
        assert_eq!(timeout("timeout=1&timeout=7"), Ok(7));
        assert!(timeout("timeout=long").is_err());
    }
}
