//! `Impersonate-*` headers: acting as somebody else, with permission.

use http::{HeaderMap, HeaderName};
use machinery::{ApiError, ApiResult};

use crate::{
    authz::{Attributes, Decision, forbidden},
    request::decode,
    server::Server,
    user::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User},
};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// Resolves impersonation and removes its headers.
pub async fn apply(server: &Server, user: User, headers: &mut HeaderMap) -> ApiResult<User> {
    let wanted = wanted(headers)?;
    let Some(mut target) = wanted else { return Ok(user) };
    for attributes in demands(&user, &target) {
        match server.authorizer.authorize(&attributes).await {
            Decision::Allow(_) => {}
            Decision::Deny(reason) | Decision::NoOpinion(reason) => return Err(forbidden(&attributes, &reason)),
        }
    }
    if let (true, Some((namespace, _))) = (target.groups.is_empty(), service_account(&target.name)) {
        target.groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
    }
    if target.name == ANONYMOUS {
        if !target.in_group(UNAUTHENTICATED) {
            target.groups.push(UNAUTHENTICATED.into());
        }
    } else if !target.in_group(AUTHENTICATED) {
        target.groups.push(AUTHENTICATED.into());
    }
    let names: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    for name in names {
        headers.remove(name);
    }
    Ok(target)
}

fn wanted(headers: &HeaderMap) -> ApiResult<Option<User>> {
    let text = |value: &http::HeaderValue| {
        value.to_str().map(str::to_owned).map_err(|_| ApiError::bad_request("invalid impersonation header"))
    };
    let mut user = User::default();
    let mut others = false;
    for (name, value) in headers {
        let value = text(value);
        match name.as_str() {
            USER => user.name = value?,
            UID => {
                user.uid = value?;
                others = true;
            }
            GROUP => {
                user.groups.push(value?);
                others = true;
            }
            other => {
                if let Some(key) = other.strip_prefix(EXTRA) {
                    user.extra.entry(decode(key).to_lowercase()).or_default().push(value?);
                    others = true;
                }
            }
        }
    }
    match (user.name.is_empty(), others) {
        (true, true) => Err(ApiError::bad_request("requested impersonation without impersonating a user")),
        (true, false) => Ok(None),
        (false, _) => Ok(Some(user)),
    }
}

fn service_account(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')
}

/// What the requester must be allowed to do to act as the target.
fn demands(user: &User, target: &User) -> Vec<Attributes> {
    let base = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| Attributes {
        user: user.clone(),
        verb: "impersonate".into(),
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        subresource: subresource.into(),
        name: name.into(),
        namespace: namespace.into(),
        is_resource: true,
        ..Attributes::default()
    };
    let mut all = vec![match service_account(&target.name) {
        Some((namespace, name)) => base("", "serviceaccounts", "", namespace, name),
        None => base("", "users", "", "", &target.name),
    }];
    all.extend(target.groups.iter().map(|g| base("", "groups", "", "", g)));
    if !target.uid.is_empty() {
        all.push(base("authentication.k8s.io", "uids", "", "", &target.uid));
    }
    for (key, values) in &target.extra {
        all.extend(values.iter().map(|v| base("authentication.k8s.io", "userextras", key, "", v)));
    }
    all
}
