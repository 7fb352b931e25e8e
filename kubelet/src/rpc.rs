//! Calls over gRPC: none without a deadline.

use std::future::Future;
use std::time::Duration;

use tonic::{Response, Status};

/// Waits for an answer; a call that takes longer failed.
pub(crate) async fn limited<T>(
    deadline: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, Status> {
    let answer = tokio::time::timeout(deadline, call).await;
    answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("context deadline exceeded")))
}
