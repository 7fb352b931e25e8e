//! Committed gRPC definitions: CRI v1.
