//! Pressure stall information of a group.

use std::path::Path;

use super::read;
use crate::platform::{Pressure, Stall};

/// What the three files of a group say; nothing if the kernel keeps no account.
pub(super) fn of(dir: &Path) -> Option<Pressure> {
    let file = |name: &str| parse(&read(&dir.join(name)));
    Some(Pressure { cpu: file("cpu.pressure")?, memory: file("memory.pressure")?, io: file("io.pressure")? })
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`: tasks that wait, all tasks that wait.
fn parse(text: &str) -> Option<[Stall; 2]> {
    let mut stalls = [None, None];
    for line in text.lines() {
        let (kind, rest) = line.split_once(' ')?;
        let at = match kind {
            "some" => 0,
            "full" => 1,
            _ => continue,
        };
        stalls[at] = stall(rest);
    }
    let [some, full] = stalls;
    // Of processors older kernels know no full stall.
    Some([some?, full.unwrap_or_default()])
}

fn stall(text: &str) -> Option<Stall> {
    let value = |name: &str| {
        let mut words = text.split(' ');
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    let hundredths = |name: &str| Some((value(name)?.parse::<f64>().ok()? * 100.0).round() as u64);
    Some(Stall {
        total_micros: value("total")?.parse().ok()?,
        hundredths: [hundredths("avg10")?, hundredths("avg60")?, hundredths("avg300")?],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_are_read() {
        let text = "some avg10=1.53 avg60=0.40 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7";
        let [some, full] = parse(text).unwrap();
        assert_eq!(some, Stall { total_micros: 1234, hundredths: [153, 40, 0] });
        assert_eq!(full.total_micros, 7);
        assert_eq!(parse("some avg10=0.00 avg60=0.00 avg300=0.00 total=3").unwrap()[1], Stall::default());
        assert_eq!(parse(""), None);
        assert_eq!(parse("some total=x"), None);
    }

    #[test]
    fn a_group_without_account_has_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(of(dir.path()), None);
        for name in ["cpu", "memory", "io"] {
            let text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
            std::fs::write(dir.path().join(format!("{name}.pressure")), text).unwrap();
        }
        assert_eq!(of(dir.path()).unwrap().io[0].total_micros, 5);
    }
}
