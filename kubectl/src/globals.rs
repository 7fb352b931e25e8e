//! Flags of every command.

use crate::{
    command::Command,
    error::CommandError,
    flags::{Flag, Flags},
};

/// Those of these names, for commands that have them as their own.
pub fn some(names: &[&str]) -> Vec<Flag> {
    flags().into_iter().filter(|flag| names.contains(&flag.name)).collect()
}

/// Kinds of profiles that other clients take of themselves.
const PROFILES: [&str; 6] = ["block", "cpu", "goroutine", "heap", "mutex", "threadcreate"];

/// Refuses values that nothing can be done with. A command may have a flag of its own of the same name.
pub(crate) fn check(command: &Command, flags: &Flags) -> Result<(), CommandError> {
    if command.flags.iter().any(|flag| flag.name == "profile") {
        return Ok(());
    }
    match flags.text("profile") {
        "none" => Ok(()),
        known if PROFILES.contains(&known) => {
            Err(CommandError::plain(format!("profiles of the kind '{known}' are not taken")))
        }
        other => Err(CommandError::plain(format!("unknown profile '{other}'"))),
    }
}

/// The flags.
pub fn flags() -> Vec<Flag> {
    vec![
        Flag::text("as", "", "User to act as."),
        Flag::array("as-group", "Group to act as a member of; may be repeated."),
        Flag::text("as-uid", "", "UID to act as."),
        Flag::array("as-user-extra", "Extra of the user to act as, KEY=VALUE; may be repeated."),
        Flag::text("cache-dir", "", "Where it is remembered what servers serve; $HOME/.kube/cache if empty."),
        Flag::text("certificate-authority", "", "File of the certificate authority that the server is checked with."),
        Flag::text("client-certificate", "", "File of the client certificate."),
        Flag::text("client-key", "", "File of the key of the client certificate."),
        Flag::text("cluster", "", "Cluster of the kubeconfig."),
        Flag::text("context", "", "Context of the kubeconfig."),
        Flag::switch("disable-compression", "Do not ask for compressed answers."),
        Flag::switch("insecure-skip-tls-verify", "Do not check the certificate of the server. Insecure."),
        Flag::text("kubeconfig", "", "File of the kubeconfig."),
        Flag::text("kuberc", "", "File with preferences; off for none."),
        Flag::duration(
            "log-flush-frequency",
            "5s",
            "Accepted for scripts that give it; lines of log are written at once.",
        ),
        Flag::switch("match-server-version", "Fail if the server has another version than the client."),
        Flag::text("namespace", "", "Namespace of the request.").short('n'),
        Flag::text("password", "", "Password of basic authentication."),
        Flag::text("profile", "none", "Kind of profile to take; none is the only one."),
        Flag::text("profile-output", "profile.pprof", "File of the profile."),
        Flag::text("request-timeout", "0", "Time for one request, such as 1s, 2m or 3h; 0 for no limit."),
        Flag::text("server", "", "Address of the server.").short('s'),
        Flag::text("tls-server-name", "", "Name that the server's certificate has to have."),
        Flag::text("token", "", "Bearer token."),
        Flag::text("user", "", "User of the kubeconfig."),
        Flag::text("username", "", "Name of basic authentication."),
        Flag::int("v", "0", "Verbosity; from 6 on, requests are logged.").short('v'),
        Flag::pairs("vmodule", "Accepted for scripts that give it; the verbosity is the same everywhere."),
        Flag::switch("warnings-as-errors", "Fail if the server sends warnings."),
    ]
}
