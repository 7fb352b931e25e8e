//! `--emulated-version` and `--min-compatibility-version`.

use clap::Args;

use crate::version::{self, BINARY, Minor};

/// How many versions back can be emulated.
const STEPS: u16 = 3;
/// The one component whose version can be emulated.
const COMPONENT: &str = "kube";

/// Versions that the component behaves as and works with.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Component flags")]
pub struct CompatibilityArgs {
    /// The version that the component behaves as, [kube=]major.minor.
    #[arg(long, value_delimiter = ',')]
    pub emulated_version: Vec<String>,
    /// The oldest version of other components that this one works with, [kube=]major.minor.
    #[arg(long, value_delimiter = ',')]
    pub min_compatibility_version: Vec<String>,
}

impl CompatibilityArgs {
    /// Emulated and oldest compatible version, or all that is wrong.
    pub fn versions(&self) -> Result<(Minor, Minor), Vec<String>> {
        let mut problems = Vec::new();
        let mut read = |texts: &[String], default: Minor| {
            let read = texts.iter().map(|text| parse(text)).collect::<Result<Vec<_>, _>>();
            read.map_err(|problem| problems.push(problem)).ok().and_then(|all| all.last().copied()).unwrap_or(default)
        };
        let floor = BINARY.back(STEPS);
        let emulated = read(&self.emulated_version, BINARY);
        let compatible = read(&self.min_compatibility_version, emulated.back(1).max(floor));
        if problems.is_empty() && !(floor..=BINARY).contains(&emulated) {
            problems.push(format!("emulation version {emulated} is not between [{floor}, {BINARY}]"));
        } else if problems.is_empty() && !(floor..=emulated).contains(&compatible) {
            problems.push(format!("minCompatibilityVersion version {compatible} is not between [{floor}, {emulated}]"));
        }
        if problems.is_empty() { Ok((emulated, compatible)) } else { Err(problems) }
    }

    /// Makes them those of the process; all that is wrong otherwise.
    pub fn apply(&self) -> Vec<String> {
        match self.versions() {
            Ok((emulated, compatible)) => {
                version::set_compatibility(emulated, compatible);
                Vec::new()
            }
            Err(problems) => problems,
        }
    }
}

fn parse(text: &str) -> Result<Minor, String> {
    let (component, version) = text.split_once('=').unwrap_or((COMPONENT, text));
    if component != COMPONENT {
        return Err(format!("component not registered: {component}"));
    }
    let bad = || format!("could not parse {version:?} as version");
    let digits = version.strip_prefix('v').unwrap_or(version);
    let numbers = digits.split('.').map(str::parse).collect::<Result<Vec<u16>, _>>().map_err(|_| bad())?;
    match numbers.as_slice() {
        [major, minor] => Ok(Minor { major: *major, minor: *minor }),
        [_, _, _] => Err(format!("patch version not allowed, got: {component}={version}")),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(emulated: &str, compatible: &str) -> Result<(String, String), String> {
        let list = |text: &str| text.split(',').filter(|t| !t.is_empty()).map(str::to_owned).collect();
        let args = CompatibilityArgs { emulated_version: list(emulated), min_compatibility_version: list(compatible) };
        let texts = |(a, b): (Minor, Minor)| (a.to_string(), b.to_string());
        args.versions().map(texts).map_err(|problems| problems.join("; "))
    }

    #[test]
    fn versions_have_bounds() {
        let ok = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        for (emulated, compatible, expected) in [
            ("", "", ok("1.36", "1.35")),
            ("1.34", "", ok("1.34", "1.33")),
            ("kube=1.35", "kube=1.34", ok("1.35", "1.34")),
            ("1.33", "", ok("1.33", "1.33")),
            ("1.30", "", Err("emulation version 1.30 is not between [1.33, 1.36]".to_owned())),
            ("1.37", "", Err("emulation version 1.37 is not between [1.33, 1.36]".to_owned())),
            ("1.34", "1.35", Err("minCompatibilityVersion version 1.35 is not between [1.33, 1.34]".to_owned())),
            ("kube=1.35.1", "", Err("patch version not allowed, got: kube=1.35.1".to_owned())),
            ("other=1.35", "", Err("component not registered: other".to_owned())),
            ("soon", "", Err("could not parse \"soon\" as version".to_owned())),
        ] {
            assert_eq!(versions(emulated, compatible), expected, "{emulated} {compatible}");
        }
    }
}
