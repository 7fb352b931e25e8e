//! The audit log that the flags ask for.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use generic::audit::{
    Auditor,
    log::{LogFile, LogSettings},
    policy::Policy,
};
use prometheus::Registry;
use runtime::config_file;

use crate::options::Options;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The policy cannot be read or decoded.
    #[error("loading audit policy file: {0}")]
    Policy(#[from] config_file::ConfigError),
    /// The log cannot be opened.
    #[error("{path}: {source}")]
    Log {
        /// The log.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A metric name is taken.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Opens the log, if there is a policy and a place for it.
pub(crate) fn auditor(options: &Options, registry: &Registry) -> Result<Option<Arc<Auditor>>, AuditError> {
    let (Some(file), Some(path)) = (&options.audit_policy_file, &options.audit_log_path) else { return Ok(None) };
    let policy: Policy = config_file::decode(&config_file::read(file)?, &["audit.k8s.io/v1"], "Policy")?;
    let settings = LogSettings {
        path: path.clone(),
        max_size: options.audit_log_maxsize << 20,
        max_backups: options.audit_log_maxbackup,
        max_age: DAY.saturating_mul(u32::try_from(options.audit_log_maxage).unwrap_or(u32::MAX)),
    };
    let log = LogFile::open(settings).map_err(|source| AuditError::Log { path: path.clone(), source })?;
    Ok(Some(Arc::new(Auditor::new(policy, Arc::new(log), registry)?)))
}
