//! Kinds that are posted and answered, never stored: token and access reviews.

mod access;
mod token;

use axum::body::Body;
use generic::{endpoint::Call, negotiate::Target, options::WriteOptions, verbs::body};
use http::{Method, Response, StatusCode};
use machinery::{ApiError, ApiResult};
use serde_json::Value;

pub use access::{AccessReview, RulesReview, SelfAccessReview};
pub use token::{SelfReview, TokenReview};

/// Decodes the posted review. Only POST is served.
fn decode(call: &Call) -> ApiResult<Value> {
    if call.method != Method::POST {
        return Err(ApiError::method_not_allowed());
    }
    let options = WriteOptions::parse("CreateOptions", &call.query, &call.headers, false)?;
    let mut review = body::decode_object(call, &call.endpoint.gvk, options.field_validation)?;
    body::check_namespace(&mut review, call)?;
    Ok(review)
}

/// Answers 201 with the review.
fn answer(call: &Call, review: Value) -> ApiResult<Response<Body>> {
    call.writer(Target::Plain)?.object(StatusCode::CREATED, review)
}
