//! Applying rule sets: iptables of the host, or a recorder for tests.

use std::{collections::BTreeSet, process::Stdio, time::Duration};

use async_trait::async_trait;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::rules::{RuleSet, SERVICE_CHAINS, jumps};

/// Longest time one program may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// Seconds to wait for the xtables lock.
const LOCK_WAIT: &str = "5";

/// A rule set that cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The program does not start.
    #[error("{program}: {source}")]
    Start {
        /// The program.
        program: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The program failed.
    #[error("{program} failed: {stderr}")]
    Failed {
        /// The program.
        program: &'static str,
        /// What it said.
        stderr: String,
    },
    /// The program did not end in time.
    #[error("{0} did not end in time")]
    Deadline(&'static str),
}

/// Where rules go.
#[async_trait]
pub trait Backend: Send + Sync {
    /// Makes the jumps from the built-in chains.
    async fn prepare(&self) -> Result<(), BackendError>;
    /// Chains of single Services that exist.
    async fn chains(&self) -> Result<BTreeSet<String>, BackendError>;
    /// Applies a rule set as one transaction.
    async fn apply(&self, rules: &RuleSet) -> Result<(), BackendError>;
    /// Forgets UDP flows to a service address whose endpoint is gone.
    async fn forget_udp(&self, address: &str, port: u16, endpoint: &str) -> Result<(), BackendError>;
    /// Removes everything that `prepare` and `apply` made.
    async fn cleanup(&self) -> Result<(), BackendError>;
}

/// iptables of the host.
pub struct Iptables;

async fn run(program: &'static str, arguments: &[&str], input: &str) -> Result<String, BackendError> {
    let start = |source| BackendError::Start { program, source };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let mut stdin = child.stdin.take();
    let work = async {
        if let Some(pipe) = stdin.as_mut() {
            pipe.write_all(input.as_bytes()).await.map_err(start)?;
        }
        drop(stdin);
        child.wait_with_output().await.map_err(start)
    };
    let output = tokio::time::timeout(DEADLINE, work).await.map_err(|_| BackendError::Deadline(program))??;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(BackendError::Failed { program, stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

impl Iptables {
    /// Whether a rule exists.
    async fn has(table: &str, chain: &str, rule: &[&str]) -> bool {
        let mut arguments = vec!["-w", LOCK_WAIT, "-t", table, "-C", chain];
        arguments.extend(rule);
        run("iptables", &arguments, "").await.is_ok()
    }
}

#[async_trait]
impl Backend for Iptables {
    async fn prepare(&self) -> Result<(), BackendError> {
        // Chains must exist before rules can point at them.
        let mut input = String::new();
        for table in ["filter", "nat"] {
            let targets: BTreeSet<&str> =
                jumps().iter().filter(|(t, ..)| *t == table).filter_map(|(_, _, rule)| rule.last().copied()).collect();
            let chains: String = targets.iter().map(|c| format!(":{c} - [0:0]\n")).collect();
            input.push_str(&format!("*{table}\n{chains}COMMIT\n"));
        }
        let present = run("iptables-save", &["-t", "nat"], "").await?;
        if !present.lines().any(|l| l.starts_with(":KUBE-SERVICES ")) {
            run("iptables-restore", &["-w", LOCK_WAIT, "--noflush"], &input).await?;
        }
        for (table, chain, rule) in jumps() {
            if !Self::has(table, chain, &rule).await {
                let mut arguments = vec!["-w", LOCK_WAIT, "-t", table, "-I", chain];
                arguments.extend(&rule);
                run("iptables", &arguments, "").await?;
            }
        }
        Ok(())
    }

    async fn chains(&self) -> Result<BTreeSet<String>, BackendError> {
        let saved = run("iptables-save", &["-t", "nat"], "").await?;
        let names = saved.lines().filter_map(|l| l.strip_prefix(':')).filter_map(|l| l.split(' ').next());
        Ok(names.filter(|n| SERVICE_CHAINS.iter().any(|p| n.starts_with(p))).map(str::to_owned).collect())
    }

    async fn apply(&self, rules: &RuleSet) -> Result<(), BackendError> {
        run("iptables-restore", &["-w", LOCK_WAIT, "--noflush", "--counters"], &rules.text).await.map(drop)
    }

    async fn forget_udp(&self, address: &str, port: u16, endpoint: &str) -> Result<(), BackendError> {
        let port = port.to_string();
        let arguments = ["-D", "-p", "udp", "--orig-dst", address, "--dport", &port, "--dst-nat", endpoint];
        match run("conntrack", &arguments, "").await {
            // The program fails when there was nothing to delete.
            Err(BackendError::Failed { stderr, .. }) if stderr.contains("0 flow entries") => Ok(()),
            other => other.map(drop),
        }
    }

    async fn cleanup(&self) -> Result<(), BackendError> {
        for (table, chain, rule) in jumps().into_iter().filter(|(.., rule)| rule.last() != Some(&"KUBE-FIREWALL")) {
            if Self::has(table, chain, &rule).await {
                let mut arguments = vec!["-w", LOCK_WAIT, "-t", table, "-D", chain];
                arguments.extend(&rule);
                run("iptables", &arguments, "").await?;
            }
        }
        for table in ["nat", "filter"] {
            let saved = run("iptables-save", &["-t", table], "").await?;
            let names = saved.lines().filter_map(|l| l.strip_prefix(':')).filter_map(|l| l.split(' ').next());
            let ours: Vec<&str> = names
                .filter(|n| *n != "KUBE-FIREWALL")
                .filter(|n| {
                    SERVICE_CHAINS.iter().any(|p| n.starts_with(p))
                        || jumps().iter().any(|(t, _, rule)| *t == table && rule.last() == Some(n))
                        || matches!(*n, "KUBE-MARK-MASQ" | "KUBE-NODEPORTS")
                })
                .collect();
            let flush: String = ours.iter().map(|c| format!(":{c} - [0:0]\n")).collect();
            let delete: String = ours.iter().map(|c| format!("-X {c}\n")).collect();
            let input = format!("*{table}\n{flush}{delete}COMMIT\n");
            run("iptables-restore", &["-w", LOCK_WAIT, "--noflush"], &input).await?;
        }
        Ok(())
    }
}
