//! Files in which allocations outlive the kubelet, with the checksums that other kubelets expect in them.
//!
//! A checksum is a hash over the printed form of a structure: with type names before the fields of structures, without
//! them inside lists and maps.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::de::DeserializeOwned;

/// A value to be printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Printed {
    Text(String),
    Number(i64),
    Nothing,
    /// A pointer inside a list or map.
    Pointer(Box<Printed>),
    List(Vec<Printed>),
    /// Sorted by the caller.
    Map(Vec<(Printed, Printed)>),
    /// Name, type and value of each field.
    Fields(Vec<(&'static str, &'static str, Printed)>),
}

impl Printed {
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    pub(crate) fn texts<'a>(all: impl IntoIterator<Item = &'a String>) -> Self {
        Self::List(all.into_iter().map(|text| Self::text(text)).collect())
    }

    fn print(&self, out: &mut String) {
        match self {
            Self::Text(text) => out.push_str(text),
            Self::Number(number) => out.push_str(&number.to_string()),
            Self::Nothing => out.push_str("<nil>"),
            Self::Pointer(to) => {
                out.push_str("<*>");
                to.print(out);
            }
            Self::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index > 0 { " " } else { "" });
                    item.print(out);
                }
                out.push(']');
            }
            Self::Map(entries) => {
                out.push_str("map[");
                for (index, (key, value)) in entries.iter().enumerate() {
                    out.push_str(if index > 0 { " " } else { "" });
                    key.print(out);
                    out.push(':');
                    value.print(out);
                }
                out.push(']');
            }
            Self::Fields(fields) => {
                out.push('{');
                for (index, (name, kind, value)) in fields.iter().enumerate() {
                    out.push_str(if index > 0 { " " } else { "" });
                    out.extend([name, ":(", kind, ")"]);
                    value.print(out);
                }
                out.push('}');
            }
        }
    }

    /// The checksum of a value of a type.
    pub(crate) fn checksum(&self, kind: &str) -> u64 {
        let mut text = format!("({kind})");
        self.print(&mut text);
        u64::from(util::fnv32a(text.as_bytes()))
    }
}

/// Reads a file whose checksum has to be right; absent ones are nothing.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, is_whole: impl FnOnce(&T) -> bool) -> io::Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let file = serde_json::from_slice(&bytes)?;
    if is_whole(&file) {
        return Ok(Some(file));
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "checkpoint is corrupted"))
}

/// Writes a file whole or not at all.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let fresh = path.with_file_name(format!(".{name}.tmp"));
    let mut file = fs::File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_stand_before_fields_only() {
        let entry = Printed::Fields(vec![
            ("PodUID", "string", Printed::text("u")),
            (
                "DeviceIDs",
                "checkpoint.DevicesPerNUMA",
                Printed::Map(vec![(Printed::Number(-1), Printed::texts(&["d".into()]))]),
            ),
            ("AllocResp", "[]uint8", Printed::Nothing),
        ]);
        let mut text = String::new();
        Printed::Fields(vec![("Entries", "[]x.Entry", Printed::List(vec![entry]))]).print(&mut text);
        assert_eq!(
            text,
            "{Entries:([]x.Entry)[{PodUID:(string)u DeviceIDs:(checkpoint.DevicesPerNUMA)map[-1:[d]] AllocResp:([]uint8)<nil>}]}"
        );
    }

    #[test]
    fn files_are_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let whole = |_: &String| true;
        assert_eq!(read(&path, whole).unwrap(), None);
        write(&path, b"\"one\"").unwrap();
        write(&path, b"\"two\"").unwrap();
        assert_eq!(read(&path, whole).unwrap().as_deref(), Some("two"));
        assert_eq!(read(&path, |_: &String| false).unwrap_err().to_string(), "checkpoint is corrupted");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
