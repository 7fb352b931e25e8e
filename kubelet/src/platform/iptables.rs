//! The few chains that a kubelet keeps.

use std::io;
use std::process::{Command, Stdio};

const HINT: &str = "KUBE-IPTABLES-HINT";
const CANARY: &str = "KUBE-KUBELET-CANARY";
const FIREWALL: &str = "KUBE-FIREWALL";
/// Seconds to wait for others who change rules.
const WAIT: &str = "5";

fn run(program: &str, table: &str, arguments: &[&str]) -> io::Result<bool> {
    let status = Command::new(program)
        .args(["-w", WAIT, "-t", table])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    Ok(status.success())
}

/// Makes a chain; answers whether it was absent.
fn chain(program: &str, table: &str, name: &str) -> io::Result<bool> {
    run(program, table, &["-N", name])
}

/// Makes a rule if it is absent; `how` says where.
fn rule(program: &str, how: &str, chain: &str, rule: &[&str]) -> io::Result<()> {
    if run(program, "filter", &[&["-C", chain], rule].concat())? {
        return Ok(());
    }
    match run(program, "filter", &[&[how, chain], rule].concat())? {
        true => Ok(()),
        false => Err(io::Error::other(format!("{program}: a rule of {chain} cannot be made"))),
    }
}

/// For both families, as far as the machine has them. Answers whether anything was absent.
pub(super) fn ensure() -> io::Result<bool> {
    let mut absent = false;
    for program in ["iptables", "ip6tables"] {
        match run(program, "mangle", &["-S"]) {
            Ok(true) => {}
            // Without the family there is nothing to keep.
            Ok(false) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        absent |= chain(program, "mangle", HINT)?;
        for table in ["mangle", "nat", "filter"] {
            absent |= chain(program, table, CANARY)?;
        }
    }
    if run("iptables", "filter", &["-S"]).unwrap_or(false) {
        absent |= chain("iptables", "filter", FIREWALL)?;
        for from in ["INPUT", "OUTPUT"] {
            rule("iptables", "-I", from, &["-j", FIREWALL])?;
        }
        let comment = ["-m", "comment", "--comment", "block incoming localnet connections"];
        let addresses = ["-d", "127.0.0.0/8", "!", "-s", "127.0.0.0/8"];
        let state = ["-m", "conntrack", "!", "--ctstate", "RELATED,ESTABLISHED,DNAT", "-j", "DROP"];
        rule("iptables", "-A", FIREWALL, &[&addresses[..], &comment, &state].concat())?;
    }
    Ok(absent)
}
