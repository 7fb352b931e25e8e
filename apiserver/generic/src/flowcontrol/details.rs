//! What a request is, for those who look at the queues.

use crate::{request::RequestInfo, user::User};

/// A request, written down in memory that is used again.
#[derive(Debug, Default)]
pub(super) struct Details {
    pub(super) schema: String,
    pub(super) flow: String,
    pub(super) user: String,
    pub(super) verb: String,
    pub(super) path: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) version: String,
    pub(super) resource: String,
    pub(super) subresource: String,
}

impl Details {
    /// Writes a request down.
    pub(super) fn set(&mut self, schema: &str, flow: &str, user: &User, info: &RequestInfo) {
        for (place, text) in [
            (&mut self.schema, schema),
            (&mut self.flow, flow),
            (&mut self.user, &user.name),
            (&mut self.verb, &info.verb),
            (&mut self.path, &info.path),
            (&mut self.namespace, &info.namespace),
            (&mut self.name, &info.name),
            (&mut self.version, &info.version),
            (&mut self.resource, &info.resource),
            (&mut self.subresource, &info.subresource),
        ] {
            place.clear();
            place.push_str(text);
            place.shrink_to(512);
        }
    }
}
