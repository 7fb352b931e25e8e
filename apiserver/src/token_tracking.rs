//! The ConfigMap that says since when it is noted which ServiceAccount tokens in Secrets are used: whoever removes those
//! that are not used must know that nobody looked before.

use std::{sync::Arc, time::Duration};

use generic::{resource::Resource, verbs::context::Moment};
use machinery::ApiResult;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::bootstrap::{ensure, keep};

const NAME: &str = "kube-apiserver-legacy-service-account-token-tracking";
const NAMESPACE: &str = "kube-system";
/// How often it is looked after.
const ROUND: Duration = Duration::from_secs(60);
/// Pause before a failed round is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps the ConfigMap until `stop`.
pub(crate) async fn run(maps: Arc<Resource>, stop: CancellationToken) {
    loop {
        let pause = match round(&maps).await {
            Ok(()) => ROUND,
            Err(error) => {
                tracing::warn!(%error, "the ConfigMap about the use of tokens is not there");
                RETRY
            }
        };
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// A date, `2006-01-02`.
fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let digits = |part: &&str, length: usize| part.len() == length && part.bytes().all(|b| b.is_ascii_digit());
    matches!(parts.as_slice(), [year, month, day] if digits(year, 4) && digits(month, 2) && digits(day, 2))
}

async fn round(maps: &Resource) -> ApiResult<()> {
    let today = Moment::now().text.get(..10).unwrap_or_default().to_owned();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME, "namespace": NAMESPACE},
        "data": {"since": today}});
    match ensure(maps, map.clone()).await? {
        Some(present) if !present.object["data"]["since"].as_str().is_some_and(is_date) => {
            keep(maps, map, "data").await
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_one_form() {
        for (text, is) in [("2026-11-22", true), ("2026-11-2", false), ("", false), ("2026/11/22", false)] {
            assert_eq!(is_date(text), is, "{text}");
        }
    }
}
