//! Adoption and release: which children belong to a controller.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};

/// What claiming needs of a parent.
#[derive(Clone, Copy, Debug)]
pub struct Parent<'a> {
    /// UID.
    pub uid: &'a str,
    /// Namespace.
    pub namespace: &'a str,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// What claiming needs of a child.
#[derive(Clone, Copy, Debug)]
pub struct Child<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// UID of its controller.
    pub controller: Option<&'a str>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether the parent's selector matches its labels.
    pub matches: bool,
}

/// What is to be done with a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is ours and stays so.
    Keep,
    /// It is nobody's and becomes ours.
    Adopt,
    /// It is ours and matches no longer.
    Release,
    /// It is none of our business.
    Ignore,
}

/// Decides about one child.
pub fn claim(parent: &Parent<'_>, child: &Child<'_>) -> Claim {
    match child.controller {
        Some(uid) if uid != parent.uid => Claim::Ignore,
        Some(_) if child.matches => Claim::Keep,
        Some(_) if parent.deleting => Claim::Ignore,
        Some(_) => Claim::Release,
        None if parent.deleting || child.deleting || !child.matches || child.namespace != parent.namespace => {
            Claim::Ignore
        }
        None => Claim::Adopt,
    }
}

/// UID of the controlling owner.
pub fn controller_of(owners: Option<&[OwnerReference]>) -> Option<&OwnerReference> {
    owners.unwrap_or_default().iter().find(|o| o.controller == Some(true))
}

/// Strategic merge patch that makes `owner` the controller of a child, if the child still is the one with `uid`.
pub fn adoption_patch(owner: &OwnerReference, uid: &str, finalizers: &[&str]) -> Value {
    let mut metadata = json!({
        "ownerReferences": [{
            "apiVersion": owner.api_version,
            "kind": owner.kind,
            "name": owner.name,
            "uid": owner.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        }],
        "uid": uid,
    });
    if !finalizers.is_empty() {
        metadata["finalizers"] = json!(finalizers);
    }
    json!({"metadata": metadata})
}

/// Strategic merge patch that takes an owner and finalizers away from the child with `uid`.
pub fn release_patch(owner_uid: &str, uid: &str, finalizers: &[&str]) -> Value {
    let mut metadata = json!({"ownerReferences": [{"$patch": "delete", "uid": owner_uid}], "uid": uid});
    if !finalizers.is_empty() {
        metadata["$deleteFromPrimitiveList/finalizers"] = json!(finalizers);
    }
    json!({"metadata": metadata})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let parent = Parent { uid: "p", namespace: "ns", deleting: false };
        let dying = Parent { deleting: true, ..parent };
        let child = Child { namespace: "ns", controller: None, deleting: false, matches: true };
        let ours = Child { controller: Some("p"), ..child };
        let cases = [
            (parent, Child { controller: Some("other"), ..child }, Claim::Ignore),
            (parent, ours, Claim::Keep),
            (dying, ours, Claim::Keep),
            (parent, Child { deleting: true, ..ours }, Claim::Keep),
            (parent, Child { matches: false, ..ours }, Claim::Release),
            (dying, Child { matches: false, ..ours }, Claim::Ignore),
            (parent, child, Claim::Adopt),
            (dying, child, Claim::Ignore),
            (parent, Child { deleting: true, ..child }, Claim::Ignore),
            (parent, Child { matches: false, ..child }, Claim::Ignore),
            (parent, Child { namespace: "other", ..child }, Claim::Ignore),
        ];
        for (parent, child, expected) in cases {
            assert_eq!(claim(&parent, &child), expected, "{parent:?} {child:?}");
        }
    }
}
