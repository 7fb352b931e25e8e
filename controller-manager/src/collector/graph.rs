//! Who owns whom: pure.

use std::collections::{HashMap, HashSet, VecDeque};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// Finalizer of objects that wait for their dependents to be deleted.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of objects whose dependents are to be orphaned.
pub(super) const ORPHAN: &str = "orphan";
/// Owners known to be absent that are remembered.
const ABSENT: usize = 500;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Place {
    /// The place an owner reference names, seen from a namespace.
    pub(super) fn of(reference: &OwnerReference, namespace: &str) -> Self {
        Self {
            api_version: reference.api_version.clone(),
            kind: reference.kind.clone(),
            namespace: namespace.to_owned(),
            name: reference.name.clone(),
        }
    }
}

/// What is kept of an object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) owners: Vec<OwnerReference>,
    pub(super) deleting: bool,
    /// It waits for its dependents.
    pub(super) foreground: bool,
    /// Its dependents are to be orphaned.
    pub(super) orphaning: bool,
}

/// What there is to do after a change.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Todo {
    /// UIDs of objects that may have to be deleted.
    pub(super) delete: Vec<String>,
    /// UIDs of owners whose dependents are to be orphaned.
    pub(super) orphan: Vec<String>,
    /// UIDs of dependents with a reference into another namespace, and that reference.
    pub(super) invalid: Vec<(String, OwnerReference)>,
}

/// All objects and the references between them. References to objects that were not seen are kept too.
#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Node>,
    dependents: HashMap<String, HashSet<String>>,
    absent: HashSet<(String, Place)>,
    absent_order: VecDeque<(String, Place)>,
}

impl Graph {
    pub(super) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    pub(super) fn dependents(&self, uid: &str) -> Vec<(String, Node)> {
        let uids = self.dependents.get(uid).into_iter().flatten();
        uids.filter_map(|u| Some((u.clone(), self.nodes.get(u)?.clone()))).collect()
    }

    fn dependent_uids(&self, uid: &str) -> Vec<String> {
        let mut uids: Vec<String> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        uids.sort_unstable();
        uids
    }

    pub(super) fn has_dependents(&self, uid: &str) -> bool {
        self.dependents.get(uid).is_some_and(|d| !d.is_empty())
    }

    /// Whether an owner is there for certain and not on its way out, as far as has been seen.
    pub(super) fn is_solid(&self, reference: &OwnerReference, namespace: &str) -> bool {
        self.nodes.get(&reference.uid).is_some_and(|owner| {
            let place = &owner.place;
            let reachable = place.namespace.is_empty() || place.namespace == namespace;
            reachable && place.kind == reference.kind && place.name == reference.name && !owner.foreground
        })
    }

    /// Notes that nothing with this UID is at a place.
    pub(super) fn note_absent(&mut self, uid: &str, place: Place) {
        let entry = (uid.to_owned(), place);
        if self.absent.insert(entry.clone()) {
            self.absent_order.push_back(entry);
        }
        while self.absent_order.len() > ABSENT
            && let Some(oldest) = self.absent_order.pop_front()
        {
            self.absent.remove(&oldest);
        }
    }

    pub(super) fn is_absent(&self, uid: &str, place: &Place) -> bool {
        self.absent.contains(&(uid.to_owned(), place.clone()))
    }

    /// An object was added or changed.
    pub(super) fn put(&mut self, uid: &str, node: Node) -> Todo {
        let mut todo = Todo::default();
        let old = self.nodes.insert(uid.to_owned(), node.clone());
        let before = old.as_ref().map(|o| o.owners.as_slice()).unwrap_or_default();
        for gone in before.iter().filter(|o| !node.owners.iter().any(|n| n.uid == o.uid)) {
            self.unlink(&gone.uid, uid);
        }
        for owner in &node.owners {
            let known = before.iter().find(|b| b.uid == owner.uid);
            self.dependents.entry(owner.uid.clone()).or_default().insert(uid.to_owned());
            match self.nodes.get(&owner.uid) {
                // Somebody has to look whether it exists.
                None if known.is_none() => todo.delete.push(uid.to_owned()),
                Some(there)
                    if known.is_none()
                        && !there.place.namespace.is_empty()
                        && there.place.namespace != node.place.namespace =>
                {
                    todo.invalid.push((uid.to_owned(), owner.clone()));
                    todo.delete.push(uid.to_owned());
                }
                Some(there) if there.foreground && known.is_none() => todo.delete.push(uid.to_owned()),
                _ => {}
            }
        }
        // Owners that waited for this one may go on.
        for owner in before {
            let now = node.owners.iter().find(|n| n.uid == owner.uid);
            let freed =
                owner.block_owner_deletion == Some(true) && now.is_none_or(|n| n.block_owner_deletion != Some(true));
            if freed && self.nodes.get(&owner.uid).is_some_and(|o| o.foreground) {
                todo.delete.push(owner.uid.clone());
            }
        }
        let was = |of: fn(&Node) -> bool| old.as_ref().is_some_and(of);
        if node.orphaning && !was(|o| o.orphaning) {
            todo.orphan.push(uid.to_owned());
        }
        if node.foreground && !was(|o| o.foreground) {
            todo.delete.extend(self.dependent_uids(uid));
            todo.delete.push(uid.to_owned());
        }
        // An owner that comes late: its dependents may refer to it from where they must not.
        if old.is_none() && !node.place.namespace.is_empty() {
            for (dependent, at) in self.dependents(uid) {
                if at.place.namespace != node.place.namespace {
                    let reference = at.owners.into_iter().find(|o| o.uid == uid);
                    todo.invalid.extend(reference.map(|r| (dependent.clone(), r)));
                    todo.delete.push(dependent);
                }
            }
        }
        todo
    }

    /// An object is gone.
    pub(super) fn remove(&mut self, uid: &str) -> Todo {
        let mut todo = Todo::default();
        let Some(node) = self.nodes.remove(uid) else { return todo };
        for owner in &node.owners {
            self.unlink(&owner.uid, uid);
            if self.nodes.get(&owner.uid).is_some_and(|o| o.foreground) {
                todo.delete.push(owner.uid.clone());
            }
        }
        todo.delete.extend(self.dependent_uids(uid));
        self.note_absent(uid, node.place);
        todo
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(set) = self.dependents.get_mut(owner) {
            set.remove(dependent);
            if set.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

/// How the owners of an object are.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Owners {
    /// There, and not waiting for dependents.
    pub(super) solid: Vec<OwnerReference>,
    /// Absent.
    pub(super) dangling: Vec<OwnerReference>,
    /// There, deleted, and waiting for their dependents.
    pub(super) waiting: Vec<OwnerReference>,
}

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stays as it is.
    Keep,
    /// It stays, without the references to owners that are gone or going.
    Detach,
    /// It goes, and its dependents before it. `unblock` if waiting for each other would never end.
    DeleteForeground {
        /// Whether its own references have to stop blocking first.
        unblock: bool,
    },
    /// It goes as its own finalizers say.
    Delete,
}

/// Whether it is the same object with the same owners, whatever else has changed.
pub(super) fn has_same_owners(now: &ObjectMeta, before: &ObjectMeta) -> bool {
    let owners = |meta: &ObjectMeta| meta.owner_references.clone().unwrap_or_default();
    now.uid == before.uid && owners(now) == owners(before)
}

/// Decides about an object with owner references. `dependents` are those of the object.
pub(super) fn judge(owners: &Owners, dependents: &[(String, Node)]) -> Verdict {
    if !owners.solid.is_empty() {
        let detach = !owners.dangling.is_empty() || !owners.waiting.is_empty();
        return if detach { Verdict::Detach } else { Verdict::Keep };
    }
    if !owners.waiting.is_empty() && !dependents.is_empty() {
        return Verdict::DeleteForeground { unblock: dependents.iter().any(|(_, d)| d.foreground) };
    }
    Verdict::Delete
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: &str, block: bool) -> OwnerReference {
        OwnerReference {
            uid: uid.into(),
            name: uid.into(),
            kind: "K".into(),
            api_version: "v1".into(),
            block_owner_deletion: Some(block),
            ..OwnerReference::default()
        }
    }

    fn node(name: &str, owners: &[&str]) -> Node {
        let place = Place { api_version: "v1".into(), kind: "K".into(), namespace: "n".into(), name: name.into() };
        let owners = owners.iter().map(|o| owner(o, true)).collect();
        Node { place, owners, deleting: false, foreground: false, orphaning: false }
    }

    #[test]
    fn dependents_follow_their_owner() {
        let mut graph = Graph::default();
        assert_eq!(graph.put("a", node("a", &[])), Todo::default());
        assert_eq!(graph.put("b", node("b", &["a"])), Todo::default());
        assert!(graph.is_solid(&owner("a", true), "n") && !graph.is_solid(&owner("a", true), "other"));
        assert_eq!(graph.remove("a").delete, ["b"]);
        assert!(graph.is_absent("a", &node("a", &[]).place));
        assert_eq!(graph.remove("a"), Todo::default());
    }

    #[test]
    fn unknown_owners_are_looked_for_once() {
        let mut graph = Graph::default();
        assert_eq!(graph.put("b", node("b", &["a"])).delete, ["b"]);
        assert_eq!(graph.put("b", node("b", &["a"])).delete, Vec::<String>::new());
        graph.put("a", node("a", &[]));
        assert!(graph.has_dependents("a"));
    }

    #[test]
    fn foreground_wakes_dependents_then_the_owner() {
        let mut graph = Graph::default();
        graph.put("a", node("a", &[]));
        graph.put("b", node("b", &["a"]));
        let waiting = Node { foreground: true, deleting: true, ..node("a", &[]) };
        assert_eq!(graph.put("a", waiting.clone()).delete, ["b", "a"]);
        assert_eq!(graph.put("a", waiting).delete, Vec::<String>::new());
        assert_eq!(graph.remove("b").delete, ["a"]);
        let mut unblocked = node("c", &["a"]);
        graph.put("c", unblocked.clone());
        unblocked.owners[0].block_owner_deletion = Some(false);
        assert_eq!(graph.put("c", unblocked).delete, ["a"]);
    }

    #[test]
    fn orphaning_is_told_once() {
        let mut graph = Graph::default();
        let orphaning = Node { orphaning: true, deleting: true, ..node("a", &[]) };
        assert_eq!(graph.put("a", orphaning.clone()).orphan, ["a"]);
        assert_eq!(graph.put("a", orphaning), Todo::default());
    }

    #[test]
    fn references_into_other_namespaces_are_invalid() {
        let mut graph = Graph::default();
        let mut far = node("b", &["a"]);
        far.place.namespace = "other".into();
        graph.put("a", node("a", &[]));
        assert_eq!(graph.put("b", far.clone()).invalid.len(), 1);
        let mut late = Graph::default();
        late.put("b", far);
        assert_eq!(late.put("a", node("a", &[])).invalid.len(), 1);
    }

    #[test]
    fn owners_decide_not_versions() {
        let meta = |uid: &str, version: &str, owners: &[&str]| ObjectMeta {
            uid: Some(uid.into()),
            resource_version: Some(version.into()),
            owner_references: Some(owners.iter().map(|o| owner(o, true)).collect()),
            ..ObjectMeta::default()
        };
        let before = meta("a", "1", &["x"]);
        for (now, same) in [
            (meta("a", "2", &["x"]), true),
            (meta("b", "2", &["x"]), false),
            (meta("a", "2", &["x", "y"]), false),
            (meta("a", "2", &[]), false),
        ] {
            assert_eq!(has_same_owners(&now, &before), same, "{now:?}");
        }
    }

    #[test]
    fn verdicts() {
        let some = || vec![owner("x", true)];
        let child = |foreground| vec![("c".to_owned(), Node { foreground, ..node("c", &[]) })];
        let case = |solid: bool, dangling: bool, waiting: bool, dependents: &[(String, Node)]| {
            let of = |on: bool| if on { some() } else { Vec::new() };
            judge(&Owners { solid: of(solid), dangling: of(dangling), waiting: of(waiting) }, dependents)
        };
        assert_eq!(case(true, false, false, &[]), Verdict::Keep);
        assert_eq!(case(true, true, false, &[]), Verdict::Detach);
        assert_eq!(case(true, false, true, &child(false)), Verdict::Detach);
        assert_eq!(case(false, true, false, &child(false)), Verdict::Delete);
        assert_eq!(case(false, true, true, &[]), Verdict::Delete);
        assert_eq!(case(false, false, true, &child(false)), Verdict::DeleteForeground { unblock: false });
        assert_eq!(case(false, true, true, &child(true)), Verdict::DeleteForeground { unblock: true });
    }
}
