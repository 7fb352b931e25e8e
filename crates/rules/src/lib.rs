//! Defaulting, validation and update strategy per kind, RBAC evaluation: functions only.
