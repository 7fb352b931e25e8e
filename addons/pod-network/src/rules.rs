//! Packet filter rules: Pods are masqueraded towards the world only, and forwarded always.

use ipnet::IpNet;
use parking_lot::Mutex;

use crate::{
    host::{Command, Host, HostError},
    plan::Plan,
};

const MASQUERADE: &str = "TIMONEL-MASQ";
const FORWARD: &str = "TIMONEL-FWD";
/// Table, built-in chain, own chain.
const JUMPS: [(&str, &str, &str); 2] = [("nat", "POSTROUTING", MASQUERADE), ("filter", "FORWARD", FORWARD)];
/// Seconds to wait for the lock that all users of the tables take.
const WAIT: &str = "-w 5";

/// A family of addresses and its programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    fn program(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }

    fn restore(self) -> &'static str {
        match self {
            Self::V4 => "iptables-restore",
            Self::V6 => "ip6tables-restore",
        }
    }

    fn multicast(self) -> &'static str {
        match self {
            Self::V4 => "224.0.0.0/4",
            Self::V6 => "ff00::/8",
        }
    }

    fn has(self, network: &IpNet) -> bool {
        network.addr().is_ipv4() == (self == Self::V4)
    }
}

/// The rules of a family; `None` if the node has no Pods in it.
pub(crate) fn text(plan: &Plan, family: Family, masquerade: bool) -> Option<String> {
    let own: Vec<&IpNet> = plan.own.iter().filter(|n| family.has(n)).collect();
    if own.is_empty() {
        return None;
    }
    let cluster: Vec<&IpNet> = plan.cluster.iter().filter(|n| family.has(n)).collect();
    let mut text = format!("*nat\n:{MASQUERADE} - [0:0]\n");
    if masquerade {
        for to in &cluster {
            text.push_str(&format!("-A {MASQUERADE} -d {to} -j RETURN\n"));
        }
        text.push_str(&format!("-A {MASQUERADE} -d {} -j RETURN\n", family.multicast()));
        for from in &own {
            text.push_str(&format!("-A {MASQUERADE} -s {from} -j MASQUERADE --random-fully\n"));
        }
    }
    text.push_str(&format!("COMMIT\n*filter\n:{FORWARD} - [0:0]\n"));
    for network in &cluster {
        text.push_str(&format!("-A {FORWARD} -s {network} -j ACCEPT\n-A {FORWARD} -d {network} -j ACCEPT\n"));
    }
    text.push_str("COMMIT\n");
    Some(text)
}

/// Keeps the rules. Remembers what the kernel said after they were applied, to see when somebody changed them.
#[derive(Default)]
pub(crate) struct Rules {
    applied: Mutex<[Option<(String, String)>; 2]>,
}

impl Rules {
    /// Makes the rules of both families what they must be. Returns whether there was anything to do.
    pub(crate) async fn apply(&self, host: &dyn Host, plan: &Plan, masquerade: bool) -> Result<bool, HostError> {
        let mut changed = false;
        for family in Family::ALL {
            let Some(text) = text(plan, family, masquerade) else { continue };
            changed |= self.apply_family(host, family, text).await?;
        }
        Ok(changed)
    }

    async fn apply_family(&self, host: &dyn Host, family: Family, text: String) -> Result<bool, HostError> {
        let at = usize::from(family == Family::V6);
        let before = self.applied.lock().get(at).cloned().flatten();
        let mut changed = false;
        let is_as_left = match before {
            Some((applied, seen)) => applied == text && listing(host, family).await.is_ok_and(|now| now == seen),
            None => false,
        };
        if !is_as_left {
            let command = Command::new(family.restore(), &format!("{WAIT} --noflush"));
            host.run(&command, &text).await?;
            let seen = listing(host, family).await?;
            if let Some(slot) = self.applied.lock().get_mut(at) {
                *slot = Some((text, seen));
            }
            changed = true;
        }
        for (table, chain, target) in JUMPS {
            let jump = |verb: &str| {
                let text = format!("{WAIT} -t {table} {verb} {chain} -m comment --comment pod-network -j {target}");
                Command::new(family.program(), &text)
            };
            if host.run(&jump("-C"), "").await.is_err() {
                host.run(&jump("-A"), "").await?;
                changed = true;
            }
        }
        Ok(changed)
    }
}

async fn listing(host: &dyn Host, family: Family) -> Result<String, HostError> {
    let mut all = String::new();
    for (table, _, chain) in JUMPS {
        let command = Command::new(family.program(), &format!("{WAIT} -t {table} -S {chain}"));
        all.push_str(&host.run(&command, "").await?);
    }
    Ok(all)
}

/// Removes the rules of both families, as far as they are there.
pub(crate) async fn cleanup(host: &dyn Host) {
    for family in Family::ALL {
        for (table, chain, target) in JUMPS {
            let run = |text: String| async move {
                // What is not there need not be removed.
                let _absent = host.run(&Command::new(family.program(), &text), "").await.is_err();
            };
            run(format!("{WAIT} -t {table} -D {chain} -m comment --comment pod-network -j {target}")).await;
            run(format!("{WAIT} -t {table} -F {target}")).await;
            run(format!("{WAIT} -t {table} -X {target}")).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::host::Recorder;

    fn plan(own: &[&str], cluster: &[&str]) -> Plan {
        let networks = |all: &[&str]| all.iter().map(|n| n.parse().expect("network")).collect();
        Plan {
            vxlan: None,
            routes: BTreeMap::new(),
            mtu: 1450,
            own: networks(own),
            cluster: networks(cluster),
            unreachable: Vec::new(),
        }
    }

    #[test]
    fn only_the_world_sees_a_masqueraded_pod() {
        let plan = plan(&["10.244.1.0/24"], &["10.244.0.0/16"]);
        assert_eq!(
            text(&plan, Family::V4, true).expect("rules"),
            "*nat\n:TIMONEL-MASQ - [0:0]\n-A TIMONEL-MASQ -d 10.244.0.0/16 -j RETURN\n\
             -A TIMONEL-MASQ -d 224.0.0.0/4 -j RETURN\n-A TIMONEL-MASQ -s 10.244.1.0/24 -j MASQUERADE --random-fully\n\
             COMMIT\n*filter\n:TIMONEL-FWD - [0:0]\n-A TIMONEL-FWD -s 10.244.0.0/16 -j ACCEPT\n\
             -A TIMONEL-FWD -d 10.244.0.0/16 -j ACCEPT\nCOMMIT\n"
        );
        assert_eq!(text(&plan, Family::V6, true), None);
        assert!(!text(&plan, Family::V4, false).expect("rules").contains("MASQUERADE"));
    }

    #[tokio::test]
    async fn rules_are_applied_when_they_differ() {
        let host = Recorder::default();
        let rules = Rules::default();
        let first = plan(&["10.244.1.0/24"], &["10.244.0.0/16"]);
        rules.apply(&host, &first, true).await.expect("applied");
        let restores = |host: &Recorder| host.ran.lock().iter().filter(|c| c.starts_with("iptables-restore")).count();
        assert_eq!(restores(&host), 1);
        assert!(
            host.ran
                .lock()
                .iter()
                .any(|c| c.ends_with("-t nat -A POSTROUTING -m comment --comment pod-network -j TIMONEL-MASQ"))
        );
        rules.apply(&host, &first, true).await.expect("applied");
        assert_eq!(restores(&host), 1, "nothing changed");
        rules.apply(&host, &plan(&["10.244.1.0/24"], &["10.0.0.0/8"]), true).await.expect("applied");
        assert_eq!(restores(&host), 2);
    }
}
