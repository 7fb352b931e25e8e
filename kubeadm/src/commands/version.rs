//! `kubeadm version`.

use serde_json::json;

use super::output::Format;
use crate::{
    error::{Result, fail},
    host::Host,
};

pub(super) fn run(host: &dyn Host, output: &str) -> Result<()> {
    let info = runtime::version::info();
    match output {
        "" => {
            let text = |field: &str| info.get(field).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
            host.line(&format!(
                "kubeadm version: &version.Info{{Major:{:?}, Minor:{:?}, EmulationMajor:\"\", EmulationMinor:\"\", \
                 MinCompatibilityMajor:\"\", MinCompatibilityMinor:\"\", GitVersion:{:?}, GitCommit:{:?}, \
                 GitTreeState:{:?}, BuildDate:{:?}, GoVersion:{:?}, Compiler:{:?}, Platform:{:?}}}",
                text("major"),
                text("minor"),
                text("gitVersion"),
                text("gitCommit"),
                text("gitTreeState"),
                text("buildDate"),
                text("goVersion"),
                text("compiler"),
                text("platform"),
            ));
            Ok(())
        }
        "short" => {
            host.line(runtime::version::git_version());
            Ok(())
        }
        "yaml" | "json" => {
            let mut shown = info;
            if let Some(fields) = shown.as_object_mut() {
                fields.retain(|name, _| !name.starts_with("emulation") && !name.starts_with("minCompatibility"));
            }
            let format = if output == "yaml" { Format::Yaml } else { Format::Json };
            host.say(&if format == Format::Json {
                format!("{:#}\n", json!({"clientVersion": shown}))
            } else {
                format.render(&json!({"clientVersion": shown}))?
            });
            Ok(())
        }
        other => fail!("invalid output format: {other}"),
    }
}
