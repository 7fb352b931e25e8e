//! Volumes that are not ready.

use crate::csi;

/// Reason of events about volumes that could not be mounted.
const MOUNT: &str = "FailedMount";

/// Why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It cannot be told which volume is meant.
    Processing(String),
    /// A step failed.
    Step {
        /// As events name it.
        operation: &'static str,
        /// The volume's name outside the Pod, if it has one.
        name: Option<String>,
        /// Cause.
        message: String,
    },
    /// Somebody else has to act first.
    Waiting(String),
    /// The node cannot have more volumes of its kind.
    Limit(String),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Step { operation: "MountVolume.SetUp", name: None, message }
    }
}

/// A volume that is not ready.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{}", self.text())]
pub struct VolumeError {
    /// Volume name in the Pod.
    pub volume: String,
    pub(crate) failure: Failure,
}

impl VolumeError {
    fn text(&self) -> String {
        match &self.failure {
            Failure::Processing(message) => message.clone(),
            Failure::Step { operation, name, message } => {
                format!("{operation} failed for volume {:?} : {message}", name.as_ref().unwrap_or(&self.volume))
            }
            Failure::Waiting(message) | Failure::Limit(message) => format!("volume {:?}: {message}", self.volume),
        }
    }

    /// Whether the Pod cannot have it on this node.
    pub fn is_over_limit(&self) -> bool {
        matches!(self.failure, Failure::Limit(_))
    }

    /// Whether it is somebody else's turn.
    pub fn is_waiting(&self) -> bool {
        matches!(self.failure, Failure::Waiting(_))
    }

    /// Reasons and texts of the events that tell of errors.
    pub fn events(errors: &[Self]) -> Vec<(&'static str, String)> {
        let steps = errors.iter().filter_map(|error| match error.failure {
            Failure::Step { operation: csi::ATTACH, .. } => Some(("FailedAttachVolume", error.to_string())),
            Failure::Step { .. } => Some((MOUNT, error.to_string())),
            Failure::Processing(_) | Failure::Waiting(_) | Failure::Limit(_) => None,
        });
        let mut texts: Vec<(&str, String)> = steps.collect();
        let unresolved: Vec<&Self> =
            errors.iter().filter(|error| matches!(error.failure, Failure::Processing(_))).collect();
        if let Some(first) = unresolved.first() {
            let names = |errors: &mut dyn Iterator<Item = &Self>| {
                errors.map(|error| error.volume.as_str()).collect::<Vec<_>>().join(" ")
            };
            let all = names(&mut errors.iter());
            let failed = names(&mut unresolved.iter().copied());
            let text = format!(
                "Unable to attach or mount volumes: unmounted volumes=[{all}], unattached volumes=[{failed}], failed to process volumes=[{failed}]: {first}"
            );
            texts.push((MOUNT, text));
        }
        texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_tell_errors_and_are_silent_about_waiting() {
        let error = |volume: &str, failure| VolumeError { volume: volume.into(), failure };
        let step = Failure::Step { operation: "MountVolume.MountDevice", name: Some("pv".into()), message: "x".into() };
        let attach = Failure::Step { operation: csi::ATTACH, name: Some("pv".into()), message: "y".into() };
        let errors = [
            error("a", step),
            error("d", attach),
            error("b", Failure::Processing("error processing PVC ns/c: PVC is not bound".into())),
            error("c", Failure::Waiting("w".into())),
        ];
        assert_eq!(
            VolumeError::events(&errors),
            [
                ("FailedMount", "MountVolume.MountDevice failed for volume \"pv\" : x".to_owned()),
                ("FailedAttachVolume", "AttachVolume.Attach failed for volume \"pv\" : y".to_owned()),
                ("FailedMount", "Unable to attach or mount volumes: unmounted volumes=[a d b c], unattached volumes=[b], failed to process volumes=[b]: error processing PVC ns/c: PVC is not bound".to_owned()),
            ]
        );
        assert!(VolumeError::events(&errors[3..]).is_empty());
    }
}
