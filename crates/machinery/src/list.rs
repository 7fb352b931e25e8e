//! Continue tokens of paginated lists.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

/// Where a paginated list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continue {
    /// Revision of the first page; -1 for "the latest".
    pub revision: i64,
    /// Key to start at, below the prefix of the list.
    pub start: String,
}

/// A token that this server did not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid continue token: continue key is not valid: {0}")]
pub struct ContinueError(&'static str);

#[derive(Serialize, Deserialize)]
struct Wire {
    #[serde(rename = "v")]
    version: String,
    #[serde(rename = "rv")]
    revision: i64,
    start: String,
}

const VERSION: &str = "meta.k8s.io/v1";

impl Continue {
    /// A token.
    pub fn new(revision: i64, start: &str) -> Self {
        Self { revision, start: start.to_owned() }
    }

    /// The text on the wire.
    pub fn encode(&self) -> String {
        let wire = Wire { version: VERSION.into(), revision: self.revision, start: self.start.clone() };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).unwrap_or_default())
    }

    /// Reads a token. Keys that would leave the list's prefix are refused.
    pub fn decode(text: &str) -> Result<Self, ContinueError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| ContinueError("illegal base64 data"))?;
        let wire: Wire = serde_json::from_slice(&bytes).map_err(|_| ContinueError("malformed value"))?;
        if wire.version != VERSION {
            return Err(ContinueError("server does not recognize this encoded version"));
        }
        if wire.revision == 0 {
            return Err(ContinueError("incorrect encoded start resourceVersion"));
        }
        let start = wire.start;
        if start.is_empty() {
            return Err(ContinueError("encoded start key empty"));
        }
        if start.starts_with('/') || start.split('/').any(|part| matches!(part, "." | "..")) {
            return Err(ContinueError("invalid start key"));
        }
        Ok(Self { revision: wire.revision, start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_cannot_escape() {
        let token = Continue::new(7, "ns/name\0");
        assert_eq!(Continue::decode(&token.encode()), Ok(token));
        assert!(Continue::decode(&Continue::new(7, "../secrets/x").encode()).is_err());
        assert!(Continue::decode("!!").is_err());
    }
}
