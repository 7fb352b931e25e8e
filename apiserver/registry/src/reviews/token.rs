//! TokenReview and SelfSubjectReview.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use generic::{
    authn::bearer::Bearer,
    endpoint::{Call, Handler},
    user::User,
};
use http::Response;
use machinery::{ApiError, ApiResult};
use serde_json::{Map, Value, json};

use super::{answer, decode};

/// `userInfo` of a user.
fn user_info(user: &User) -> Value {
    let mut info = Map::new();
    if !user.name.is_empty() {
        info.insert("username".into(), json!(user.name));
    }
    if !user.uid.is_empty() {
        info.insert("uid".into(), json!(user.uid));
    }
    if !user.groups.is_empty() {
        info.insert("groups".into(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        info.insert("extra".into(), json!(user.extra));
    }
    Value::Object(info)
}

/// Handler of TokenReviews.
pub struct TokenReview {
    /// Who resolves tokens.
    pub bearer: Arc<Bearer>,
    /// Audiences of the API, used when the review names none.
    pub audiences: Vec<String>,
}

#[async_trait]
impl Handler for TokenReview {
    async fn handle(&self, call: &Call) -> ApiResult<Response<Body>> {
        let mut review = decode(call)?;
        let token = review.pointer("/spec/token").and_then(Value::as_str).unwrap_or("").to_owned();
        if token.is_empty() {
            return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
        }
        let named = review.pointer("/spec/audiences").and_then(Value::as_array);
        let named: Vec<String> = named.into_iter().flatten().filter_map(|a| a.as_str().map(str::to_owned)).collect();
        let wanted = if named.is_empty() { &self.audiences } else { &named };
        review["status"] = match self.bearer.resolve(&token, wanted).await {
            Ok(Some(identity)) => {
                let known = identity.audiences;
                // Tokens that know no audience are for the API itself.
                let matched: Vec<String> = match known.is_empty() {
                    true => wanted.iter().filter(|a| self.audiences.contains(a)).cloned().collect(),
                    false => known,
                };
                match matched.is_empty() && !wanted.is_empty() {
                    true => json!({"user": {}, "error": "token audiences do not match"}),
                    false => json!({
                        "authenticated": true,
                        "user": user_info(&identity.user.authenticated()),
                        "audiences": matched,
                    }),
                }
            }
            Ok(None) => json!({"user": {}}),
            Err(error) => json!({"user": {}, "error": error.to_string()}),
        };
        answer(call, review)
    }
}

/// Handler of SelfSubjectReviews.
pub struct SelfReview;

#[async_trait]
impl Handler for SelfReview {
    async fn handle(&self, call: &Call) -> ApiResult<Response<Body>> {
        let mut review = decode(call)?;
        review["status"] = json!({"userInfo": user_info(&call.user)});
        answer(call, review)
    }
}
