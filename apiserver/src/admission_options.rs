//! Flags of admission.

use std::path::PathBuf;

use clap::Args;

/// Flags of admission.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Admission flags")]
pub struct AdmissionOptions {
    /// Admission plugins to add.
    #[arg(long, value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins to leave out.
    #[arg(long, value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
    /// All admission plugins; none but these run. Their order does not matter. Deprecated.
    #[arg(long, value_delimiter = ',')]
    pub admission_control: Vec<String>,
    /// File with the configurations of admission plugins.
    #[arg(long)]
    pub admission_control_config_file: Option<PathBuf>,
}

impl AdmissionOptions {
    /// All that is wrong.
    pub(crate) fn validate(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let (on, off) = (&self.enable_admission_plugins, &self.disable_admission_plugins);
        let others = on.len() + off.len();
        if !self.admission_control.is_empty() && others > 0 {
            problems.push(
                "admission-control and enable-admission-plugins/disable-admission-plugins flags are mutually exclusive"
                    .into(),
            );
        }
        let mut both: Vec<&str> = on.iter().filter(|name| off.contains(name)).map(String::as_str).collect();
        both.sort_unstable();
        if !both.is_empty() {
            problems.push(format!(
                "{} in enable-admission-plugins and disable-admission-plugins overlapped",
                both.join(",")
            ));
        }
        problems
    }
}
