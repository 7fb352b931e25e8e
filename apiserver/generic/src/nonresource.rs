//! Paths that name no resource: health, metrics, version, discovery, OpenAPI. An axum router that the component fills.

use std::sync::Arc;

use axum::{Router, body::Body};
use http::{Request, Response};
use machinery::ApiResult;
use tower::ServiceExt;

use crate::{chain::plain_not_found, server::Server, user::User};

/// Serves an authorized request on a non-resource path. Handlers find the [`User`] among the request extensions.
pub async fn serve(server: &Arc<Server>, mut request: Request<Body>, user: &User) -> ApiResult<Response<Body>> {
    request.extensions_mut().insert(user.clone());
    match server.nonresource.clone().oneshot(request).await {
        Ok(response) => Ok(response),
        Err(never) => match never {},
    }
}

/// A router that answers unknown paths as [`plain_not_found`].
pub fn router() -> Router {
    Router::new().fallback(|| async { plain_not_found() })
}
