//! Small std-like helpers: error chains, back-off arithmetic, name hashes.
