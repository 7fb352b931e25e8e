//! GET of one object: stored bytes as they are.

use axum::body::Body;
use http::{Response, StatusCode};
use machinery::{ApiError, ApiResult, Reason};
use storage::cache::Freshness;

use crate::{endpoint::Call, negotiate::Target, resource::decode_cached};

/// Serves GET on an object or a `Part` subresource.
pub async fn get(call: &Call) -> ApiResult<Response<Body>> {
    if call.query.flag("export") {
        return Err(ApiError::bad_request("the export parameter, deprecated since v1.14, is no longer supported"));
    }
    let resource = call.resource()?;
    let writer = call.writer(Target::Item)?;
    let freshness = resource.freshness(freshness(call)?);
    spans::step("About to Get from storage", []);
    let object = resource.get(&call.info.namespace, &call.info.name, freshness).await?;
    spans::step("About to write a response", []);
    if call.endpoint.serves_stored_form() {
        return writer.cached(StatusCode::OK, &object, &call.endpoint.gvk);
    }
    writer.object(StatusCode::OK, call.endpoint.served(decode_cached(&object)?.object).await?)
}

/// The freshness that `resourceVersion` asks for.
pub fn freshness(call: &Call) -> ApiResult<Freshness> {
    match call.query.get("resourceVersion").unwrap_or("") {
        "" => Ok(Freshness::Latest),
        "0" => Ok(Freshness::Any),
        text => text.parse().map(Freshness::AtLeast).map_err(|_| {
            let text = format!(
                "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
            );
            ApiError::new(500, Reason::Unknown, text)
        }),
    }
}
