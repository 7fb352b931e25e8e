//! What is to be attached to a node and detached from it, and what its status says of that.

use std::{collections::BTreeSet, time::Duration};

use sha2::{Digest, Sha256};

/// How long an attachment is given for the volume to be unmounted from a node that does not answer.
pub(super) const MAX_UNMOUNT: Duration = Duration::from_secs(6 * 60);

/// A volume of a CSI driver.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Volume {
    pub(super) driver: String,
    pub(super) handle: String,
}

const PREFIX: &str = "kubernetes.io/csi/";

impl Volume {
    /// Its name in the status of nodes.
    pub(super) fn unique_name(&self) -> String {
        format!("{PREFIX}{}^{}", self.driver, self.handle)
    }

    /// The volume of such a name.
    pub(super) fn parse(unique_name: &str) -> Option<Self> {
        let (driver, handle) = unique_name.strip_prefix(PREFIX)?.split_once('^')?;
        Some(Self { driver: driver.to_owned(), handle: handle.to_owned() })
    }

    /// Name of its VolumeAttachment on a node.
    pub(super) fn attachment_name(&self, node: &str) -> String {
        let digest = Sha256::digest(format!("{}{}{node}", self.handle, self.driver));
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("csi-{hex}")
    }
}

/// A volume that Pods of the node want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) volume: Volume,
    /// The PersistentVolume.
    pub(super) name: String,
    /// It can be attached to one node only, and is to another.
    pub(super) is_elsewhere: bool,
}

/// A VolumeAttachment on the node, of this controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) volume: Volume,
    pub(super) uid: String,
    pub(super) is_attached: bool,
    pub(super) is_going: bool,
}

/// The node.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) exists: bool,
    pub(super) is_ready: bool,
    /// Its taint says that it is out of service.
    pub(super) is_out_of_service: bool,
    pub(super) in_use: Vec<String>,
    pub(super) reported: Vec<String>,
}

/// Why a volume is detached though the node may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Force {
    Timeout,
    OutOfService,
}

impl Force {
    /// Label of the metric.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::OutOfService => "out-of-service",
        }
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Attach(Wanted),
    /// Another node has it.
    Refuse(Wanted),
    Detach(Attachment, Option<Force>),
}

/// See [`plan`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) actions: Vec<Action>,
    /// What the node's status is to list, before anything is detached.
    pub(super) report: BTreeSet<String>,
    /// Volumes that nobody wants and that the node still uses.
    pub(super) waiting: Vec<Volume>,
}

/// Decides. `waited` tells for how long a volume has not been wanted.
pub(super) fn plan(
    node: &Node,
    wanted: &[Wanted],
    attachments: &[Attachment],
    waited: impl Fn(&Volume) -> Duration,
    can_force: bool,
) -> Plan {
    let mut plan = Plan::default();
    for want in wanted {
        let there = attachments.iter().find(|a| a.volume == want.volume);
        match there {
            Some(attachment) if attachment.is_attached && !attachment.is_going => {
                plan.report.insert(want.volume.unique_name());
            }
            Some(_) => {}
            None if want.is_elsewhere => plan.actions.push(Action::Refuse(want.clone())),
            None => plan.actions.push(Action::Attach(want.clone())),
        }
    }
    for attachment in attachments {
        if attachment.is_going || wanted.iter().any(|want| want.volume == attachment.volume) {
            continue;
        }
        let name = attachment.volume.unique_name();
        let is_used = node.exists && node.in_use.contains(&name);
        let is_late = can_force && !node.is_ready && waited(&attachment.volume) >= MAX_UNMOUNT;
        let force = match () {
            () if !is_used => None,
            () if node.is_out_of_service => Some(Force::OutOfService),
            () if is_late => Some(Force::Timeout),
            () => {
                plan.waiting.push(attachment.volume.clone());
                if attachment.is_attached {
                    plan.report.insert(name);
                }
                continue;
            }
        };
        plan.actions.push(Action::Detach(attachment.clone(), force));
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(handle: &str) -> Volume {
        Volume { driver: "d.example.com".into(), handle: handle.into() }
    }

    fn want(handle: &str, is_elsewhere: bool) -> Wanted {
        Wanted { volume: volume(handle), name: format!("pv-{handle}"), is_elsewhere }
    }

    fn attachment(handle: &str, is_attached: bool) -> Attachment {
        Attachment { volume: volume(handle), uid: handle.into(), is_attached, is_going: false }
    }

    fn node(in_use: &[&str]) -> Node {
        Node {
            exists: true,
            is_ready: true,
            is_out_of_service: false,
            in_use: in_use.iter().map(|h| volume(h).unique_name()).collect(),
            reported: Vec::new(),
        }
    }

    #[test]
    fn names() {
        let volume = volume("h^1");
        assert_eq!(volume.unique_name(), "kubernetes.io/csi/d.example.com^h^1");
        assert_eq!(Volume::parse(&volume.unique_name()), Some(volume.clone()));
        assert_eq!(Volume::parse("kubernetes.io/nfs/x"), None);
        let name = volume.attachment_name("n1");
        assert!(name.starts_with("csi-") && name.len() == 68, "{name}");
    }

    #[test]
    fn what_is_wanted_is_attached_and_reported() {
        let never = |_: &Volume| Duration::ZERO;
        let wanted = [want("a", false), want("b", false), want("c", true), want("d", false)];
        let there = [attachment("a", true), attachment("b", false)];
        let plan = plan(&node(&[]), &wanted, &there, never, true);
        assert_eq!(plan.actions, [Action::Refuse(want("c", true)), Action::Attach(want("d", false))]);
        assert_eq!(plan.report, BTreeSet::from([volume("a").unique_name()]));
    }

    #[test]
    fn nothing_is_torn_away_from_a_node_that_uses_it() {
        let there = [attachment("a", true)];
        let decide =
            |node: &Node, waited: u64, can_force| plan(node, &[], &there, |_| Duration::from_secs(waited), can_force);
        let detach = |force| vec![Action::Detach(attachment("a", true), force)];
        let unused = decide(&node(&[]), 0, true);
        assert_eq!((unused.actions, unused.report.len()), (detach(None), 0));
        let used = node(&["a"]);
        let kept = decide(&used, 10_000, true);
        assert_eq!((kept.actions, kept.report.len(), kept.waiting), (vec![], 1, vec![volume("a")]));
        let sick = Node { is_ready: false, ..used.clone() };
        assert_eq!(decide(&sick, 359, true).actions, []);
        assert_eq!(decide(&sick, 360, true).actions, detach(Some(Force::Timeout)));
        assert_eq!(decide(&sick, 360, false).actions, []);
        let out = Node { is_out_of_service: true, ..used.clone() };
        assert_eq!(decide(&out, 0, false).actions, detach(Some(Force::OutOfService)));
        let gone = Node { exists: false, ..used };
        assert_eq!(decide(&gone, 0, true).actions, detach(None));
    }

    #[test]
    fn what_goes_is_left_to_go() {
        let going = [Attachment { is_going: true, ..attachment("a", true) }];
        let plan = plan(&node(&[]), &[want("a", false)], &going, |_| Duration::ZERO, true);
        assert_eq!(plan, Plan::default());
    }
}
