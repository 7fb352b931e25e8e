//! Names of control groups and how the two drivers spell them as paths.

/// Who manages the groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupDriver {
    /// Plain directories.
    Cgroupfs,
    /// systemd slices.
    Systemd,
}

/// A group as a list of names from the root (`kubepods`, `burstable`, `pod1-2`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CgroupName(Vec<String>);

impl CgroupName {
    /// The root.
    pub fn root() -> Self {
        Self::default()
    }

    /// Parses `/a/b`.
    pub fn parse(path: &str) -> Self {
        Self(
            path.split('/')
                .filter(|part| !part.is_empty() && *part != "." && *part != "..")
                .map(str::to_owned)
                .collect(),
        )
    }

    /// A child group.
    pub fn child(&self, name: &str) -> Self {
        let mut parts = self.0.clone();
        parts.push(name.to_owned());
        Self(parts)
    }

    /// The last name.
    pub fn last(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    /// The path that the driver uses.
    pub fn path(&self, driver: CgroupDriver) -> String {
        match driver {
            CgroupDriver::Cgroupfs => format!("/{}", self.0.join("/")),
            CgroupDriver::Systemd => self.slices(),
        }
    }

    /// `/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice`
    fn slices(&self) -> String {
        let mut path = String::from("/");
        let mut prefix = String::new();
        for part in &self.0 {
            if !prefix.is_empty() {
                prefix.push('-');
            }
            prefix.push_str(&part.replace('-', "_"));
            if path.len() > 1 {
                path.push('/');
            }
            path.push_str(&prefix);
            path.push_str(".slice");
        }
        path
    }

    /// The Pod UID a directory name stands for.
    pub fn pod_uid(directory: &str, driver: CgroupDriver) -> Option<String> {
        match driver {
            CgroupDriver::Cgroupfs => directory.strip_prefix("pod").map(str::to_owned),
            CgroupDriver::Systemd => {
                let (_, uid) = directory.strip_suffix(".slice")?.rsplit_once("-pod")?;
                Some(uid.replace('_', "-"))
            }
        }
        .filter(|uid| !uid.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spells_both_drivers() {
        let name = CgroupName::parse("/kubepods").child("burstable").child("pod12-ab");
        assert_eq!(name.path(CgroupDriver::Cgroupfs), "/kubepods/burstable/pod12-ab");
        assert_eq!(
            name.path(CgroupDriver::Systemd),
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12_ab.slice"
        );
        assert_eq!(CgroupName::pod_uid("pod12-ab", CgroupDriver::Cgroupfs).as_deref(), Some("12-ab"));
        let slice = "kubepods-burstable-pod12_ab.slice";
        assert_eq!(CgroupName::pod_uid(slice, CgroupDriver::Systemd).as_deref(), Some("12-ab"));
    }
}
