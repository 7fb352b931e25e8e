//! Group versions that other servers answer for.

use async_trait::async_trait;
use axum::body::Body;
use http::{Request, Response};

use crate::{authn::Peer, user::User};

/// Passes requests on to other servers.
#[async_trait]
pub trait Delegate: Send + Sync {
    /// Whether another server answers for a group version.
    fn claims(&self, group: &str, version: &str) -> bool;

    /// Passes an authorized request below `/apis/<group>/<version>` on.
    async fn pass_on(
        &self,
        group_version: (&str, &str),
        request: Request<Body>,
        user: &User,
        peer: &Peer,
    ) -> Response<Body>;
}

/// Group and version of a path below `/apis`.
pub(crate) fn group_version(path: &str) -> Option<(&str, &str)> {
    let (group, rest) = path.strip_prefix("/apis/")?.split_once('/')?;
    let version = rest.split('/').next().unwrap_or_default();
    (!group.is_empty() && !version.is_empty()).then_some((group, version))
}

#[cfg(test)]
mod tests {
    use super::group_version;

    #[test]
    fn paths_of_group_versions() {
        for (path, expected) in [
            ("/apis/example.com/v1", Some(("example.com", "v1"))),
            ("/apis/example.com/v1/things/a?x=/", Some(("example.com", "v1"))),
            ("/apis/example.com/", None),
            ("/apis/example.com", None),
            ("/apis//v1", None),
            ("/api/v1/pods", None),
        ] {
            assert_eq!(group_version(path), expected, "{path}");
        }
    }
}
