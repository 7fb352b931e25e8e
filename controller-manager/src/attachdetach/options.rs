//! Flags of the attach-detach controller.

use std::time::Duration;

use clap::Args;
use runtime::flags::duration;

/// Attaching and detaching of volumes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Attach-detach flags")]
pub struct AttachOptions {
    /// Disable the periodic look at volumes that are attached.
    #[arg(long, default_value_t = false)]
    pub disable_attach_detach_reconcile_sync: bool,
    /// The time between looks at volumes that are attached; longer than a second.
    #[arg(long, default_value = "1m", value_parser = duration)]
    pub attach_detach_reconcile_sync_period: Duration,
    /// Never detach volumes from an unhealthy node that still uses them, however long that takes.
    #[arg(long, default_value_t = false)]
    pub disable_force_detach_on_timeout: bool,
}

impl AttachOptions {
    pub(crate) fn validate(&self) -> Vec<String> {
        let too_short = self.attach_detach_reconcile_sync_period < Duration::from_secs(1);
        let text = "duration time must be greater than one second as set via command line option \
                    --attach-detach-reconcile-sync-period";
        if too_short && !self.disable_attach_detach_reconcile_sync { vec![text.to_owned()] } else { Vec::new() }
    }
}
