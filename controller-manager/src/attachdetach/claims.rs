//! Volumes that are being attached to the one node that can have them: informers show it later, and other nodes are
//! looked at meanwhile.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;

/// After this an attachment that never showed was not made.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// Nodes by PersistentVolume, and since when.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<HashMap<String, (String, Duration)>>);

impl Claims {
    /// Whether a node may have a volume now; it is the node's from here on.
    pub(super) fn claim(&self, volume: &str, node: &str, now: Duration) -> bool {
        let mut claims = self.0.lock();
        let is_free = |(holder, since): &(String, Duration)| holder == node || now.saturating_sub(*since) >= FORGOTTEN;
        if !claims.get(volume).is_none_or(is_free) {
            return false;
        }
        claims.insert(volume.to_owned(), (node.to_owned(), now));
        true
    }

    /// The attachment shows, or was not made.
    pub(super) fn settled(&self, volume: &str, node: &str) {
        let mut claims = self.0.lock();
        if claims.get(volume).is_some_and(|(holder, _)| holder == node) {
            claims.remove(volume);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_at_a_time() {
        let (claims, at) = (Claims::default(), Duration::from_secs);
        assert!(claims.claim("v", "a", at(0)) && claims.claim("v", "a", at(1)));
        assert!(!claims.claim("v", "b", at(2)) && claims.claim("w", "b", at(2)));
        claims.settled("v", "b");
        assert!(!claims.claim("v", "b", at(3)));
        claims.settled("v", "a");
        assert!(claims.claim("v", "b", at(4)));
        assert!(!claims.claim("v", "a", at(63)) && claims.claim("v", "a", at(64)));
    }
}
