//! Commands as probes.

use std::time::Duration;

use super::runner::{MAX_OUTPUT, Report};
use crate::cri::Cri;

/// Success is exit code zero; a command that cannot be run at all is no answer.
pub(super) async fn probe(cri: &Cri, id: &str, command: Vec<String>, timeout: Duration) -> Result<Report, String> {
    let shown = command.join(" ");
    match cri.exec_sync(id, command, timeout).await {
        Ok(answer) if answer.exit_code == 0 => Ok(Report::Success),
        Ok(answer) => {
            let mut output = answer.stdout;
            output.extend_from_slice(&answer.stderr);
            output.truncate(MAX_OUTPUT);
            Ok(Report::Failure(String::from_utf8_lossy(&output).into_owned()))
        }
        Err(error) if error.is_timeout() => {
            Ok(Report::Failure(format!("command timed out: {shown:?} timed out after {}s", timeout.as_secs())))
        }
        Err(error) => Err(error.to_string()),
    }
}
