//! etcd's errors as store errors.

use etcd_client::Error;

use crate::contract::StoreError;

/// gRPC status codes.
const INVALID_ARGUMENT: i32 = 3;
const DEADLINE_EXCEEDED: i32 = 4;
const RESOURCE_EXHAUSTED: i32 = 8;
const OUT_OF_RANGE: i32 = 11;
const DATA_LOSS: i32 = 15;

/// What an error of the client means.
pub(super) fn store_error(error: Error) -> StoreError {
    let Error::GRpcStatus(status) = &error else {
        return StoreError::Unavailable(chain(&error));
    };
    let message = status.message();
    match i32::from(status.code()) {
        OUT_OF_RANGE if message.contains("compacted") => StoreError::Compacted { compact_revision: 0, current: 0 },
        OUT_OF_RANGE if message.contains("future revision") => StoreError::FutureRevision { requested: 0, current: 0 },
        RESOURCE_EXHAUSTED if message.contains("space") => StoreError::Full,
        INVALID_ARGUMENT if message.contains("too large") => {
            StoreError::TooLarge { what: "request", size: 0, limit: 0 }
        }
        INVALID_ARGUMENT => StoreError::Invalid(message.to_owned()),
        DEADLINE_EXCEEDED => StoreError::Timeout,
        DATA_LOSS => StoreError::Corrupt(message.to_owned()),
        _ => StoreError::Unavailable(message.to_owned()),
    }
}

/// Whether an error says that a lease has gone.
pub(super) fn is_lease_gone(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status) if status.message().contains("lease not found"))
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
