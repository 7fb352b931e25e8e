//! Certificate and key in one file, and a link to the newest.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use jiff::{Timestamp, tz::TimeZone};
use runtime::tls;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{CertificateError, Purpose, content, file};

/// Files `<prefix>-<date>.pem`, and `<prefix>-current.pem` that links to one.
pub struct PairStore {
    directory: PathBuf,
    prefix: &'static str,
}

/// A certificate with its key, both PEM in one text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The PEM text.
    pub pem: Vec<u8>,
    /// From when.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
}

impl Pair {
    /// Reads the times of the first certificate of a PEM text.
    pub fn parse(pem: Vec<u8>) -> Result<Self, CertificateError> {
        let chain = tls::certificates(&pem).map_err(|error| content("certificate", error))?;
        let first = chain.first().ok_or_else(|| content("certificate", "there is none"))?;
        let (_, parsed) = X509Certificate::from_der(first).map_err(|error| content("certificate", error))?;
        let validity = parsed.validity();
        let time = |seconds: i64| Timestamp::from_second(seconds).map_err(|error| content("certificate", error));
        let (not_before, not_after) = (time(validity.not_before.timestamp())?, time(validity.not_after.timestamp())?);
        Ok(Self { pem, not_before, not_after })
    }

    /// Whether it may be used at a time.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

impl PairStore {
    /// The files of a purpose in a directory.
    pub fn new(directory: &Path, purpose: Purpose) -> Self {
        Self { directory: directory.to_owned(), prefix: purpose.prefix() }
    }

    /// The link to the newest pair.
    pub fn current_path(&self) -> PathBuf {
        self.directory.join(format!("{}-current.pem", self.prefix))
    }

    /// The newest pair, if there is a readable one.
    pub fn current(&self) -> Option<Pair> {
        Pair::parse(fs::read(self.current_path()).ok()?).ok()
    }

    /// Keeps a new pair and makes it the current one.
    pub fn update(&self, certificate: &[u8], key: &[u8], now: Timestamp) -> Result<Pair, CertificateError> {
        let mut pem = certificate.to_vec();
        if !pem.ends_with(b"\n") {
            pem.push(b'\n');
        }
        pem.extend_from_slice(key);
        let pair = Pair::parse(pem)?;
        tls::private_key(key).map_err(|error| content("key", error))?;
        fs::create_dir_all(&self.directory).map_err(file(&self.directory))?;
        let date = now.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d-%H-%M-%S").to_string();
        let path = self.directory.join(format!("{}-{date}.pem", self.prefix));
        tls::write_private(&path, &pair.pem).map_err(|error| content("certificate", error))?;
        // A link is replaced by renaming another over it, so that there is one at every moment.
        let (link, next) = (self.current_path(), self.directory.join(format!("{}-updated.pem", self.prefix)));
        match fs::remove_file(&next) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(file(&next)(error)),
            _ => {}
        }
        symlink(&path, &next).map_err(file(&next))?;
        fs::rename(&next, &link).map_err(file(&link))?;
        Ok(pair)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_newest_pair_is_the_current_one() {
        let directory = tempfile::tempdir().unwrap();
        let store = PairStore::new(directory.path(), Purpose::Client);
        assert_eq!(store.current(), None);
        let (certificate, key) = tls::self_signed("one", &["one".to_owned()], &[]).unwrap();
        let first = store.update(certificate.as_bytes(), key.as_bytes(), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(store.current(), Some(first));
        assert!(directory.path().join("kubelet-client-1970-01-01-00-00-00.pem").exists());
        let (certificate, key) = tls::self_signed("two", &["two".to_owned()], &[]).unwrap();
        let now = Timestamp::now();
        let second = store.update(certificate.as_bytes(), key.as_bytes(), now).unwrap();
        assert!(second.is_valid(now));
        assert_eq!(store.current(), Some(second));
        let mode = fs::metadata(store.current_path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn garbage_is_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let store = PairStore::new(directory.path(), Purpose::Server);
        assert!(store.update(b"no certificate", b"no key", Timestamp::UNIX_EPOCH).is_err());
        assert!(!store.current_path().exists());
    }
}
