//! Checks of hostPath volumes.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

/// Checks, and for the `OrCreate` kinds makes, what a hostPath names.
pub(super) fn prepare(path: &Path, kind: &str) -> Result<(), String> {
    let shown = path.display();
    let fail = |what: &str| Err(format!("hostPath type check failed: {shown} is not {what}"));
    let file_type = fs::metadata(path).map(|meta| meta.file_type());
    match kind {
        "" => Ok(()),
        "DirectoryOrCreate" => match file_type {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) => fail("a directory"),
            Err(_) => create_dir(path).map_err(|error| error.to_string()),
        },
        "FileOrCreate" => match file_type {
            Ok(found) if found.is_file() => Ok(()),
            Ok(_) => fail("a file"),
            Err(_) => create_file(path).map_err(|error| error.to_string()),
        },
        "Directory" if !file_type.as_ref().is_ok_and(fs::FileType::is_dir) => fail("a directory"),
        "File" if !file_type.as_ref().is_ok_and(fs::FileType::is_file) => fail("a file"),
        "Socket" if !file_type.as_ref().is_ok_and(FileTypeExt::is_socket) => fail("a socket file"),
        "CharDevice" if !file_type.as_ref().is_ok_and(FileTypeExt::is_char_device) => fail("a character device"),
        "BlockDevice" if !file_type.as_ref().is_ok_and(FileTypeExt::is_block_device) => fail("a block device"),
        "Directory" | "File" | "Socket" | "CharDevice" | "BlockDevice" => Ok(()),
        other => Err(format!("{other} is an invalid volume type")),
    }
}

fn create_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn create_file(path: &Path) -> io::Result<()> {
    drop(fs::OpenOptions::new().create(true).append(true).open(path)?);
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        prepare(&at("d/e"), "DirectoryOrCreate").unwrap();
        prepare(&at("f"), "FileOrCreate").unwrap();
        assert!(prepare(&at("x/f"), "FileOrCreate").is_err());
        prepare(&at("d"), "Directory").unwrap();
        let error = prepare(&at("f"), "Directory").unwrap_err();
        assert_eq!(error, format!("hostPath type check failed: {} is not a directory", at("f").display()));
        assert!(prepare(&at("f"), "Socket").unwrap_err().ends_with("is not a socket file"));
        prepare(&at("absent"), "").unwrap();
    }
}
