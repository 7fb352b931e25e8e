//! Keys and values of ConfigMaps and Secrets: literals, files, directories and files of variables.

use std::path::Path;

use crate::{context::Context, error::CommandError, flags::Flag, kubeconfig::files::go_io_text};

/// The flags.
pub(super) fn flags() -> [Flag; 4] {
    [
        Flag::switch("append-hash", "Append a hash of the content to the name."),
        Flag::list("from-env-file", "File with lines KEY=VALUE."),
        Flag::list("from-file", "File, whose name is the key unless it is given as key=file, or a directory of files."),
        Flag::array("from-literal", "key=value."),
    ]
}

/// All pairs in the order of literals, files, variables, as the flags name them.
pub(super) fn pairs(context: &Context) -> Result<Vec<(String, Vec<u8>)>, CommandError> {
    let flags = &context.flags;
    if !flags.list("from-env-file").is_empty()
        && (!flags.list("from-file").is_empty() || !flags.list("from-literal").is_empty())
    {
        return Err(CommandError::plain("from-env-file cannot be combined with from-file or from-literal"));
    }
    let mut pairs = Vec::new();
    for literal in flags.list("from-literal") {
        let split = literal.split_once('=').filter(|(key, _)| !key.is_empty());
        let (key, value) = split
            .ok_or_else(|| CommandError::plain(format!("invalid literal source {literal}, expected key=value")))?;
        // A value in quotes stands without them.
        let bare = [b'"', b'\''].into_iter().find_map(|q| {
            let bytes = value.as_bytes();
            let quoted = bytes.len() >= 2 && bytes.first() == Some(&q) && bytes.last() == Some(&q);
            quoted.then(|| &value[1..value.len() - 1])
        });
        pairs.push((key.to_owned(), bare.unwrap_or(value).as_bytes().to_vec()));
    }
    for source in flags.list("from-file") {
        of_file(source, &mut pairs)?;
    }
    for path in flags.list("from-env-file") {
        variables(path, &mut pairs)?;
    }
    Ok(pairs)
}

pub(super) fn of_file(source: &str, pairs: &mut Vec<(String, Vec<u8>)>) -> Result<(), CommandError> {
    let (key, path) = match source.split_once('=') {
        None => (None, source),
        Some((_, rest)) if rest.contains('=') => {
            return Err(CommandError::plain("key names or file paths cannot contain '='"));
        }
        Some(("", path)) => return Err(CommandError::plain(format!("key name for file path {path} missing"))),
        Some((key, "")) => return Err(CommandError::plain(format!("file path for key name {key} missing"))),
        Some((key, path)) => (Some(key), path),
    };
    let unreadable = |e: std::io::Error| CommandError::plain(format!("error reading {path}: {}", go_io_text(&e)));
    let is_directory = std::fs::metadata(path).map_err(unreadable)?.is_dir();
    if !is_directory {
        let base = Path::new(path).file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        pairs.push((key.map_or(base, str::to_owned), std::fs::read(path).map_err(unreadable)?));
        return Ok(());
    }
    if key.is_some() {
        return Err(CommandError::plain("cannot give a key name for a directory path"));
    }
    let mut names: Vec<String> = std::fs::read_dir(path)
        .map_err(unreadable)?
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_ok_and(|t| t.is_file()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| machinery::names::config_key(name).is_empty())
        .collect();
    names.sort();
    for name in names {
        let bytes = std::fs::read(Path::new(path).join(&name)).map_err(unreadable)?;
        pairs.push((name, bytes));
    }
    Ok(())
}

fn variables(path: &str, pairs: &mut Vec<(String, Vec<u8>)>) -> Result<(), CommandError> {
    let unreadable = |e: std::io::Error| CommandError::plain(format!("error reading {path}: {}", go_io_text(&e)));
    if std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Err(CommandError::plain(format!("env config file {path} cannot be a directory")));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    for (at, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let line = std::str::from_utf8(line).map_err(|_| {
            CommandError::plain(format!("env file {path} contains invalid utf8 bytes at line {}: {line:?}", at + 1))
        })?;
        let line = if at == 0 { line.trim_start_matches('\u{feff}') } else { line };
        let line = line.trim_start().trim_end_matches('\r');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key, value.to_owned()),
            // A name alone takes the value of the environment.
            None => (line, runtime::env::var(line).unwrap_or_default()),
        };
        if let Some(problem) = machinery::names::env_name(key).into_iter().next() {
            return Err(CommandError::plain(format!("{key:?} is not a valid key name: {problem}")));
        }
        pairs.push((key.to_owned(), value.into_bytes()));
    }
    Ok(())
}
