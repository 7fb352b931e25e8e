//! kubectl, driven as a user drives it.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What a command printed and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// Exit code.
    pub code: i32,
}

/// A kubectl binary with a kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    variables: Vec<(&'static str, &'static str)>,
}

impl Kubectl {
    /// With a given binary.
    pub fn new(program: impl Into<PathBuf>, kubeconfig: &Path) -> Self {
        Self { program: program.into(), kubeconfig: kubeconfig.to_path_buf(), variables: Vec::new() }
    }

    /// With an environment variable.
    #[must_use]
    pub fn with(mut self, variable: &'static str, value: &'static str) -> Self {
        self.variables.push((variable, value));
        self
    }

    /// Stock kubectl binaries of this machine, oldest first: those that `STOCK_KUBECTL` lists (colon-separated), and
    /// the one on the PATH.
    pub fn stock() -> Vec<PathBuf> {
        let listed = std::env::var("STOCK_KUBECTL").unwrap_or_default();
        listed.split(':').filter(|p| !p.is_empty()).map(PathBuf::from).filter(|p| p.exists()).collect()
    }

    /// Runs a command line, split at blanks.
    pub fn run(&self, arguments: &str) -> Output {
        self.run_with(arguments, "")
    }

    /// Runs a command line with text on standard input.
    pub fn run_with(&self, arguments: &str, input: &str) -> Output {
        let mut child = Command::new(&self.program)
            .args(arguments.split_whitespace())
            .envs(self.variables.iter().copied())
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", self.kubeconfig.parent().unwrap_or(Path::new("/")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", self.program.display()));
        let mut stdin = child.stdin.take().expect("standard input");
        stdin.write_all(input.as_bytes()).expect("input is read");
        drop(stdin);
        let output = child.wait_with_output().expect("kubectl ends");
        Output {
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code().unwrap_or(-1),
        }
    }

    /// Runs a command line that must succeed; answers its output.
    pub fn ok(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert_eq!(output.code, 0, "kubectl {arguments}: {}{}", output.out, output.err);
        output.out
    }
}
