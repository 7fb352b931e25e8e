//! Calls over gRPC: none without a deadline.

use std::future::Future;
use std::time::Duration;

use tonic::{Code, Response, Status};

/// The name of a result as metrics have it.
pub(crate) fn code_name<T>(result: &Result<T, Status>) -> String {
    match result.as_ref().err().map_or(Code::Ok, Status::code) {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    }
}

/// Waits for an answer; a call that takes longer failed.
pub(crate) async fn limited<T>(
    deadline: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, Status> {
    let answer = tokio::time::timeout(deadline, call).await;
    answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("context deadline exceeded")))
}
