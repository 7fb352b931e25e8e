//! The kinds table over the v1.36 API: discovery facts, field schemas, protobuf numbers.
